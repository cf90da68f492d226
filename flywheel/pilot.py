"""`flywheel pilot`: how fine a margin the items of an evaluation set can settle."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from flywheel.answers import Answer, registry, verb
from tasks.core import layout
from tasks.core.layout import home


@verb
@click.argument("name", metavar="SET")
@click.argument("versions", nargs=-1)
@click.option("--items", type=click.IntRange(min=5), help="Say it of so many items instead of those at hand.")
@click.option("--margin", type=click.FloatRange(min=0, min_open=True), help="Say how many items this margin needs.")
def pilot(name: str, versions: tuple[str, ...], items: int | None, margin: float | None) -> Answer:
    """Say what the items of SET can settle, from the last candidate and champion, or from two VERSIONS.

    For each metric: the spread of the paired differences, half the width of the gate's interval, and the smallest
    margin that is settled with a power of 80% where nothing is lost. Set a margin before a candidate is seen.
    """
    from tasks.core.params import load_params
    from tasks.evaluate.pilot import pilot_of

    if len(versions) not in (0, 2):
        raise click.UsageError("name two versions to compare, or none")
    with contextlib.chdir(home()), tempfile.TemporaryDirectory() as folder:
        params = load_params()
        paths = [_scores(number, Path(folder)) for number in versions] or [
            layout.EVALUATION / who / "scores.jsonl" for who in ("candidate", "champion")
        ]
        found = pilot_of(name, paths[0], paths[1], params.gate, params.seed, items, margin)
    needs = f"{f'items for {margin:g}':>20}" if margin is not None else ""
    lines = [f"{name:<16}{'items':>8}{'spread':>10}{'half width':>12}{'margin at 80%':>15}{needs}"]
    for row in found:
        last = "" if row.needed is None else f"{row.needed:>20}"
        lines.append(
            f"{row.metric:<16}{row.items:>8}{row.spread:>10.4f}{row.half_width:>12.4f}{row.margin:>15.4f}{last}"
        )
    return Answer(
        {"set": name, "level": params.gate.level, "metrics": [asdict(row) for row in found]}, "\n".join(lines)
    )


def _scores(version: str, folder: Path) -> Path:
    """The scores that are kept with a version."""
    from tasks.registry.pointer import fetch_evaluation

    kept = registry()
    (folder / version).mkdir()
    return fetch_evaluation(kept, kept.get(version), str(folder / version)) / "scores.jsonl"
