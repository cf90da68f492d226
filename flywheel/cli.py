"""`flywheel VERB`: small commands over the registry and the reports. Every verb takes --json.

Imports are made inside the verbs, so that `flywheel --help` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flywheel.answers import Answer, Verbs, brief, end_in_order, is_quiet, json_option, registry, verb
from flywheel.compare import compare
from flywheel.forget import forget
from flywheel.learn import learn
from flywheel.pilot import pilot
from flywheel.platform.verbs import VERBS as PLATFORM
from flywheel.use import use
from tasks.core import layout
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.core.params import Params
    from tasks.registry.versions import Version
    from tasks.store.store import Store
    from tasks.train.smaller import Quantisation


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flywheel")
def main() -> None:
    """Flywheel: a domain model that is trained, judged, served and improved, in house.

    One whole release is `make run`.
    """


@click.command()
@json_option
@click.option("--machine", is_flag=True, help="Check the bare machine only; name only what is wrong.")
def doctor(as_json: bool, machine: bool) -> None:
    """Say what this machine or checkout lacks, and how to fix it."""
    from flywheel.doctor import examine, report

    sys.exit(report(examine(home(), machine), as_json, only_problems=machine))


@verb
def status() -> Answer:
    """Show services, what is served, champion, candidate and previous, the last nights, the next run, and the alarm.

    Exit status: 0 all is well, or the platform was taken down on purpose; 1 something needs attention: the alarm, a
    service that is not ready, a champion whose signature does not hold, a lost supervisord, a full disk.
    """
    from flywheel.platform import status as platform_status
    from flywheel.platform.platform import load
    from tasks.core.domain import load_domain
    from tasks.core.settings import SettingsError

    found, words, _ = _versions()
    platform = platform_status.look(load(home()))
    wrong = [found["untrusted"]] if found["untrusted"] else []
    try:
        load_domain(found["domain"], home())
    except SettingsError as error:
        wrong.append(str(error))
    platform["attention"] = wrong + platform_status.attention(platform)
    return Answer(
        {**found, **platform}, f"{words}\n{platform_status.words(platform)}", 1 if platform["attention"] else 0
    )


def _versions() -> Answer:
    from flows.stages import changed_stages, open_repo, read_stages
    from tasks.registry.signing import trusted_keys

    kept = registry()
    versions = kept.versions()
    with open_repo(home()) as repo:
        changed = changed_stages(repo, read_stages(repo))
    named = {
        alias: next((v for v in versions if alias in v.aliases), None)
        for alias in ("champion", "candidate", "previous")
    }
    trusted, champion = sorted(trusted_keys(home())), named["champion"]
    untrusted = kept.untrusted(champion) if champion else None
    found = {
        "domain": kept.domain,
        **{alias: version and brief(version) for alias, version in named.items()},
        "versions": len(versions),
        "untrusted": untrusted,
        "trusted_keys": trusted,
        "changed_stages": changed,
    }
    lines = [f"{kept.domain}: {len(versions)} versions"]
    for alias, version in named.items():
        nothing = "the base model" if alias == "champion" else "–"
        lines.append(f"  {alias:<10} {_words(version) if version else nothing}")
    lines.append(f"  signature  {untrusted or ('holds' if champion else '–')}; trusted here: {' '.join(trusted)}")
    lines.append(f"  next run   {', '.join(changed) or 'every stage is up to date'}")
    return Answer(found, "\n".join(lines))


def _words(version: Version) -> str:
    return f"version {version.number}, verdict {version.tags.get('verdict')}, package {version.manifest[:12]}"


@verb
def card() -> Answer:
    """Render the release card, the ML-BOM and the data docs again from the last release's files."""
    from tasks.core.files import sha256_file
    from tasks.curate.quality.data_docs import render_data_docs
    from tasks.evaluate.card.bom import render_bom
    from tasks.evaluate.card.card import collect, render_card

    collect(home())  # says what is missing before the registry is asked
    version = registry().find(verdict_sha256=sha256_file(home() / "reports/verdict.json"))
    tags = version.tags if version else {}
    paths = [render_card(home(), tags), render_data_docs(home()), render_bom(home(), tags)]
    named = dict(zip(("card", "data_docs", "bom"), map(str, paths), strict=True))
    return Answer(named, "\n".join(named.values()))


@verb
@click.argument("version")
@click.option(
    "--override", metavar="REASON", help="Promote without a passing verdict; the reason is kept with the version."
)
def promote(version: str, override: str | None) -> Answer:
    """Make VERSION (a number, or an alias such as candidate) the champion, and wait until it is served.

    Refused unless its verdict says promote, for this package, against the present champion, and nobody has to approve.
    """
    from flows.live import live, promoted_by_hand

    with live(home()) as (params, registry, store):
        previous, words = promoted_by_hand(registry, store, params, version, override, "flywheel promote")
        return Answer({"champion": brief(registry.get("champion")), "previous": previous}, words)


@verb
@click.argument("version")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--refuse", is_flag=True, help="Answer no: the version is not promoted.")
def approve(version: str, reason: str, refuse: bool) -> Answer:
    """Answer the question whether VERSION may become champion; a yes promotes it."""
    from flows.live import decided, live

    with live(home()) as (params, registry, store):
        previous, words = decided(registry, store, params, version, not refuse, reason)
        if refuse:
            return Answer({"refused": registry.get(version).number}, words)
        return Answer({"champion": brief(registry.get("champion")), "previous": previous}, words)


@verb
@click.option("--reason", default="flywheel rollback", help="Kept in the ledger.")
def rollback(reason: str) -> Answer:
    """Make the previous champion the champion again, and wait until it is served."""
    from flows.live import live, rolled_back

    with live(home()) as (params, registry, store):
        _, previous, served, words = rolled_back(registry, store, params, reason)
        champion = brief(registry.get("champion"))  # with the alias that it has now
        return Answer({"champion": champion, "previous": previous.number, "served": served}, words)


@verb
@click.option("--force", is_flag=True, help="Release even if fewer corrections than nightly.min_examples are new.")
def nightly(force: bool) -> Answer:
    """Run one night now: what users said since the last one becomes a version, is judged, and served if it passes.

    With the platform up the night runs there, as the deployment nightly/nightly; otherwise in this process.
    """
    from flows.live import live
    from flywheel.platform.platform import load
    from flywheel.platform.up import is_up
    from tasks.store.nights import last_nights

    platform = load(home())
    if is_up(platform):
        asked = ["--watch", "-p", f"force={force}".lower()]
        run = ["prefect", "--no-prompt", "deployment", "run", "nightly/nightly", *asked]
        environment = platform.environment()
    else:
        run = ["flows.run", "--nightly", *(["--force"] if force else [])]
        environment = layout.child_environment()
    output = subprocess.DEVNULL if is_quiet() else None
    done = subprocess.run([sys.executable, "-m", *run], cwd=home(), env=environment, stdout=output)
    with live(home()) as (params, _, store):
        newest = last_nights(store, params.domain, 1)
    rows = asdict(newest[0]).items() if newest else ()
    found = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in rows}
    return Answer(found, f"card: {home() / '.flywheel/nights'}", done.returncode)


@verb
@click.argument("identity", metavar="ID")
@click.option("--all", "everything", is_flag=True, help="Of a version, every setting it was made with.")
@click.option("--depends", is_flag=True, help="Of an answer, ask again without each passage.")
@click.option("--rows", is_flag=True, help="Of an answer, which training rows pulled at it (a minute or two).")
def trace(identity: str, everything: bool, depends: bool, rows: bool) -> Answer:
    """Show the story of ID: a version, an answer (chatcmpl-…), a feedback row, or an example.

    A version leads to its commit, data, base and settings; an answer to its passages, the examples that were made of
    them, and the corrections that its version had learnt.
    """
    from flows.live import live
    from flywheel.trace import trace as story_of
    from flywheel.trace import words

    with live(home()) as (params, registry, store):
        found = story_of(registry, store, identity, home() / layout.RECEIPT)
        if depends or rows:
            found |= _asked_again(params, store, identity, depends, rows)
    return Answer(found, "\n".join(words(found, everything, home() / layout.PARAMS)))


def _asked_again(params: Params, store: Store, identity: str, depends: bool, rows: bool) -> dict[str, Any]:
    """What an answer depends on, and which training rows pulled at it; see leave_one_out and rows_behind."""
    from flywheel.leave_one_out import leave_one_out
    from flywheel.rows_behind import rows_behind
    from tasks.core.domain import load_domain
    from tasks.engine.client import Engine, decoding, engine_url
    from tasks.store.answers import get_answer
    from tasks.text.passages import domain_words

    if (answer := get_answer(store, identity)) is None:
        raise click.UsageError(f"--depends and --rows are asked of an answer, and {identity} is none")
    found: dict[str, Any] = {}
    if depends:
        asked = decoding(params.engine.kind, params.evaluate.repetition_penalty)
        words = domain_words(load_domain(params.domain))
        with Engine(engine_url(params.engine)) as client:
            found["depends"] = leave_one_out(client, answer, words, params.serving.max_tokens, asked)
    if rows:
        with contextlib.chdir(home()):
            found["rows"] = rows_behind(answer)
    return found


@verb
@click.option(
    "--stage",
    type=click.Choice(("pretrain", "sft", "reward", "align")),
    help="Only this stage; otherwise all that are switched on.",
)
@click.option("--probe/--no-probe", default=True, help="Run three real steps (half a minute), or trust the formulas.")
def estimate(stage: str | None, probe: bool) -> Answer:
    """Say what training will need: parameters, memory, disk, time, energy and money, here and on GPUs for hire.

    Written to reports/estimate.json too. Exit status 3: it cannot run here; what would fit is said.
    """
    from tasks.core.files import write_json
    from tasks.train import estimate_all

    found = estimate_all.estimate(home(), stage, "always" if probe else "known")
    write_json(home() / layout.ESTIMATE, found)
    return Answer(found, estimate_all.words(found), 0 if all(row["fits"] for row in found["stages"]) else 3)


@verb
@click.option("--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Trainings to try, at most.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Time to spend.")
@click.option("--space", type=click.Path(dir_okay=False), default="infra/search.yaml", show_default=True)
def search(trials: int, minutes: float, space: str) -> Answer:
    """Search for settings with a lower validation loss; each trial is a child run in MLflow.

    Goes on where it was when it is called again. params.yaml stays as it is; the best settings are printed.
    """
    from flows.search import read_space
    from flows.search import search as run

    end_in_order(signal.SIGTERM, signal.SIGINT)  # the trial's training ends, its run is closed
    found = run(home(), read_space(home() / space), trials, minutes)
    best = found["best"]
    lines = [f"best of {len(found['trials'])} trials: validation loss {best['validation_loss']:.4f} nats a token"]
    return Answer(found, "\n".join([*lines, *(f"  {name}: {value}" for name, value in best["settings"].items())]))


@verb
@click.option("--quantise", type=click.Choice(["q8_0", "q4_1"]), help="Eight or four bits a weight, as a GGUF file.")
@click.option(
    "--distil", type=click.IntRange(min=1), metavar="LAYERS", help="A student with so many layers, trained on answers."
)
@click.option("--judge/--no-judge", default=True, show_default=True, help="Measure it and put it to the gate.")
def smaller(quantise: Quantisation | None, distil: int | None, judge: bool) -> Answer:
    """Make a smaller form of the packaged version, and judge it against the version.

    It lies in .flywheel/smaller with its verdict. Exit status: 0 made, and the gate says promote where it was asked;
    1 it could not be made; 2 the gate says hold or reject.
    """
    from tasks.core.stage import hush
    from tasks.evaluate.smaller import judge_smaller
    from tasks.train import smaller as forms

    if (quantise is None) == (distil is None):
        raise click.UsageError("name one of --quantise and --distil")
    end_in_order(signal.SIGTERM)
    os.chdir(home())
    hush()
    form = forms.quantised(quantise) if quantise else forms.distilled(distil or 0)
    found = {"package": str(form.folder / "package"), "digest": form.digest, **form.about}
    words = f"{found['package']}: {form.about['bytes'] / 1e6:.0f} MB, digest {form.digest[:12]}"
    if not judge:
        return Answer(found, words)
    verdict = judge_smaller(form.weights, form.digest, form.folder)
    lines = [words, f"{verdict.outcome}: {verdict.reasons[0]}", *verdict.reasons[1:]]
    status = 0 if verdict.outcome == "promote" else 2
    return Answer({**found, "verdict": verdict.model_dump(mode="json")}, "\n".join(lines), status)


@verb
@click.argument("name")
@click.option(
    "--from", "folder", required=True, type=click.Path(path_type=Path), help="A folder of PDFs, Word files and a CSV."
)
@click.option("--language", default="", metavar="CODE", help="Two letters, such as de; otherwise told from the texts.")
def new_domain(name: str, folder: Path, language: str) -> Answer:
    """Build the domain NAME from a folder of your own material, and say what was decided.

    A table of questions and answers (CSV, XLSX, JSON or Parquet) is needed; PDF, Word, HTML, Markdown and text files
    become documents. Language, columns and title are found out, and what the language lacks is told; the folder itself
    is not changed. The first stages of a release are tried, so that what cannot work is refused at once.
    """

    from flywheel.new_domain.new_domain import new_domain as build

    source = folder.absolute()
    with contextlib.chdir(home()):
        built = build(name, source, language)
    lines = [f"domains/{name} is built.", *(f"  {decision}" for decision in built.decisions)]
    lines += [f"  in {built.language!r}: {one}" for one in built.missing]
    lines += ["Next:", *(f"  {step}" for step in built.next)]
    return Answer(asdict(built), "\n".join(lines))


VERBS = (
    doctor,
    status,
    card,
    compare,
    estimate,
    search,
    smaller,
    pilot,
    new_domain,
    use,
    learn,
    nightly,
    approve,
    promote,
    rollback,
    trace,
    forget,
)
for command in (*VERBS, *PLATFORM):
    main.add_command(command)


if __name__ == "__main__":
    main()
