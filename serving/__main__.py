"""`python -m serving`: the gateway in the foreground, one process, HTTPS where params.serving.tls_* say so."""

from __future__ import annotations

import os
import sys

import uvicorn

from serving.app import create_app
from serving.monitoring import log_to_stderr
from serving.server import configuration
from serving.settings import load_settings
from tasks.core import layout
from tasks.core.errors import FlywheelError

# Threads that talk to the database hold the interpreter for short turns only, or streams wait for them.
SWITCH_SECONDS = 0.0005


def main() -> None:
    """Serve until told to stop, requests in flight to their end; a mistake in the settings ends with a message."""
    os.environ.update(layout.OFFLINE)
    try:
        settings = load_settings()
        sys.setswitchinterval(SWITCH_SECONDS)
        log_to_stderr()
        uvicorn.Server(configuration(settings, create_app(settings))).run()
    except FlywheelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
