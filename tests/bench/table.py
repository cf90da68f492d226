"""What the benchmarks share: their options, how they take the time, and the table that they end with, in Markdown."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from tasks.core import layout

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]


def options(about: str | None, **defaults: Any) -> argparse.Namespace:
    """The command line's options: of each default's type, False for a flag."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        kind: dict[str, Any] = {"action": "store_true"} if value is False else {"type": type(value), "default": value}
        parser.add_argument(f"--{name}", **kind)
    os.environ.update(layout.OFFLINE)
    return parser.parse_args()


def show(title: str, columns: str | Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print it; figures stand to the right of their column's first. Columns in one text have bars between."""
    table = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for number, column in enumerate(columns.split(" | ") if isinstance(columns, str) else columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=300).print(table)


def timed(work: Callable[[], T], times: int = 1) -> tuple[float, T]:
    """Wall time in seconds of the quickest of some calls, and what the last returned."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result
