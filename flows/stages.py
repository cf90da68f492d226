"""DVC's graph, read from DVC itself, and one stage of it run as a child process.

No edge and no order is written here: both come from DVC's own planner, so that `dvc repro` and the flow do the same
things in the same order and leave the same dvc.lock. DVC's library is used to read and to ask "is it up to date?"
(50 ms a stage); the stage itself runs as `dvc repro -s STAGE` in a process of its own, under tasks/core/supervise.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import MANIFEST, ManifestError, verify_manifest, write_json
from tasks.core.processes import start, stop

if TYPE_CHECKING:
    from dvc.repo import Repo

GRACE_SECONDS = 10.0
PATIENCE_SECONDS = 3600.0  # with another DVC command on the same files
# Seconds that each stage took before: no duration may enter a stage's output.
DURATIONS = layout.HOME / "durations.json"
LOCKED = re.compile(r"Unable to acquire lock|is being blocked by")
RUNNING = "Running stage '"
CHATTER = re.compile(
    r"^(To (track the changes with git|enable auto staging), run:|\t(git add|dvc config)|Use `dvc push`)"
)


class StageFailed(FlywheelError):
    """A stage ended with an error; the message says which, how, and where its output is."""


class ReleaseStopped(FlywheelError):
    """The run was cancelled."""


@dataclass(frozen=True)
class Stage:
    """One node of DVC's graph: its address and the stages it waits for."""

    name: str
    upstream: tuple[str, ...]


@dataclass(frozen=True)
class StageRun:
    """What happened to one stage; `seconds` is wall time."""

    name: str
    cached: bool
    seconds: float


@contextlib.contextmanager
def open_repo(root: Path) -> Iterator[Repo]:
    """DVC's view of the project, quiet, waiting for its lock instead of failing on it.

    The working directory is `root` meanwhile: DVC's library reads targets and writes addresses relative to it.
    """
    os.environ.update({key: value for key, value in layout.OFFLINE.items() if key.startswith("DVC")})
    from dvc.repo import Repo

    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.chdir(root), Repo(".", _wait_for_lock=True) as repo:
        yield repo


def read_stages(repo: Repo) -> list[Stage]:
    """Every stage that `dvc repro` would visit, in its order."""
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    graph = get_active_graph(repo.index.graph)
    order = plan_repro(graph, collect_stages(repo, ["dvc.yaml"]))
    return [Stage(node.addressing, tuple(up.addressing for up in graph.successors(node))) for node in order]


def output_paths(repo: Repo) -> list[str]:
    """Every path the stages write, relative to the project's root."""
    root = Path(repo.root_dir)
    return [Path(out.fs_path).relative_to(root).as_posix() for out in repo.index.outs if out.is_in_repo]


def is_current(repo: Repo, name: str) -> bool:
    """Whether `dvc repro -s NAME` would find nothing to do: the same question, asked of the same code."""
    from dvc.exceptions import DvcException

    try:
        return not repo.reproduce(name, single_item=True, dry=True)
    except (DvcException, OSError):  # what it depends on is not there yet
        return False


def changed_stages(repo: Repo, stages: Iterable[Stage]) -> list[str]:
    """The stages that are not up to date as things stand, and every stage that waits for one of them."""
    changed: list[str] = []
    for stage in stages:
        if any(name in changed for name in stage.upstream) or not is_current(repo, stage.name):
            changed.append(stage.name)
    return changed


def with_upstream(stages: list[Stage], name: str) -> set[str]:
    """`name` and everything it waits for."""
    waits = {stage.name: stage.upstream for stage in stages}
    wanted, queue = set(), [name]
    while queue:
        current = queue.pop()
        if current not in wanted:
            wanted.add(current)
            queue.extend(waits.get(current, ()))
    return wanted


def refuse_damaged(repo: Repo, name: str) -> None:
    """Check every folder with a manifest that a stage reads: DVC takes what its cache holds for what it put there.

    Raises:
        StageFailed: a folder is not what its manifest says.
    """
    for read in [one for stage in repo.stage.collect(name) for one in stage.deps]:
        folder = Path(str(read.fs_path))
        try:
            if (folder / MANIFEST).is_file():
                verify_manifest(folder)
        except ManifestError as error:
            raise StageFailed(
                f"stage {name} was not run: {error}. Remove that folder, and let DVC look at its cache again: "
                "`chmod -R u+w .dvc/cache`, then `make run`"
            ) from None


def fix_rwlock(repo: Repo) -> bool:
    """Remove DVC's rwlock file if a kill left it torn (DVC rewrites it in place and then refuses to run)."""
    path = Path(repo.tmp_dir or "") / "rwlock"
    with contextlib.suppress(FileNotFoundError):
        try:
            json.loads(path.read_text())
        except ValueError:
            path.unlink()
            return True
    return False


def split_lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    r"""Split a live byte stream at \n (whole line) and \r (a progress bar being redrawn)."""
    pending = b""
    while block := os.read(stream.fileno(), 65536):
        *complete, pending = re.split(rb"(?<=[\r\n])", (pending + block).replace(b"\r\n", b"\n"))
        for part in complete:
            text = part[:-1].decode("utf-8", errors="replace").rstrip()
            if text:
                yield text, part.endswith(b"\n")
    if pending.strip():
        yield pending.decode("utf-8", errors="replace").rstrip(), True


def run_stage(
    root: Path,
    name: str,
    environment: dict[str, str],
    on_line: Callable[[str, bool], None],
    *,
    force: bool = False,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> StageRun:
    """Run one stage, giving `on_line` its output as it comes; `environment` is added to the offline child environment.

    Where another DVC command holds the same files, wait for it.

    Raises:
        StageFailed: the stage ended with an error; the message carries its last lines.
    """
    started = time.monotonic()
    while True:
        status, output, ran = _attempt(root, name, environment, on_line, force, on_start)
        if status == 0:
            return StageRun(name, not ran, time.monotonic() - started)
        busy = any(LOCKED.search(line) for line in output)
        if not busy or time.monotonic() - started > PATIENCE_SECONDS:
            raise StageFailed(_failure(name, status, output))
        on_line("another DVC command is at work on these files: waiting for it to end", True)
        time.sleep(3.0)


def _attempt(
    root: Path,
    name: str,
    environment: dict[str, str],
    on_line: Callable[[str, bool], None],
    force: bool,
    on_start: Callable[[subprocess.Popen[bytes]], None],
) -> tuple[int, list[str], bool]:
    """One try: the exit status, what was said (the last 400 lines), and whether DVC ran the command at all."""
    output: list[str] = []
    ran = False
    repro = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "-s", *(["-f"] if force else []), name]
    env = layout.child_environment(**{"PYTHONUNBUFFERED": "1", **environment})
    process = start(repro, grace=GRACE_SECONDS, cwd=root, env=env, out=subprocess.PIPE)
    try:
        on_start(process)
        for text, whole in split_lines(process.stdout) if process.stdout else ():
            if not CHATTER.match(text):
                on_line(text, whole)
            ran = ran or text.startswith(RUNNING)
            if whole:
                output = [*output[-399:], text]
        return process.wait(), output, ran
    finally:
        stop(process)


def _failure(name: str, status: int, output: list[str]) -> str:
    noise = ("ERROR: failed to reproduce", "> ", "Running stage")
    telling = [line for line in output if not line.startswith(noise)]
    tail = "\n".join(f"    {line}" for line in telling[-12:])
    return f"stage {name} failed (exit {status}); nothing was promoted. Its last lines:\n{tail}"


def read_durations(root: Path) -> dict[str, float]:
    """Stage → seconds its last real run took; empty where nothing is known."""
    with contextlib.suppress(OSError, ValueError):
        return {str(name): float(seconds) for name, seconds in json.loads((root / DURATIONS).read_text()).items()}
    return {}


def keep_duration(root: Path, name: str, seconds: float) -> None:
    """Remember how long a stage took."""
    write_json(root / DURATIONS, {**read_durations(root), name: round(seconds, 1)})


def seconds_left(waiting: Iterable[str], current: str, elapsed: float, known: dict[str, float]) -> float | None:
    """Seconds until the last of `waiting` and `current` should be done; None where a duration is not known."""
    names = list(waiting)
    if any(name not in known for name in [*names, current]):
        return None
    return max(0.0, known[current] - elapsed) + sum(known[name] for name in names)
