"""Training on machines that something else has started, as Kubernetes does: who we are, and what the first one runs.

Each knows its place from torchrun's variables (PET_*). Rank 0 runs the stages; the others run
tasks/train/run/follow.py, which reads .flywheel/launch.json. Limits: all share the repository's file system.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json

ANNOUNCEMENT = layout.HOME / "launch.json"


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
        processes = int(found["PET_NPROC_PER_NODE"]) if found.get("PET_NPROC_PER_NODE") else None
        place = int(found["PET_NNODES"]), int(found["PET_NODE_RANK"]), found["PET_MASTER_ADDR"]
        node = Node(*place, int(found["PET_MASTER_PORT"]), processes)
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


def node_flags(settings: dict[str, Any]) -> list[str]:
    """What `accelerate launch` has to be told besides its file.

    Raises NodesUnknown: the launch takes its machines from the environment, and there are none in it.
    """
    if not placed(settings):
        return []
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
