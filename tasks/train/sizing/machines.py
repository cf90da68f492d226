"""The machines a training is sized for: the GPUs of infra/prices.yaml, and this one as it is.

Needs no torch: memory is read from the kernel (a container's limit counts), GPUs from nvidia-smi.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.settings import Above, Section, parse_settings
from tasks.train.run.precision import ask_gpus

PRICES = Path("infra/prices.yaml")
SHIPPED = Path(__file__).parents[3] / PRICES  # for a folder of links that holds no table of its own
CONTROL_GROUP = Path("/sys/fs/cgroup")
Amount = Annotated[float, Field(ge=0.0)]


class Gpu(Section):
    """One GPU for hire."""

    name: str
    memory_gib: Above
    bf16_tflops: Above
    power_watts: Above
    price_per_hour: Amount
    source: str


class Rates(Section):
    """Billions of operations a second by precision."""

    fp32: Above
    bf16: Above


class ThisMachine(Section):
    """What an hour of this machine costs, and what it draws."""

    name: str
    price_per_hour: Amount
    power_watts: Above
    gflops_per_process: Rates


class Prices(Section):
    """infra/prices.yaml."""

    currency: str
    electricity_per_kwh: Amount
    this_machine: ThisMachine
    gpu_utilisation: Annotated[float, Field(gt=0.0, le=1.0)]
    gpu_layer_milliseconds: Amount
    gpus: Annotated[list[Gpu], Field(min_length=1)]


def read_prices(path: Path = PRICES) -> Prices:
    """The table of machines.

    Raises:
        SettingsError: the file is missing or holds mistakes; all of them are listed.
    """
    return parse_settings(path if path.is_file() or path != PRICES else SHIPPED, Prices)


def free_memory() -> int:
    """Bytes of main memory that processes of ours can still get, within this container's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit, used, kinds = (
            (CONTROL_GROUP / f"memory.{name}").read_text(encoding="utf-8") for name in ("max", "current", "stat")
        )
        # The file cache counts as used but is given back on demand.
        cached = dict(line.split() for line in kinds.splitlines())["file"]
        free = min(free, int(limit) - int(used) + int(cached))
    return max(0, free)


def gpu_bytes(figure: str) -> list[int]:
    """Memory of each NVIDIA GPU that may be used here; none where there is none. `figure`: total or free."""
    return [int(size) << 20 for size in ask_gpus(f"memory.{figure}")]
