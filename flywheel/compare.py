"""`flywheel compare`: versions side by side, base models to begin from, or answers with and without passages."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flywheel.answers import Answer, brief, registry, verb
from flywheel.two_versions import two_versions
from tasks.core.layout import home
from tasks.core.words import gib, rough

if TYPE_CHECKING:
    from tasks.core.params import Params
    from tasks.evaluate.arms import Arm
    from tasks.evaluate.bases import Candidate, KnownBase

SHOWN = ("evaluate_candidate", "verdict", "sft", "align")  # figures of a version's run, by how they begin


@verb
@click.argument("names", nargs=-1)
@click.option("--bases", is_flag=True, help="NAMES are base models; otherwise they are versions, or aliases.")
@click.option(
    "--retrieval", metavar="on,off", help="Instead: base and tuned model, with (on) and without (off) passages."
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of two versions: write this page, which needs no network.",
)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Items on the page, for each set and metric: so many losses and as many gains.",
)
@click.option("--open-reserve", metavar="REASON", help="Ask the versions the reserve; REASON is kept in the ledger.")
def compare(
    names: tuple[str, ...], bases: bool, retrieval: str | None, html: Path | None, most: int, open_reserve: str | None
) -> Answer:
    """Compare NAMES: versions (numbers or aliases), or with --bases, base models to begin from.

    Two versions are compared item by item: what the gate asks, right answers by category, and the items that lost
    most, with both answers. The terminal shows the beginning of it, --html more, --json all. More versions than two
    are shown by their figures.

    With --retrieval on,off the questions of the domain are put to the base model and to models/package, with the
    passages that its index finds and without, and to plain search (some minutes each, once).

    With --open-reserve the versions are asked the domain's questions in the other words that no gate uses: right
    answers that were won on the gate's own wordings alone do not show there. Open it seldom, since whoever chooses by
    it uses it up; the ledger says how often it was.

    Base models are asked the domain's own questions by the run that judges releases (some minutes each, once), next
    to size, licence, languages and estimated cost; one is recommended, with reasons.
    """
    if retrieval is not None and (names or bases or html or open_reserve is not None):
        raise click.UsageError("--retrieval asks the base model and the packaged one: name nothing else with it")
    if retrieval is not None:
        return _arms(retrieval)
    if open_reserve is not None and (bases or html or not names or not open_reserve.strip()):
        raise click.UsageError("--open-reserve REASON asks versions: name them, without --bases and --html")
    if open_reserve is not None:
        return _reserve(names, open_reserve)
    if not names:
        raise click.UsageError("name versions or bases to compare, or give --retrieval on,off")
    if html is not None and (bases or len(names) != 2):
        raise click.UsageError("--html shows two versions: name exactly two")
    if len(names) == 2 and not bases:
        return two_versions(_versions(names), names, html and html.absolute(), most)
    return _bases(names) if bases else _versions(names)


def _reserve(names: tuple[str, ...], reason: str) -> Answer:
    """Ask the versions the reserve; that it is opened is written down first, whatever becomes of it."""
    from flows.live import live
    from tasks.core import layout
    from tasks.core.files import verify_manifest
    from tasks.evaluate.arms import open_reserve
    from tasks.evaluate.scoring.subject import subject_in
    from tasks.registry.deploy import this_person
    from tasks.registry.pointer import fetch_weights
    from tasks.store import ledger

    with live(home()) as (params, kept, store), contextlib.chdir(home()):
        versions, base = [kept.get(name) for name in names], verify_manifest(layout.BASE_MODEL)
        subjects = {
            f"version {one.number}": subject_in(
                fetch_weights(kept, one, home()), "candidate", one.number, one.manifest, base, "stage base_model"
            )
            for one in versions
        }
        opened = ledger.entries(store, params.domain, "reserve_opened", limit=1000)
        ledger.append(store, params.domain, "reserve_opened", actor=this_person(), reason=reason,
                      detail={"versions": [one.number for one in versions]})  # fmt: skip
        arms = open_reserve(subjects)
    last = f", last on {opened[0].created_at:%Y-%m-%d}: {opened[0].reason}" if opened else ""
    lines = [*_table(arms), f"the reserve was opened {len(opened)} times before{last}"]
    return Answer({"arms": [asdict(arm) for arm in arms], "opened_before": len(opened)}, "\n".join(lines))


def _arms(asked: str) -> Answer:
    from tasks.evaluate.arms import compare_arms

    wanted = asked.split(",")
    if not set(wanted) <= {"on", "off"}:
        raise click.UsageError(f"--retrieval is on, off or on,off, not {asked!r}")
    with contextlib.chdir(home()):
        arms = compare_arms([word == "on" for word in wanted])
    return Answer({"arms": [asdict(arm) for arm in arms]}, "\n".join(_table(arms)))


def _table(arms: list[Arm]) -> list[str]:
    wide = max(26, *(len(arm.name) + 2 for arm in arms))
    lines = [
        f"{'':<{wide}}{'right':>26}{'two passages':>14}{'contradicted':>14}{'cited':>8}{'declined':>10}{'rightly':>9}"
    ]
    for arm in arms:
        right = f"{arm.right.estimate:.0%} ({arm.right.low:.0%} to {arm.right.high:.0%})"
        lines.append(
            f"{arm.name:<{wide}}{right:>26}{_share(arm.two):>14}{_share(arm.contradicted):>14}{_share(arm.cited):>8}"
            f"{_share(arm.declined):>10}{_share(arm.declined_unanswerable):>9}"
        )
    told = f"of {arms[0].n} questions with key facts; rightly declined: of those that the material does not answer"
    return [*lines, told]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _versions(names: tuple[str, ...]) -> Answer:
    kept = registry()
    versions = [kept.get(name) for name in names]
    figures = [kept.client.get_run(version.run_id).data.metrics if version.run_id else {} for version in versions]
    shown = sorted({name for row in figures for name in row if name.startswith(SHOWN)})
    found = {
        "versions": [
            {**brief(version), "figures": {name: row[name] for name in shown if name in row}}
            for version, row in zip(versions, figures, strict=True)
        ]
    }
    width = max((len(name) for name in shown), default=10) + 2
    lines = [" " * width + "".join(f"{'version ' + version.number:>14}" for version in versions)]
    lines.append(f"{'verdict':<{width}}" + "".join(f"{version.tags.get('verdict', '–'):>14}" for version in versions))
    for name in shown:
        lines.append(f"{name:<{width}}" + "".join(_cell(row.get(name)) for row in figures))
    return Answer(found, "\n".join(lines))


def _cell(value: float | None) -> str:
    return f"{'–' if value is None else format(value, '.4g'):>14}"


def _bases(names: tuple[str, ...]) -> Answer:
    from tasks.core.domain import load_domain
    from tasks.core.params import load_params
    from tasks.core.prices import read_prices
    from tasks.evaluate.bases import known_bases, recommend

    with contextlib.chdir(home()):
        params, currency = load_params(), read_prices().currency
        known, here = known_bases(), load_domain(params.domain)
        candidates = [_candidate(name, known, params) for name in names]
        chosen, reasons = recommend(candidates, here.language, params)
    found = {
        "domain": params.domain,
        "bases": [{**asdict(row), "loss": row.loss, "losses": None} for row in candidates],
        "currency": currency,
        "recommended": chosen,
        "reasons": reasons,
    }
    return Answer(found, words(candidates, chosen, reasons, currency))


def _candidate(name: str, known: dict[str, KnownBase], params: Params) -> Candidate:
    from tasks.core.base_model import told
    from tasks.core.domain import load_domain
    from tasks.evaluate.bases import Candidate, ask_base, domain_of, losses_of, prepare
    from tasks.evaluate.run.stage import context_length
    from tasks.evaluate.scoring.questions import means_of, read_items
    from tasks.train.estimate_all import estimate
    from tasks.train.run.shape import read_shape

    here = load_domain(params.domain)
    owner = domain_of(name, known, here)
    folder = prepare(name, owner, here, params.accepted_terms)
    items = read_items()
    scores = ask_base(name, folder, items, params, here.system_text())
    return Candidate(
        name,
        read_shape(folder).parameters,
        told(owner.base_model, folder).licence,
        tuple(known[name].languages),
        means_of(scores),
        losses_of(name, scores, items),
        estimate(home(), "sft", "known", base=folder)["stages"][0],
        context_length(folder),
    )


def words(candidates: list[Candidate], chosen: str, reasons: list[str], currency: str) -> str:
    """The candidates as a table for people; memory, time and money are those of SFT on this machine."""
    lines = [
        f"  {'base model':<26}{'parameters':>12}{'context':>9}{'nats/char':>11}{'memory':>10}{'SFT':>8}{currency:>8}"
        "  licence, languages"
    ]
    for row in candidates:
        mark, size = ("*" if row.name == chosen else " "), row.estimate
        licence = f"{row.licence}, {', '.join(row.languages) or 'not said'}"
        lines.append(
            f"{mark} {row.name:<26}{row.parameters:>12,}{row.context or '–':>9}{row.loss:>11.3f}"
            f"{gib(size['memory']['needed']):>10}{rough(size['time']['seconds']):>8}{size['cost']:>8.2f}  {licence}"
        )
        lines.append(
            "    " + ", ".join(f"{name.replace('_', ' ', 1)} {value:.3f}" for name, value in row.means.items())
        )
    return "\n".join([*lines, f"recommended: {chosen}", *(f"  {reason}" for reason in reasons)])
