"""The worker of the platform: clears away runs that died with the last worker, then becomes Prefect's own.

`python -m flows.worker` is what supervisord keeps running. PREFECT_API_URL and FLYWHEEL_ROOT must be set; the working
directory is the repository. Its name is fixed, so that Prefect sees one worker however often it is started again.
"""

from __future__ import annotations

import os
import sys

from flows.dead_runs import POOL

WORKER = "platform"


def main() -> None:
    """Sweep, then take the place of this process. An API that does not answer ends it; supervisord tries again."""
    from httpx import HTTPError

    from flows.dead_runs import sweep

    try:
        cleared = sweep(grace_seconds=0)
    except HTTPError as error:
        sys.exit(f"the Prefect API at {os.environ.get('PREFECT_API_URL')} does not answer: {error}")
    for line in cleared:
        print(line, flush=True)
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - ourselves


if __name__ == "__main__":
    main()
