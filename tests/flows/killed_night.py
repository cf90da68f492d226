"""Nights that kill themselves with SIGKILL: `python -m tests.flows.killed_night`, told when by lines on its input.

A line is STEP before|after; STEP is a step of the night, a stage of the release, or `register` or `close`. Nothing else
of the flow is changed. Each night is a process of its own, forked from this one, which has made the imports: they take
8 s. When a night has ended, however it did, the line `ended STATUS` follows what it printed.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import flows.nightly
import flows.registration
import flows.release
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
        place, attribute, wanted = flows.nightly, "close_night", lambda *_, **__: True
    elif name == "register":
        place, attribute, wanted = flows.registration, "settle", lambda *_, **__: True
    elif name in ("claim", "snapshot", "pointer"):
        place, attribute, wanted = flows.nightly, "step", lambda step, work: step == name
    else:
        place, attribute, wanted = flows.release, "run_one", lambda work, stage, *_: stage.name == name
    with mock.patch.object(place, attribute, killed(getattr(place, attribute), wanted, moment)):
        return run.main(["--nightly"])


def serve() -> None:
    """Run a night for each line; a process with threads must not be forked, so nothing is opened here."""
    for name in ("dvc.repo", "mlflow"):
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()
    for line in sys.stdin:
        night = os.fork()
        if night == 0:
            status = main(*line.split())
            sys.stdout.flush()
            os._exit(status)
        print("\nended", os.waitstatus_to_exitcode(os.waitpid(night, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
