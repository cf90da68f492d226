"""How a benchmark shows what it measured, and how it takes the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from rich.console import Console
from rich.table import Table

T = TypeVar("T")


def show(title: str, columns: str, rows: Iterable[Iterable[object]]) -> None:
    """Print a table; the columns' names stand in one text with bars between."""
    table = Table(title=title)
    for name in columns.split(" | "):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=150).print(table)


def timed(work: Callable[[], T], times: int = 1) -> tuple[float, T]:
    """Wall time in seconds of the quickest of some calls, and what the last returned."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result
