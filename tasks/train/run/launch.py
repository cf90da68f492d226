"""Start several training processes through `accelerate launch`, and end all of them when anything ends.

Nothing may go on writing after the stage that started it: on SIGTERM, SIGINT or any exit of ours the launcher's
process group is killed; a kill -9 of ours kills the launcher, and the launcher's death kills every worker, both by
the kernel (PR_SET_PDEATHSIG), because the launcher gives each worker a session of its own.
One path for all: one process, several, several machines through DeepSpeed's own launcher (a hostfile) or through
tasks/train/run/nodes.py (Kubernetes). Limits: Linux; behind a hostfile the far side is left to DeepSpeed's launcher.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.train.run.nodes import announced, node_flags, with_nodes

CONFIGS = Path("infra/accelerate")
LAUNCHER_PID = "FLYWHEEL_LAUNCHER_PID"
PR_SET_PDEATHSIG = 1
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|DATABASE_URL", re.IGNORECASE)
GRACE_SECONDS = 5.0
LOOK_SECONDS = 1.0
# Matrix kernels that oneDNN keeps, one for each shape. Batches have hundreds of lengths, so that its own limit of 1024
# holds a gigabyte a process of kernels that are never met again; a step needs some dozens.
ONEDNN_KERNELS = "64"


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
        raise LaunchError(f"launch: {path} does not exist; there are {known or 'none'}")
    return with_nodes(yaml.safe_load(path.read_text(encoding="utf-8")))


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
        extra["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = ONEDNN_KERNELS
        if settings.get("num_machines", 1) == 1:
            extra["GLOO_SOCKET_IFNAME"] = "lo"  # the host's name need not resolve, and nothing listens outside
    found = layout.child_environment(**extra)
    if "deepspeed_hostfile" in (settings.get("deepspeed_config") or {}):
        # accelerate writes the environment into .deepspeed_env, in the clear, for the other machines.
        found = {name: value for name, value in found.items() if not SECRET.search(name)}
    return found


def launch_command(name: str, settings: dict[str, Any], module: str, arguments: list[str]) -> list[str]:
    """The command that starts this machine's processes of a launch; it dies with the process that calls this."""
    ours = [sys.executable, "-m", "tasks.train.run.launch", str(os.getpid())]
    return [*ours, "--config_file", str(CONFIGS / f"{name}.yaml"), *node_flags(settings), "-m", module, *arguments]


def _well() -> None:
    """Where nobody looks after the workers."""


def launch(name: str, module: str, arguments: list[str], look: Callable[[], str | None] = _well) -> None:
    """Run `python -m module arguments` in every process of a launch configuration; returns when all are done.

    `look` is asked every second; what it returns is the reason for which the processes are ended.

    Raises:
        LaunchError: one of them failed, and its own words stand above, on stderr; or `look` had them ended.
    """
    settings = read_launch(name)
    with (
        announced(settings, name, module, arguments),
        owned(launch_command(name, settings, module, arguments), environment(settings)) as child,
    ):
        reason = _watched(child, look)
    if reason:
        raise LaunchError(f"{module} was ended: {reason}")
    if child.returncode:
        raise LaunchError(f"{module} failed under {name} (status {child.returncode}); its own words stand above")


def _watched(child: subprocess.Popen[bytes], look: Callable[[], str | None]) -> str | None:
    """Wait for the child's end; or return early with what `look` says against waiting on."""
    while True:
        try:
            child.wait(timeout=LOOK_SECONDS)
            return None
        except subprocess.TimeoutExpired:
            if reason := look():
                return reason


@contextmanager
def owned(command: list[str], env: dict[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own that does not outlive this block, whatever ends it."""

    waiting: list[int] | None = []  # signals that came before there was a child to end

    def stop(number: int, frame: FrameType | None) -> None:
        if waiting is None:
            sys.exit(128 + number)
        waiting.append(number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    child: subprocess.Popen[bytes] | None = None
    try:
        child = subprocess.Popen(command, env=env, start_new_session=True)
        early, waiting = waiting, None
        if early:
            sys.exit(128 + early[0])
        yield child
    finally:
        if child is not None:
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
    parent, *arguments = sys.argv[1:]
    die_with(int(parent))
    if not _behind_hostfile(arguments):  # there each worker's parent is DeepSpeed's own launcher on its machine
        os.environ[LAUNCHER_PID] = str(os.getpid())
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments]
    os.execv(command[0], command)  # noqa: S606 - the kernel's tie survives exec; no shell is involved


def _behind_hostfile(arguments: list[str]) -> bool:
    """Whether `accelerate launch` will reach other machines by ssh.

    accelerate then writes the environment to a file for them: ours must hold no secret, see `environment`.
    """
    config = Path(arguments[arguments.index("--config_file") + 1])
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    return "deepspeed_hostfile" in (settings.get("deepspeed_config") or {})


if __name__ == "__main__":
    main()
