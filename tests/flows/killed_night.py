"""A night that kills itself with SIGKILL: `python -m tests.flows.killed_night STEP before|after`.

STEP is a step of the night, a stage of the release, or `register` or `close`. Nothing else of the flow is changed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import flows.nightly
import flows.registration
import flows.release
import tasks.store.nights
from flows import run


def killed(function: Callable[..., Any], wanted: Callable[..., bool], moment: str) -> Callable[..., Any]:
    """The function, with kill -9 before or after the call that is wanted."""

    def call(*arguments: Any, **named: Any) -> Any:
        hit = wanted(*arguments, **named)
        if hit and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def main(name: str, moment: str) -> int:
    """Run the night, and die at the step."""
    if name == "close":
        place, attribute, wanted = tasks.store.nights, "close_night", lambda *_, **__: True
    elif name == "register":
        place, attribute, wanted = flows.registration, "settle", lambda *_, **__: True
    elif name in ("claim", "snapshot", "pointer"):
        place, attribute, wanted = flows.nightly, "step", lambda step, work: step == name
    else:
        place, attribute, wanted = flows.release, "run_one", lambda work, stage, *_: stage.name == name
    with mock.patch.object(place, attribute, killed(getattr(place, attribute), wanted, moment)):
        return run.main(["--nightly"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
