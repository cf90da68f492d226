"""Start training processes through `accelerate launch`, and end all of them when anything ends.

Several machines: through DeepSpeed's launcher (a hostfile), which the far side is left to; or started by something
else, as Kubernetes does. Then each knows its place from torchrun's variables (PET_*): rank 0 runs the stages, the rest
run tasks/train/run/follow.py, which reads .flywheel/launch.json. Limits: all share the repository's file system.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tasks.core import layout, processes
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.core.hardware import ask_gpus

CONFIGS = Path("infra/accelerate")
ANNOUNCEMENT = layout.HOME / "launch.json"
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|DATABASE_URL", re.IGNORECASE)
GRACE_SECONDS = 5.0
LOOK_SECONDS = 1.0
# Matrix kernels that oneDNN keeps, one for each shape. Batches have hundreds of lengths, so that its own limit of 1024
# holds a gigabyte a process of kernels that are never met again; a step needs some dozens.
ONEDNN_KERNELS = "64"


class LaunchError(FlywheelError):
    """The training processes ended with an error, or could not be started."""


class NodesUnknown(FlywheelError):
    """The environment does not say which of the machines this is."""


class Node(NamedTuple):
    """This machine's place among all."""

    nodes: int
    rank: int
    address: str  # of the machine with rank 0
    port: int
    processes: int | None  # of each machine; None: as the launch file says


def this_node() -> Node | None:
    """The place that the environment gives this machine; None where it gives none.

    Raises NodesUnknown: it says how many there are, and not all of the rest.
    """
    found = os.environ
    if "PET_NNODES" not in found:
        return None
    try:
        each = int(found["PET_NPROC_PER_NODE"]) if found.get("PET_NPROC_PER_NODE") else None
        place = int(found["PET_NNODES"]), int(found["PET_NODE_RANK"]), found["PET_MASTER_ADDR"]
        node = Node(*place, int(found["PET_MASTER_PORT"]), each)
    except (KeyError, ValueError) as error:
        raise NodesUnknown(
            f"PET_NNODES is set, but {error} of PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT is missing or wrong"
        ) from None
    if not 0 <= node.rank < node.nodes:
        raise NodesUnknown(f"PET_NODE_RANK is {node.rank} of {node.nodes} machines; they count from 0")
    return node


def placed(settings: dict[str, Any]) -> bool:
    """Whether a launch takes its machines from the environment."""
    launcher = (settings.get("deepspeed_config") or {}).get("deepspeed_multinode_launcher")
    return bool(launcher == "standard")


def with_nodes(settings: dict[str, Any]) -> dict[str, Any]:
    """A launch's settings with the number of machines and processes that the environment gives."""
    node = this_node() if placed(settings) else None
    if node is None:
        return settings
    each = node.processes or settings["num_processes"] // settings["num_machines"]
    return {**settings, "num_machines": node.nodes, "num_processes": each * node.nodes}


def with_gpus(settings: dict[str, Any]) -> dict[str, Any]:
    """One machine's launch with no more processes than it has GPUs; where none is seen, as the file says."""
    found = 0 if settings.get("use_cpu") or settings.get("num_machines", 1) > 1 else len(ask_gpus("index"))
    return {**settings, "num_processes": min(settings["num_processes"], found or settings["num_processes"])}


def node_flags(settings: dict[str, Any]) -> list[str]:
    """What `accelerate launch` has to be told besides its file: this machine's processes, or its place among others.

    Raises NodesUnknown: the launch takes its machines from the environment, and there are none in it.
    """
    if not placed(settings):
        return ["--num_processes", str(settings["num_processes"])] if settings.get("num_machines", 1) == 1 else []
    node = this_node()
    if node is None:
        raise NodesUnknown("this launch needs PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT")
    return [
        *("--num_machines", str(node.nodes), "--num_processes", str(settings["num_processes"])),
        *("--machine_rank", str(node.rank), "--main_process_ip", node.address, "--main_process_port", str(node.port)),
    ]


@contextmanager
def announced(settings: dict[str, Any], name: str, module: str, arguments: list[str]) -> Iterator[None]:
    """Tell the other machines what to join while the block runs."""
    if not placed(settings):
        yield
        return
    write_json(ANNOUNCEMENT, {"id": uuid.uuid4().hex, "launch": name, "module": module, "arguments": arguments})
    try:
        yield
    finally:
        ANNOUNCEMENT.unlink(missing_ok=True)


def announcement() -> dict[str, Any] | None:
    """What the first machine is launching now."""
    try:
        found: dict[str, Any] = json.loads(ANNOUNCEMENT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def read_launch(name: str) -> dict[str, Any]:
    """The accelerate configuration infra/accelerate/<name>.yaml.

    Raises LaunchError: there is none of that name; those that exist are listed.
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in CONFIGS.glob("*.yaml")))
        raise LaunchError(f"launch: {path} does not exist; there are {known or 'none'}")
    return with_nodes(with_gpus(yaml.safe_load(path.read_text(encoding="utf-8"))))


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
