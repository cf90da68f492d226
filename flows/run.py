"""`make run`: one release on this machine, or with --nightly one night, through a real Prefect server, with progress.

Starts the embedded server unless PREFECT_API_URL names one or there is nothing to do, and ends it again, on Ctrl-C too.
Prefect reads its settings when it is imported, so this module sets them first and imports it after.

Exit status: 0 a verdict was reached (promote, hold or reject) or there was nothing to do; 1 the release failed or was
blocked; 3 with --fail-unless-promoted, the version is not champion; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from flows.console import ReleaseOutcome, RunProgress, print_summary, reporting
from flows.idle import outcome_at_rest
from flows.server import EmbeddedServer, answers, prefect_environment
from flows.stages import StageRun
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.params import load_params
from tasks.core.processes import LOOPBACK
from tasks.core.words import clock

FAILED, NOT_PROMOTED, INTERRUPTED = 1, 3, 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line of a release."""
    parser = argparse.ArgumentParser(prog="python -m flows.release", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--reason", default="manual", help="kept with the run and the version")
    parser.add_argument("--dry-run", action="store_true", help="say which stages would run, and change nothing")
    parser.add_argument("--rejudge", action="store_true", help="run the gate again, without training")
    parser.add_argument("--workspace", metavar="DOMAIN", help="work in that domain's git worktree")
    parser.add_argument("--nightly", action="store_true", help="one night: what users said since the last one")
    parser.add_argument("--force", action="store_true", help="with --nightly: release even if little was said")
    parser.add_argument("--fail-unless-promoted", action="store_true", help="exit 3 if the verdict is not promote")
    return parser.parse_args(arguments)


def named_api(home: Path) -> str:
    """The Prefect API that the environment names, or that of `make up` where it runs here; else "".

    Two servers must not share .flywheel/prefect, hence the second.
    """
    if named := os.environ.get("PREFECT_API_URL"):
        return named
    if not (home / layout.PLATFORM_UP).exists():
        return ""
    api = f"http://{LOOPBACK}:{load_params(home / layout.PARAMS).platform.prefect_port}/api"
    return api if answers(f"{api}/health") else ""


@contextlib.contextmanager
def prefect_api(home: Path, named: str) -> Iterator[None]:
    """A Prefect API in the environment: the named one, or a server of our own."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if named:
        os.environ["PREFECT_API_URL"] = named
        yield
        return
    os.environ.update(prefect_environment(home))
    with EmbeddedServer(home) as server:
        os.environ["PREFECT_API_URL"] = server.api
        warm = threading.Thread(target=_prepare_ahead, args=(home,), daemon=True)
        warm.start()
        server.wait()
        warm.join()
        yield


def _prepare_ahead(home: Path) -> None:
    """Import what the flow needs and bring MLflow's database up while the server starts: it saves 10 s and more."""
    from tasks.registry.runs import connect

    connect(home).search_experiments(max_results=1)
    for name in ("dvc.repo", "flows.release"):
        importlib.import_module(name)


def send_all() -> None:
    """Wait until Prefect has sent its logs and events: without their server they would be retried for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)


def main(arguments: list[str] | None = None) -> int:
    """Run one release; returns the exit status."""
    options, console = parse(arguments), Console()
    home = layout.home()
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        return _run(options, console, home, started)
    except (KeyboardInterrupt, SystemExit):
        console.print("Interrupted: the stage was stopped, nothing was promoted. `make run` goes on from here.")
        return INTERRUPTED
    except FlywheelError as error:
        console.print(f"\n{error}", style="red", markup=False, highlight=False)
        return FAILED


def _run(options: argparse.Namespace, console: Console, home: Path, started: float) -> int:
    news, named = RunProgress(console), named_api(home)
    special = options.nightly or options.rejudge or options.dry_run or options.workspace
    if not special and not named and (found := outcome_at_rest(home)):
        outcome, stages = found
        for stage in stages:
            news.stage_ended(StageRun(stage.name, True, 0.0))
        return _ended(outcome, options, console, home, outcome.seconds)
    with reporting(news):
        news.say("Starting Prefect …")
        with prefect_api(home, named):
            try:
                state = _flow(options, news, time.monotonic() - started)
            finally:
                send_all()
    if not state.is_completed():
        return _failed(state, console)
    if options.nightly:
        console.print(f"\n{state.name}: {state.message}", markup=False, highlight=False)
    return _ended(news.outcome, options, console, home, time.monotonic() - started)


def _flow(options: argparse.Namespace, news: RunProgress, seconds: float) -> Any:
    """Run the flow that is asked for; returns its final state. `seconds` is what Prefect took to start."""
    from flows.nightly import nightly
    from flows.release import release

    what = "Night" if options.nightly else f"Release ({options.reason})"
    news.say(f"{what}, ready after {clock(seconds)}")
    if options.nightly:
        return nightly(workspace=options.workspace, force=options.force, return_state=True)
    return release(
        reason=options.reason,
        dry_run=options.dry_run,
        rejudge=options.rejudge,
        workspace=options.workspace,
        return_state=True,
    )


def _failed(state: Any, console: Console) -> int:
    """Say why in the words meant for a person; an error that is a defect of ours shows where it came from."""
    if state.is_cancelled():
        console.print(f"\nCancelled: {state.message}", style="yellow", markup=False, highlight=False)
        return INTERRUPTED
    error = state.result(raise_on_failure=False)
    if isinstance(error, FlywheelError):
        console.print(f"\n{error}", style="red", markup=False, highlight=False)
    else:
        lines = traceback.format_exception(error) if isinstance(error, BaseException) else [str(state.message)]
        console.print(f"\n{''.join(lines)}", style="red", markup=False, highlight=False)
    return FAILED


def _ended(
    outcome: ReleaseOutcome | None, options: argparse.Namespace, console: Console, home: Path, seconds: float
) -> int:
    """Print the summary; its total counts Prefect's start too."""
    if outcome is None:  # a dry run, or a night without a release
        return 0
    root = home / layout.WORKSPACES / options.workspace if options.workspace else home
    print_summary(console, replace(outcome, seconds=seconds), root)
    promoted = "champion" in outcome.aliases
    return NOT_PROMOTED if options.fail_unless_promoted and not promoted else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
