"""`flywheel VERB`: small commands over the registry and the reports. Every verb takes --json.

Imports are made inside the verbs, so that `flywheel --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tasks.registry.versions import Registry, Version

Answer = tuple[dict[str, Any], str]


def home() -> Path:
    """The repository: FLYWHEEL_ROOT, or the working directory."""
    return Path(os.environ.get("FLYWHEEL_ROOT") or ".").absolute()


def registry() -> Registry:
    """The registry of the domain that params.yaml names."""
    from tasks.params import load_params
    from tasks.registry.versions import Registry

    return Registry(load_params(home() / "params.yaml").domain, home())


def answer(work: Callable[[], Answer], as_json: bool) -> None:
    """Print what a verb found, as JSON or in words; errors meant for a person end with status 1."""
    from tasks.errors import FlywheelError

    try:
        found, words = work()
    except FlywheelError as error:
        click.echo(json.dumps({"error": str(error)}) if as_json else f"{error}", err=not as_json)
        sys.exit(1)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else words)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flywheel")
def main() -> None:
    """Flywheel: a domain model that is trained, judged, served and improved, in house.

    One whole release is `make run`.
    """


@main.command()
@json_option
@click.option("--machine", is_flag=True, help="Check the bare machine only; name only what is wrong.")
def doctor(as_json: bool, machine: bool) -> None:
    """Say what this machine or checkout lacks, and how to mend it."""
    from flywheel.doctor import examine, report

    sys.exit(report(examine(home(), machine), as_json, only_problems=machine))


@main.command()
@json_option
def status(as_json: bool) -> None:
    """Show who is champion, candidate and previous, and what the next release would run."""
    answer(_status, as_json)


def _status() -> Answer:
    from flows.stages import changed_stages, open_repo, read_stages

    kept = registry()
    versions = kept.versions()
    with open_repo(home()) as repo:
        changed = changed_stages(repo, read_stages(repo))
    named = {
        alias: next((v for v in versions if alias in v.aliases), None)
        for alias in ("champion", "candidate", "previous")
    }
    found = {
        "domain": kept.domain,
        **{alias: version and _brief(version) for alias, version in named.items()},
        "versions": len(versions),
        "changed_stages": changed,
    }
    lines = [f"{kept.domain}: {len(versions)} versions"]
    for alias, version in named.items():
        lines.append(
            f"  {alias:<10} " + (_words(version) if version else ("the base model" if alias == "champion" else "–"))
        )
    lines.append("  next run   " + (", ".join(changed) if changed else "every stage is up to date"))
    return found, "\n".join(lines)


def _brief(version: Version) -> dict[str, Any]:
    keys = ("verdict", "manifest_sha256", "git_sha", "override")
    return {"version": version.number, "aliases": list(version.aliases), **{k: version.tags.get(k) for k in keys}}


def _words(version: Version) -> str:
    return f"version {version.number}, verdict {version.tags.get('verdict')}, package {version.manifest[:12]}"


@main.command()
@json_option
def card(as_json: bool) -> None:
    """Render the release card and the data docs again from the last release's files."""
    answer(_card, as_json)


def _card() -> Answer:
    from tasks.curate.data_docs import render_data_docs
    from tasks.evaluate.card import collect, render_card
    from tasks.files import sha256_file

    collect(home())  # says what is missing before the registry is asked
    version = registry().find(verdict_sha256=sha256_file(home() / "reports/verdict.json"))
    paths = [render_card(home(), version.tags if version else None), render_data_docs(home())]
    return {"card": str(paths[0]), "data_docs": str(paths[1])}, "\n".join(map(str, paths))


@main.command()
@click.argument("version")
@click.option(
    "--override", metavar="REASON", help="Promote without a passing verdict; the reason is kept with the version."
)
@json_option
def promote(version: str, override: str | None, as_json: bool) -> None:
    """Make VERSION (a number, or an alias such as candidate) the champion.

    Refused unless its verdict says promote, for this very package, against the present champion.
    """

    def work() -> Answer:
        kept = registry()
        chosen = kept.get(version)
        if override is not None:
            chosen = kept.override(chosen, override)
        before = kept.promote(chosen)
        after = kept.get(chosen.number)
        previous = before.number if before and before.number != after.number else None
        words = f"version {after.number} is champion" + (f"; version {previous} is previous" if previous else "")
        return {"champion": _brief(after), "previous": previous}, words

    answer(work, as_json)


@main.command()
@json_option
def rollback(as_json: bool) -> None:
    """Make the previous champion the champion again."""

    def work() -> Answer:
        champion, previous = registry().roll_back()
        words = f"version {champion.number} is champion again; version {previous.number} is previous"
        return {"champion": _brief(champion), "previous": previous.number}, words

    answer(work, as_json)


@main.command()
@click.argument("version")
@json_option
def trace(version: str, as_json: bool) -> None:
    """Show what VERSION was made from: commit, dvc.lock, data, base model, settings, receipt of its examples."""

    def work() -> Answer:
        from tasks.registry.lineage import lineage

        kept = registry()
        found = lineage(kept, kept.get(version))
        rows = [(key, value) for key, value in found.items() if key not in ("params", "examples")]
        rows += [(f"examples {key}", value) for key, value in found["examples"].items()]
        rows += list(found["params"].items())
        return found, "\n".join(f"{key:<28} {'' if value is None else value}" for key, value in rows)

    answer(work, as_json)


if __name__ == "__main__":
    main()
