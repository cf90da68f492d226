"""`python -m serving`: the gateway in the foreground, one process, HTTPS where params.serving.tls_* say so."""

from __future__ import annotations

import os
import sys

from tasks.core import layout
from tasks.core.errors import FlywheelError

# Threads that talk to the database hold the interpreter for short turns only, or streams wait for them.
SWITCH_SECONDS = 0.0005


def main() -> None:
    """Serve until told to stop; a mistake in the settings ends with a message instead."""
    os.environ.update(layout.OFFLINE)
    try:
        from serving.settings import load_settings

        settings = load_settings()
        sys.setswitchinterval(SWITCH_SECONDS)
        from serving.server import serve

        serve(settings)
    except FlywheelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
