"""k-center greedy against the straightforward numpy running minimum, in one run, with how cost grows.

Run by `make bench`; on one thread each. The peer is the loop that one writes first: one matrix-vector product over all
rows, a running maximum of similarities and an argmin for each pick. Vectors lie on the grid of neighbours.py, where
float32 is exact, so their picks have to be the same.
Vectors are of 384 dimensions: clusters of uneven density, like texts on some hundreds of subjects, and plain noise,
where nothing can be told from a row's neighbours. Memory is that of the features and what the process grew by at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.curate.select.k_center import k_center
from tasks.similarity.neighbours import on_grid

DIMENSIONS = 384
SIZES = ((12_500, 1_250), (25_000, 2_500), (50_000, 5_000))


def vectors(rows: int, clusters: int) -> Any:
    """Unit vectors on the grid, float32 of shape (rows, DIMENSIONS), in that many clusters; 0: none."""
    random = np.random.default_rng(7)
    made = random.standard_normal((rows, DIMENSIONS), dtype=np.float32)
    if clusters:
        made *= random.uniform(0.2, 1.2, (rows, 1)).astype(np.float32)
        made += random.standard_normal((clusters, DIMENSIONS), dtype=np.float32)[random.integers(0, clusters, rows)]
    return on_grid(made / np.linalg.norm(made, axis=1, keepdims=True))


def straightforward(features: Any, count: int, first: int) -> list[int]:
    """The peer: a pass over all rows a pick."""
    nearest, picks, row = np.full(len(features), -np.inf, features.dtype), [], first
    for _ in range(count):
        picks.append(row)
        np.maximum(nearest, features @ features[row], out=nearest)
        nearest[row] = np.inf
        row = int(nearest.argmin())
    return picks


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of one call in seconds, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def memory_mib(what: str) -> float:
    """The process's memory in MiB, of its own record: VmRSS now, VmHWM at its highest since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def forget_peak() -> None:
    """Let the highest memory be counted from now on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def main() -> None:
    """Print the table."""
    table = Table(title="k-center greedy, 384 dimensions, one thread")
    for column in (
        "vectors",
        "rows",
        "picks",
        "peer, s",
        "ours, s",
        "times faster",
        "same picks",
        "memory / features",
    ):
        table.add_column(column, justify="right")
    for name, share in (("clusters", 50), ("noise", 0)):
        for rows, count in SIZES:
            features = vectors(rows, rows // share if share else 0)
            forget_peak()
            before = memory_mib("VmRSS")
            ours, cover = timed(lambda features=features, count=count: k_center(features, count))  # type: ignore[misc]
            memory = 1 + (memory_mib("VmHWM") - before) / (features.nbytes / 2**20)  # 1: the features themselves
            first = int(cover.picks[0])
            peer, picks = timed(lambda f=features, k=count, first=first: straightforward(f, k, first))  # type: ignore[misc]
            same = f"{sum(a == b for a, b in zip(cover.picks, picks, strict=True)):,}"
            table.add_row(
                name,
                f"{rows:,}",
                f"{count:,}",
                f"{peer:.2f}",
                f"{ours:.2f}",
                f"{peer / ours:.1f}",
                same,
                f"{memory:.2f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
