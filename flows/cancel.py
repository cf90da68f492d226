"""Cancelling a run from Prefect's page or API, also where no worker enforces it (`make run`).

A worker ends the flow's process by SIGTERM, and the stage's family ends with it. Here, for every way of running, the
API is asked every few seconds whether this run is being cancelled; if so the current stage is stopped.
"""

from __future__ import annotations

import contextvars
import subprocess
import threading
from typing import Any
from uuid import UUID

from flows.stages import ReleaseStopped

ASK_SECONDS = 3.0


class CancelWatch:
    """Watches one flow run while the block runs; an empty id watches nothing."""

    def __init__(self, flow_run_id: str) -> None:
        """`flow_run_id` as Prefect gives it."""
        self._id = flow_run_id
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled, self._done = threading.Event(), threading.Event()
        # In this context, so that the thread asks the same API as the flow.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._ask,), name="cancel", daemon=True)

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """The stage to stop if the run is cancelled."""
        self._process = process
        if self._cancelled.is_set():
            process.terminate()

    def check(self) -> None:
        """Raise ReleaseStopped once the run is cancelled."""
        if self._cancelled.is_set():
            raise ReleaseStopped("the run was cancelled; its stage was stopped and nothing was promoted")

    def _ask(self) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._done.wait(ASK_SECONDS):
                if _is_cancelled(client, self._id):
                    self._cancelled.set()
                    if self._process is not None:
                        self._process.terminate()
                    return

    def __enter__(self) -> CancelWatch:
        """Begin to ask."""
        if self._id:
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop asking."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)


def _is_cancelled(client: Any, flow_run_id: str) -> bool:
    """False too while the API does not answer: that alone is no reason to stop a long stage."""
    import httpx
    from prefect.exceptions import PrefectException

    try:
        state = client.read_flow_run(UUID(flow_run_id)).state
    except (httpx.HTTPError, PrefectException):
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
