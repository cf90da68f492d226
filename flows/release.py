"""The release flow: DVC's stages, one Prefect task each, then the version, promoted if its verdict says so.

It decides WHEN; every computation is a stage (tasks/) or a function of tasks/registry. It needs a Prefect API
(flows/run.py starts one), git, and the project as working directory or in FLYWHEEL_ROOT.

Safe to run again after any kill: stages resume from DVC, the MLflow run of the same inputs is taken up again, a version
is known by its package and verdict, and its `released` tag comes last.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled, Completed, State

from flows import stages as dvc
from flows.cancel import CancelWatch
from flows.console import clock, reporter
from flows.measure import MemoryWatch, keep_duration, read_durations
from flows.workspace import Workspace, commit_results, is_dirty, one_at_a_time, open_workspace
from tasks import layout
from tasks.domain import load_domain
from tasks.errors import FlywheelError
from tasks.files import sha256_file, verify_manifest
from tasks.params import load_params
from tasks.registry.inputs import folder_digest, inputs_digest

if TYPE_CHECKING:
    from dvc.repo import Repo

    from tasks.registry.versions import Registry, Version

# No step is retried or cached by Prefect: DVC knows what is up to date, and a stage that failed would fail again.
STEP: dict[str, Any] = {"retries": 0, "cache_policy": NO_CACHE, "persist_result": False}
STATE_NAMES = {"promote": "Promoted", "hold": "Held", "reject": "Rejected"}


class GateBlocked(FlywheelError):
    """There is no verdict that can be trusted, so nothing is registered or promoted."""


class RejudgeRefused(FlywheelError):
    """`rejudge` was asked for, but there is no finished package to judge."""


@dataclass
class Release:
    """One run of the flow: where it works, and what it has found so far."""

    place: Workspace
    domain: str
    registry: Registry
    repo: Repo
    stages: list[dvc.Stage]
    inputs: str
    reason: str
    flow_run_id: str
    started: float
    mlflow_run: str = ""
    runs: list[dvc.StageRun] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a release ended with, for the summary; times in seconds, memory in bytes."""

    outcome: str
    domain: str
    version: str | None
    aliases: tuple[str, ...]
    note: str
    runs: tuple[dvc.StageRun, ...]
    seconds: float
    peak_memory: int = 0


@flow(name="release", flow_run_name="release-{reason}", log_prints=False, retries=0, persist_result=False)
def release(
    reason: str = "manual", dry_run: bool = False, rejudge: bool = False, workspace: str | None = None
) -> State:
    """Train, judge and register one version of a domain's model; promote it if its verdict says so.

    Args:
        reason: why this run was started; kept with the MLflow run and the version.
        dry_run: say which stages would run, and change nothing.
        rejudge: force the gate again over the package that is there, without training.
        workspace: a domain, to work in its own git worktree; None for the checkout itself.

    Returns:
        A Completed state named Promoted, Held, Rejected, NothingToDo or Planned; Cancelled if it was cancelled.
    """
    place = open_workspace(Path(os.environ.get("FLYWHEEL_ROOT") or "."), workspace)
    os.environ.update(layout.OFFLINE)
    with (
        contextlib.chdir(place.root),
        one_at_a_time(place.root, reporter.get().say),
        dvc.open_repo(place.root) as repo,
        MemoryWatch() as memory,
    ):
        try:
            work = prepare(place, repo, reason, workspace)
            if dry_run:
                return plan(work)
            outcome = perform(work, rejudge, memory)
        except dvc.ReleaseStopped as stopped:
            return Cancelled(message=str(stopped))
    reporter.get().finished(outcome)
    name = "NothingToDo" if outcome.note.startswith("nothing to do") else STATE_NAMES[outcome.outcome]
    return Completed(name=name, message=outcome.note)


def prepare(place: Workspace, repo: Repo, reason: str, workspace: str | None) -> Release:
    """Check the settings, read the graph and connect the registry.

    Raises:
        SettingsError: params.yaml or the domain is wrong.
        FlywheelError: the workspace is another domain's.
    """
    from tasks.registry.versions import Registry

    started = time.monotonic()
    domain = load_params().domain
    load_domain(domain)
    if workspace not in (None, domain):
        raise FlywheelError(f"workspace {workspace!r} holds params.yaml of domain {domain!r}; they must agree")
    if dvc.mend_rwlock(repo):
        get_run_logger().warning("DVC's rwlock file was torn by a killed command; removed it")
    return Release(
        place=place,
        domain=domain,
        registry=Registry(domain, place.home),
        repo=repo,
        stages=dvc.read_stages(repo),
        inputs=inputs_digest(domain),
        reason=reason,
        flow_run_id=str(current_flow_run.id or ""),
        started=started,
    )


def plan(work: Release) -> State:
    """What a run would do, in words; nothing is written."""
    changed = dvc.changed_stages(work.repo, work.stages)
    known = read_durations(work.place.root)
    cost = f", about {clock(sum(known[name] for name in changed))}" if all(name in known for name in changed) else ""
    text = f"would run {', '.join(changed)}{cost}" if changed else "would run no stage: all are up to date"
    get_run_logger().info(text)
    reporter.get().say(f"Dry run: {text}")
    return Completed(name="Planned", message=text)


def perform(work: Release, rejudge: bool, memory: MemoryWatch) -> Outcome:
    """Run what is not up to date, then register; or find that there is nothing to do."""
    known = work.registry.of_inputs(work.inputs)
    changed = dvc.changed_stages(work.repo, work.stages)
    if known is not None and known.tags.get("released") and not rejudge and not changed:
        run_stages(work, rejudge=False)
        return nothing_to_do(work, known, memory)
    if rejudge:
        require_package(work, changed)
    if known is None or rejudge:
        point_at_champion(work, changed)
    return carry_out(work, rejudge, memory)


def carry_out(work: Release, rejudge: bool, memory: MemoryWatch) -> Outcome:
    """The stages and what follows them, inside one MLflow run, which is closed whatever happens."""
    from tasks.registry.runs import close_run, open_run

    client = work.registry.client
    work.mlflow_run = open_run(client, work.place.home, work.domain, work.inputs, work.reason)
    try:
        run_stages(work, rejudge)
        verdict = trusted_verdict(work)
        tags = describe(work, verdict)
        publish_reports(work, verdict, tags)
        outcome = register(work, verdict, tags, memory)
    except Exception:
        close_run(client, work.mlflow_run, "FAILED")
        raise
    except BaseException:  # a signal: take no more time than the state of the run needs
        close_run(client, work.mlflow_run, "KILLED")
        raise
    close_run(client, work.mlflow_run, "FINISHED")
    return outcome


def require_package(work: Release, changed: list[str]) -> None:
    """Refuse to judge again where that would mean training.

    Raises:
        RejudgeRefused: a stage that the package waits for is not up to date.
    """
    missing = [name for name in changed if name in dvc.with_upstream(work.stages, "package")]
    if missing:
        raise RejudgeRefused(f"judging again would first run {', '.join(missing)}; run a whole release instead")


def point_at_champion(work: Release, changed: list[str]) -> None:
    """Point at the registry's champion, unless that is this very package: nothing is judged against itself."""
    from tasks.registry.pointer import refresh_pointer

    champion = work.registry.alias("champion")
    finished = not dvc.with_upstream(work.stages, "package").intersection(changed)
    if champion is not None and finished and verify_manifest(layout.PACKAGE) == champion.manifest:
        return
    pointer = refresh_pointer(work.registry, work.place.root)
    get_run_logger().info(
        "judging against %s", "the base model" if pointer.kind == "base" else f"version {pointer.version}"
    )


def run_stages(work: Release, rejudge: bool) -> None:
    """Every stage in DVC's order, each as a task that waits for those DVC says it waits for."""
    news, known = reporter.get(), read_durations(work.place.root)
    news.plan(dvc.changed_stages(work.repo, work.stages), known)
    with CancelWatch(work.flow_run_id) as watch:
        for stage in work.stages:
            waits = [work.states[name] for name in stage.upstream]
            state = stage_task(work, stage, watch, rejudge and stage.name == "gate")(return_state=True, wait_for=waits)
            state.result()  # raises what the stage raised
            work.states[stage.name] = state


def stage_task(work: Release, stage: dvc.Stage, watch: CancelWatch, force: bool) -> Callable[..., State]:
    """The Prefect task of one stage: named after it, never retried, never cached by Prefect (DVC does that)."""

    @task(name=stage.name, task_run_name=stage.name, **STEP)
    def run() -> State:
        done = run_one(work, stage, watch, force)
        work.runs.append(done)
        if done.cached:
            return Completed(name="Cached", message="up to date: nothing it depends on has changed")
        return Completed(message=f"took {clock(done.seconds)}")

    return run


def run_one(work: Release, stage: dvc.Stage, watch: CancelWatch, force: bool) -> dvc.StageRun:
    """One stage: asked of DVC, run if need be, its output in the Prefect log, the console and .flywheel/logs."""
    watch.check()
    news, logger = reporter.get(), get_run_logger()
    if not force and dvc.is_current(work.repo, stage.name):
        done = dvc.StageRun(stage.name, True, 0.0)
        logger.info("Stage '%s' didn't change, skipping", stage.name)
        news.stage_ended(done)
        return done
    news.stage_started(stage.name)
    path = work.place.root / layout.LOGS / f"{stage.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as log:

        def on_line(text: str, whole: bool) -> None:
            news.stage_said(text)
            if whole:
                log.write(text + "\n")
                log.flush()
                logger.info("%s", text)

        try:
            done = dvc.run_stage(
                work.place.root, stage.name, tracking(work), on_line, force=force, on_start=watch.watch
            )
        except dvc.StageFailed:
            watch.check()
            raise
    if not done.cached:
        keep_duration(work.place.root, stage.name, done.seconds)
    news.stage_ended(done)
    return done


def tracking(work: Release) -> dict[str, str]:
    """What a stage's own MLflow callback needs, to draw its curves into this release's run."""
    from tasks.registry.runs import tracking_uri

    return {
        "MLFLOW_TRACKING_URI": tracking_uri(work.place.home),
        "MLFLOW_EXPERIMENT_NAME": work.domain,
        **({"MLFLOW_RUN_ID": work.mlflow_run} if work.mlflow_run else {}),
    }


def trusted_verdict(work: Release) -> dict[str, Any]:
    """The verdict, if this flow ran or confirmed the gate and it judged the package that is here.

    Raises:
        GateBlocked: it cannot be trusted; the message says why.
    """
    if "gate" not in work.states:
        raise GateBlocked("the graph has no stage called gate, so nothing was judged; nothing was promoted")
    if not dvc.is_current(work.repo, "gate"):
        raise GateBlocked("what the gate judged has changed since it ran; nothing was promoted. Run the release again")
    verdict: dict[str, Any] = json.loads(layout.VERDICT.read_text(encoding="utf-8"))
    if verdict.get("outcome") not in STATE_NAMES:
        raise GateBlocked(f"{layout.VERDICT} has the outcome {verdict.get('outcome')!r}; nothing was promoted")
    package = verify_manifest(layout.PACKAGE)
    if verdict.get("candidate", {}).get("digest") != package:
        raise GateBlocked(f"{layout.VERDICT} judged another package than {layout.PACKAGE}; nothing was promoted")
    return verdict


def publish_reports(work: Release, verdict: dict[str, Any], tags: dict[str, str]) -> None:
    """Render the card and the data docs, and show them with the run."""

    @task(name="reports", task_run_name="reports", **STEP)
    def run() -> None:
        from flows.publish import render_data_docs, show_artifacts
        from tasks.evaluate.card import render_card

        render_data_docs(work.place.root)
        render_card(lineage=tags)
        show_artifacts(verdict)

    run(wait_for=[work.states["gate"]])


def describe(work: Release, verdict: dict[str, Any]) -> dict[str, str]:
    """The tags of the version: everything that leads back from it."""
    own = dvc.output_paths(work.repo)
    commit = commit_results(work.place, f"Release of {work.domain}: {verdict['outcome']}")
    return {
        "git_sha": commit or "none",
        "dirty": "true" if is_dirty(work.place, own) else "false",
        "dvc_lock_sha256": sha256_file(work.place.root / "dvc.lock"),
        "manifest_sha256": verify_manifest(layout.PACKAGE),
        "base_manifest_sha256": verify_manifest(layout.BASE_MODEL),
        "verdict": str(verdict["outcome"]),
        "verdict_sha256": sha256_file(layout.VERDICT),
        "data_snapshot": folder_digest(layout.INGEST) or "none",
        "data_sha256": folder_digest(layout.MIX) or "none",
        "inputs_sha256": work.inputs,
        "prefect_flow_run_id": work.flow_run_id,
        "reason": work.reason,
    }


def register(work: Release, verdict: dict[str, Any], tags: dict[str, str], memory: MemoryWatch) -> Outcome:
    """Keep everything with the MLflow run, register the version, and promote it if it may be."""
    news: list[Outcome] = []

    @task(name="register", task_run_name="register", **STEP)
    def run() -> State:
        from tasks.registry import runs

        client, run_id, root = work.registry.client, work.mlflow_run, work.place.root
        runs.log_params(client, run_id, root / layout.PARAMS)
        runs.log_metrics(client, run_id, root / layout.REPORTS)
        runs.log_files(client, run_id, root)
        version = work.registry.register(run_id, tags)
        note = settle(work, version, verdict)
        work.registry.finish(version, work.inputs)
        news.append(outcome_of(work, work.registry.get(version.number), note, memory))
        return Completed(message=note)

    run(return_state=True, wait_for=[work.states["gate"]]).result()
    return news[0]


def settle(work: Release, version: Version, verdict: dict[str, Any]) -> str:
    """Promote or not, as the verdict says; returns what happened, in a sentence.

    Raises:
        PromotionRefused: the verdict says promote, but not for this package against this champion.
    """
    champion = work.registry.alias("champion")
    if verdict["outcome"] != "promote":
        word = {"hold": "held back", "reject": "rejected"}[verdict["outcome"]]
        return f"version {version.number} was {word}"
    if champion is not None and champion.number != version.number and champion.manifest == version.manifest:
        return f"version {version.number} passes; its package is champion already, as version {champion.number}"
    if version.tags.get("rolled_back") and "champion" not in version.aliases:
        return f"version {version.number} passes, but a person rolled it back; only an override makes it champion again"
    before = work.registry.promote(version)
    if before is None or before.number == version.number:
        return f"version {version.number} is champion"
    return f"version {version.number} is champion; version {before.number} is previous"


def nothing_to_do(work: Release, version: Version, memory: MemoryWatch) -> Outcome:
    """The answer to a run without news."""
    note = f"nothing to do: version {version.number}, verdict {version.tags.get('verdict')}"
    get_run_logger().info(note)
    return outcome_of(work, version, note, memory)


def outcome_of(work: Release, version: Version, note: str, memory: MemoryWatch) -> Outcome:
    """What the summary shows."""
    return Outcome(
        outcome=version.tags.get("verdict", ""),
        domain=work.domain,
        version=version.number,
        aliases=version.aliases,
        note=note,
        runs=tuple(work.runs),
        seconds=time.monotonic() - work.started,
        peak_memory=memory.peak,
    )


if __name__ == "__main__":  # Prefect reads its settings when it is imported, so the launcher comes before it
    os.execv(sys.executable, [sys.executable, "-m", "flows.run", *sys.argv[1:]])  # noqa: S606 - ourselves
