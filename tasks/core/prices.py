"""infra/prices.yaml: GPUs for hire, and what this machine costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.settings import Above, Section, parse_settings

PRICES = Path("infra/prices.yaml")
SHIPPED = Path(__file__).parents[2] / PRICES  # for a folder of links that holds no table of its own
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
    """What an hour of this machine costs, what it draws, and how fast a process computes in each precision."""

    name: str
    price_per_hour: Amount
    power_watts: Above
    gflops_per_process: Rates


class Prices(Section):
    """The whole table; its own head says what the fields mean."""

    currency: str
    electricity_per_kwh: Amount
    this_machine: ThisMachine
    gpu_utilisation: Annotated[float, Field(gt=0.0, le=1.0)]
    gpu_layer_milliseconds: Amount
    gpus: Annotated[list[Gpu], Field(min_length=1)]


def read_prices(path: Path = PRICES) -> Prices:
    """The table of machines. Raises SettingsError: it is missing or holds mistakes; all of them are listed."""
    return parse_settings(path if path.is_file() or path != PRICES else SHIPPED, Prices)
