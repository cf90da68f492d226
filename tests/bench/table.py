"""How the benchmarks take the time, and the table that they end with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table

T = TypeVar("T")


def show(title: str, columns: str | Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print it; figures stand to the right of their column's first. Columns in one text have bars between."""
    table = Table(title=title)
    for number, column in enumerate(columns.split(" | ") if isinstance(columns, str) else columns):
        table.add_column(column, justify="right" if number else "left")
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
