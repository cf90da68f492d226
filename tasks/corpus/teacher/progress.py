"""How far a teacher is, on stderr: a bar on a terminal, else a line every tenth part, so that a log says it too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield what to call after each of `total` replies."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            line = bar.add_task(title, total=total)
            yield lambda: bar.advance(line)
        return
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{title}: {done} of {total}", file=sys.stderr, flush=True)

    yield count
