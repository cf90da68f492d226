"""Near duplicates: our index against comparing every pair, in one run, with how cost grows.

Run by `make bench`. The peer is the straightforward exact comparison of all pairs; both must find the same groups.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from tasks.curate.near import duplicate_groups, jaccard, shingles

THRESHOLD, SHINGLE = 0.8, 5


def texts(count: int) -> list[str]:
    """Sentences of 30 words; every tenth is an earlier one with two words changed."""
    generator = random.Random(7)
    words = ["".join(generator.choices("abcdefghijklmnop", k=generator.randint(3, 9))) for _ in range(4000)]
    made: list[str] = []
    for number in range(count):
        if number % 10 == 9:
            changed = made[generator.randrange(len(made))].split()
            changed[generator.randrange(30)] = generator.choice(words)
            made.append(" ".join(changed))
        else:
            made.append(" ".join(generator.choices(words, k=30)))
    return made


def all_pairs(rows: list[str]) -> list[int]:
    """The same groups by comparing every pair."""
    grams = [shingles(row, SHINGLE) for row in rows]
    group = list(range(len(rows)))
    for left in range(len(rows)):
        for right in range(left):
            if group[left] != group[right] and jaccard(grams[left], grams[right]) >= THRESHOLD:
                old, new = max(group[left], group[right]), min(group[left], group[right])
                group = [new if value == old else value for value in group]
    return group


def seconds(work: Callable[[], list[int]]) -> tuple[float, list[int]]:
    """Wall time of one call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Print the table."""
    table = Table(title="Near duplicates (30 words a text, one in ten a near duplicate)")
    for column in ("texts", "every pair, s", "index, s", "times faster", "same groups"):
        table.add_column(column, justify="right")
    for count in (250, 500, 1000):
        rows = texts(count)
        peer, expected = seconds(lambda rows=rows: all_pairs(rows))  # type: ignore[misc]
        ours, found = seconds(lambda rows=rows: duplicate_groups(rows, THRESHOLD, SHINGLE))  # type: ignore[misc]
        table.add_row(str(count), f"{peer:.2f}", f"{ours:.2f}", f"{peer / ours:.1f}", str(expected == found))
    Console().print(table)


if __name__ == "__main__":
    main()
