"""How every stage starts and ends: offline, one line of what it does and did, and errors a person can act on."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable

from tasks.core import layout
from tasks.core.errors import FlywheelError


def run_stage(name: str, stage: Callable[[], str]) -> None:
    """Run a stage as the process's main program: `stage` returns what it did, in a sentence.

    An error meant for a person ends the process with status 1 and its message; any other shows its traceback.
    """
    os.environ.update(layout.OFFLINE)
    hush()
    try:
        summary = stage()
    except FlywheelError as error:
        sys.exit(f"{name}: {error}")
    print(f"{name}: {summary}", flush=True)


def hush() -> None:
    """Keep the notices of third-party libraries out of the output. Call it before they are imported.

    bitsandbytes warns of a kernel of the hub that it misses: nothing here needs it, models in four bits are trained on
    GPUs only. Errors are still raised or logged.
    """
    logging.disable(logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)
