"""A further machine of a training joins what the first launches: python -m tasks.train.run.follow.

Where its workers fail, the first machine notices and launches again under a new id, which this one then joins.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tasks.core import processes
from tasks.core.errors import FlywheelError
from tasks.train.run.launch import LOOK_SECONDS, announcement, read_launch, start_workers, this_node

LEAVE_SECONDS = 30.0  # for workers to end by themselves after the first machine's have


def join(news: dict[str, Any]) -> None:
    """Run this machine's workers of one launch, until they end or the first machine has moved on."""
    name, module = news["launch"], news["module"]
    print(f"follow: joining {module} under {name}", flush=True)
    left = LEAVE_SECONDS
    child = start_workers(name, read_launch(name), module, news["arguments"])
    try:
        while child.poll() is None and left > 0:
            time.sleep(LOOK_SECONDS)
            now = announcement()
            if now is None:
                left -= LOOK_SECONDS
            elif now["id"] != news["id"]:
                break
    finally:
        status = processes.stop(child)
    print(f"follow: left {module} (status {status})", flush=True)


def main() -> None:
    """Follow for ever."""
    joined = None
    try:
        node = this_node()
        if node is None or node.rank == 0:
            sys.exit("follow: it is for machines with PET_NODE_RANK 1 and higher; the first one runs the stages")
        while True:
            news = announcement()
            if news is not None and news["id"] != joined:
                joined = news["id"]
                join(news)
            time.sleep(LOOK_SECONDS)
    except FlywheelError as error:
        sys.exit(f"follow: {error}")


if __name__ == "__main__":
    main()
