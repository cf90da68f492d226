"""How every stage starts and ends: offline, one line of what it does and did, and errors a person can act on."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json


def run_stage(name: str, stage: Callable[[], str]) -> None:
    """Run `stage`, which says what it did; an error meant for a person ends the process with status 1, no traceback."""
    os.environ.update(layout.OFFLINE)
    hush()
    try:
        summary = stage()
    except FlywheelError as error:
        sys.exit(f"{name}: {error}")
    print(f"{name}: {summary}", flush=True)


def hush() -> None:
    """Keep the notices of third-party libraries out of the output. Call it before they are imported.

    bitsandbytes warns of a kernel that nothing here needs: models in four bits are trained on GPUs only.
    """
    logging.disable(logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)


def write_metrics(stage: str, figures: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> None:
    """Write reports/metrics/<stage>.json, and reports/details/<stage>.json for a stage that has more to tell.

    Stages of one kind give their figures the same names, so that `dvc metrics show` is a table without holes.
    """
    write_json(layout.METRICS / f"{stage}.json", figures)
    if details is not None:
        write_json(layout.DETAILS / f"{stage}.json", details)
