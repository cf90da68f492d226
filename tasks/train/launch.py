"""Start several training processes through `accelerate launch`, and end all of them when anything ends.

Nothing may go on writing after the stage that started it: on SIGTERM, SIGINT or any exit of ours the launcher's
process group is killed; a kill -9 of ours kills the launcher, and the launcher's death kills every worker, both by
the kernel (PR_SET_PDEATHSIG), because the launcher gives each worker a session of its own.
Limits: Linux; on several machines the far side is left to DeepSpeed's own launcher.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from tasks import layout
from tasks.errors import FlywheelError

CONFIGS = Path("infra/accelerate")
LAUNCHER_PID = "FLYWHEEL_LAUNCHER_PID"
PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 5.0


class LaunchError(FlywheelError):
    """The training processes ended with an error, or could not be started."""


def read_launch(name: str) -> dict[str, Any]:
    """The accelerate configuration infra/accelerate/<name>.yaml.

    Raises:
        LaunchError: there is none of that name; those that exist are listed.
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in CONFIGS.glob("*.yaml")))
        raise LaunchError(f"sft.launch: {path} does not exist; there are {known or 'none'}")
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


def die_with(parent: int) -> None:
    """Let the kernel kill this process when `parent` (its process id) dies; ends at once if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def die_with_launcher() -> None:
    """For a worker: call it first, before the slow imports. Without a launcher it does nothing."""
    if LAUNCHER_PID in os.environ:
        die_with(int(os.environ[LAUNCHER_PID]))


def environment(settings: dict[str, Any]) -> dict[str, str]:
    """The workers' environment for one launch configuration.

    One thread a process on CPU: more of them on a shared machine are slower, and their number changes the sums.
    """
    cache = layout.CACHE.absolute()
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    extra = {
        "PATH": tools,  # ninja, for the operations that DeepSpeed compiles
        "TORCH_EXTENSIONS_DIR": str(cache / "torch_extensions"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
    }
    if settings.get("use_cpu"):
        extra |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        if settings.get("num_machines", 1) == 1:
            extra["GLOO_SOCKET_IFNAME"] = "lo"  # the host's name need not resolve, and nothing listens outside
    return layout.child_environment(**extra)


def launch(name: str, module: str, arguments: list[str]) -> None:
    """Run `python -m module arguments` in every process of a launch configuration; returns when all are done.

    Raises:
        LaunchError: one of them failed; their own words stand above, on stderr.
    """
    settings = read_launch(name)
    command = [sys.executable, "-m", "tasks.train.launch", str(os.getpid()), str(CONFIGS / f"{name}.yaml"), module]
    with _owned([*command, *arguments], environment(settings)) as child:
        status = child.wait()
    if status:
        raise LaunchError(f"{module} failed under {name} (status {status}); its own words stand above")


@contextmanager
def _owned(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own that does not outlive this block, whatever ends it."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    child = subprocess.Popen(command, env=env, start_new_session=True)
    try:
        yield child
    finally:
        end_group(child)
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Ask the child's whole process group to end, and kill what is left of it after a few seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def main() -> None:
    """In the child: tie our life to the stage's, then become `accelerate launch`."""
    parent, config, module, *arguments = sys.argv[1:]
    die_with(int(parent))
    os.environ[LAUNCHER_PID] = str(os.getpid())
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "-m", module, *arguments]
    os.execv(command[0], command)  # noqa: S606 - the kernel's tie survives exec; no shell is involved


if __name__ == "__main__":
    main()
