"""Start training processes through `accelerate launch`, and end all of them when anything ends.

Several machines: through DeepSpeed's launcher (a hostfile), which the far side is left to, or tasks/train/run/nodes.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout, processes
from tasks.core.errors import FlywheelError
from tasks.train.run.nodes import announced, node_flags, with_nodes

CONFIGS = Path("infra/accelerate")
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

    Raises LaunchError: there is none of that name; those that exist are listed.
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in CONFIGS.glob("*.yaml")))
        raise LaunchError(f"launch: {path} does not exist; there are {known or 'none'}")
    return with_nodes(yaml.safe_load(path.read_text(encoding="utf-8")))


def environment(settings: dict[str, Any]) -> dict[str, str]:
    """The workers' environment. On CPU one thread a process: more are slower, and change the sums."""
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
    """The command that starts this machine's processes of a launch."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{name}.yaml")]
    return [*accelerate, *node_flags(settings), "-m", module, *arguments]


def start_workers(name: str, settings: dict[str, Any], module: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    """This machine's processes of a launch, under the supervisor; end them with `processes.stop`."""
    command = launch_command(name, settings, module, arguments)
    return processes.start(command, grace=GRACE_SECONDS, env=environment(settings))


def launch(name: str, module: str, arguments: list[str], look: Callable[[], str | None] = lambda: None) -> None:
    """Run `python -m module arguments` in every process of a launch configuration; returns when all are done.

    `look` is asked every second for a reason to end them. Raises LaunchError: one failed, or `look` had them ended.
    """
    settings = read_launch(name)
    with announced(settings, name, module, arguments):
        child = start_workers(name, settings, module, arguments)
        try:
            reason = watched(child, look)
        finally:
            status = processes.stop(child)
    if reason:
        raise LaunchError(f"{module} was ended: {reason}")
    if status:
        raise LaunchError(f"{module} failed under {name} (status {status}); its own words stand above")


def watched(child: subprocess.Popen[bytes], look: Callable[[], str | None]) -> str | None:
    """Wait for the child's end; or return early with what `look` says against waiting on."""
    while True:
        try:
            child.wait(timeout=LOOK_SECONDS)
            return None
        except subprocess.TimeoutExpired:
            if reason := look():
                return reason
