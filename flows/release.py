"""The release flow: DVC's stages, one Prefect task each, then the version, promoted if its verdict says so.

It needs a Prefect API (flows/run.py starts one), git, and the project as working directory or in FLYWHEEL_ROOT. Safe to
run again after any kill: stages resume from DVC, the MLflow run of the same inputs is taken up again, a version is
known by its package and verdict, and its `released` tag comes last.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Cancelled, Completed, State

from flows import stages as dvc
from flows.console import ReleaseOutcome, reporter
from flows.idle import judged_already, note_of
from flows.live import live
from flows.registration import (
    STATE_NAMES,
    STEP,
    Release,
    describe,
    outcome_of,
    publish_reports,
    register,
    trusted_verdict,
)
from flows.stages import ReleaseStopped, keep_duration, read_durations
from flows.workspace import Workspace, one_at_a_time, open_workspace
from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import verify_manifest
from tasks.core.params import load_params
from tasks.core.pointers import read_pointer
from tasks.core.words import clock
from tasks.evaluate.gate.scores import ids_of
from tasks.evaluate.gate.sizes import too_small
from tasks.evaluate.scoring.questions import read_items
from tasks.registry.inputs import inputs_digest
from tasks.registry.pointer import point, refresh_pointer
from tasks.registry.runs import close_run, open_run, tracking_uri

if TYPE_CHECKING:
    from dvc.repo import Repo


ASK_SECONDS = 3.0


class RejudgeRefused(FlywheelError):
    """`rejudge` was asked for, but there is no finished package to judge."""


class CancelWatch:
    """Watches whether one flow run is being cancelled on Prefect's page or API; an empty id watches nothing.

    A worker ends the flow's process by SIGTERM, and the stage's family ends with it. Where none enforces it
    (`make run`), the API is asked every few seconds, and the current stage is stopped.
    """

    def __init__(self, flow_run_id: str) -> None:
        """`flow_run_id` as Prefect gives it."""
        self._id = flow_run_id
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled, self._done = threading.Event(), threading.Event()
        # In this context, so that the thread asks the same API as the flow.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._ask,), name="cancel", daemon=True)

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """The stage to stop if the run is cancelled."""
        self._process = process
        if self._cancelled.is_set():
            process.terminate()

    def check(self) -> None:
        """Raise ReleaseStopped once the run is cancelled."""
        if self._cancelled.is_set():
            raise ReleaseStopped("the run was cancelled; its stage was stopped and nothing was promoted")

    def _ask(self) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._done.wait(ASK_SECONDS):
                if _is_cancelled(client, self._id):
                    self._cancelled.set()
                    if self._process is not None:
                        self._process.terminate()
                    return

    def __enter__(self) -> CancelWatch:
        """Begin to ask."""
        if self._id:
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop asking."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)


def _is_cancelled(client: Any, flow_run_id: str) -> bool:
    """False too while the API does not answer: that alone is no reason to stop a long stage."""
    import httpx
    from prefect.exceptions import PrefectException

    try:
        state = client.read_flow_run(UUID(flow_run_id)).state
    except (httpx.HTTPError, PrefectException):
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


@flow(name="release", flow_run_name="release-{reason}", log_prints=False, retries=0, persist_result=False)
def release(
    reason: str = "manual",
    dry_run: bool = False,
    rejudge: bool = False,
    workspace: str | None = None,
    ask: bool = False,
    night: int | None = None,
) -> State:
    """Train, judge and register one version of a domain's model; promote it if its verdict says so.

    Args:
        reason: why this run was started; kept with the MLflow run and the version.
        dry_run: say which stages would run, and change nothing.
        rejudge: force the gate again over the package that is there, without training.
        workspace: a domain, to work in its own git worktree; None for the checkout itself.
        ask: a version that passes waits for `flywheel approve` instead of being promoted.
        night: the number of the night that asks: only such a release may be judged as a night (docs/evaluation.md).

    Returns:
        A Completed state named Promoted, Held, Rejected, Waiting, NothingToDo or Planned; or Cancelled.
    """
    place = open_workspace(layout.home(), workspace)
    os.environ.update(layout.OFFLINE)
    with contextlib.chdir(place.root), one_at_a_time(place.root, reporter.get().say), dvc.open_repo(place.root) as repo:
        try:
            with prepare(place, repo, reason, workspace, ask, night) as work:
                if dry_run:
                    return plan(work)
                outcome = perform(work, rejudge)
        except dvc.ReleaseStopped as stopped:
            return Cancelled(message=str(stopped))
    reporter.get().finished(outcome)
    return Completed(name=state_name(outcome), message=outcome.note)


def state_name(outcome: ReleaseOutcome) -> str:
    """How Prefect's page names the end of a release."""
    if outcome.note.startswith("nothing to do"):
        return "NothingToDo"
    waits = outcome.outcome == "promote" and "champion" not in outcome.aliases
    return "Waiting" if waits else STATE_NAMES[outcome.outcome]


@contextlib.contextmanager
def prepare(
    place: Workspace, repo: Repo, reason: str, workspace: str | None, ask: bool, night: int | None
) -> Iterator[Release]:
    """Check the settings, read the graph and connect registry and store.

    Raises:
        SettingsError: params.yaml or the domain is wrong.
        FlywheelError: the workspace is another domain's.
    """
    started = time.monotonic()
    with live(place.home, place.root) as (params, registry, store):
        domain = params.domain
        load_domain(domain)
        if workspace not in (None, domain):
            raise FlywheelError(f"workspace {workspace!r} holds params.yaml of domain {domain!r}; they must agree")
        if dvc.fix_rwlock(repo):
            get_run_logger().warning("DVC's rwlock file was torn by a killed command; removed it")
        yield Release(
            place=place,
            domain=domain,
            registry=registry,
            store=store,
            repo=repo,
            stages=dvc.read_stages(repo),
            inputs=inputs_digest(domain),
            reason=reason,
            flow_run_id=str(current_flow_run.id or ""),
            started=started,
            ask=ask,
            night=night,
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


def run_up_to(place: Workspace, last: str, reason: str) -> None:
    """Run the stages up to `last`, as the release that follows would: it finds them done. Inside a flow run.

    Raises:
        StageFailed: a stage ended with an error.
        ReleaseStopped: the run was cancelled.
    """
    with (
        one_at_a_time(place.root, reporter.get().say),
        dvc.open_repo(place.root) as repo,
        prepare(place, repo, reason, None, False, None) as work,
    ):
        wanted = dvc.with_upstream(work.stages, last)
        run_stages(replace(work, stages=[stage for stage in work.stages if stage.name in wanted]), rejudge=False)


def perform(work: Release, rejudge: bool) -> ReleaseOutcome:
    """Run what is not up to date, then register; or find that there is nothing to do."""
    changed = dvc.changed_stages(work.repo, work.stages)
    if not rejudge and (known := judged_already(work.registry, work.inputs, changed)):
        run_stages(work, rejudge=False)
        get_run_logger().info(note_of(known))
        return outcome_of(work, known, note_of(known))
    if rejudge:
        require_package(work, changed)
    if rejudge or work.registry.of_inputs(work.inputs) is None:
        point_at_champion(work, changed)
    return carry_out(work, rejudge)


def carry_out(work: Release, rejudge: bool) -> ReleaseOutcome:
    """The stages and what follows them, inside one MLflow run, which is closed whatever happens."""
    client = work.registry.client
    work.mlflow_run = open_run(client, work.place.home, work.domain, work.inputs, work.reason)
    try:
        run_stages(work, rejudge)
        verdict = trusted_verdict(work)
        tags = describe(work, verdict)
        publish_reports(work, verdict, tags)
        outcome = register(work, verdict, tags)
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
    champion = work.registry.alias("champion")
    finished = not dvc.with_upstream(work.stages, "package").intersection(changed)
    if champion is not None and finished and verify_manifest(layout.PACKAGE) == champion.manifest:
        point(read_pointer(work.place.root).model_copy(update={"night": work.night}), work.place.root)
        return
    pointer = refresh_pointer(work.registry, work.place.root, work.night)
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
            if stage.name == "ingest":
                say_too_small()


def say_too_small() -> None:
    """Say by which evaluation sets every candidate is held, before anything is trained."""
    for line in too_small(ids_of(read_items()), load_params().gate):
        get_run_logger().warning(line)
        reporter.get().say(line)


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
    dvc.refuse_damaged(work.repo, stage.name)
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
    return {
        "MLFLOW_TRACKING_URI": tracking_uri(work.place.home),
        "MLFLOW_EXPERIMENT_NAME": work.domain,
        **({"MLFLOW_RUN_ID": work.mlflow_run} if work.mlflow_run else {}),
    }


if __name__ == "__main__":  # Prefect reads its settings when it is imported, so the launcher comes before it
    os.execv(sys.executable, [sys.executable, "-m", "flows.run", *sys.argv[1:]])  # noqa: S606 - ourselves
