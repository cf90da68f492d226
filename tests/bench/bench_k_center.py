"""k-center greedy against the straightforward numpy running minimum, in one run, with how cost grows.

Run by `make bench`; on one thread each. The peer is the loop that one writes first: one matrix-vector product over all
rows, a running maximum of similarities and an argmin for each pick. Vectors lie on the grid of neighbours.py, where
float32 is exact, so their picks have to be the same.
Vectors are of 384 dimensions: clusters of uneven density, like texts on some hundreds of subjects, and plain noise,
where nothing can be told from a row's neighbours. Memory is that of the features and what the process grew by at most.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from tasks.curate.select.k_center import k_center
from tasks.similarity.neighbours import on_grid
from tests.bench.table import show, timed

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


def memory_mib(what: str) -> float:
    """The process's memory in MiB, of its own record: VmRSS now, VmHWM at its highest since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def forget_peak() -> None:
    """Let the highest memory be counted from now on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def row_of(name: str, share: int, rows: int, count: int) -> tuple[str, ...]:
    """One row of the table."""
    features = vectors(rows, rows // share if share else 0)
    forget_peak()
    before = memory_mib("VmRSS")
    ours, cover = timed(lambda: k_center(features, count))
    memory = 1 + (memory_mib("VmHWM") - before) / (features.nbytes / 2**20)  # 1: the features themselves
    peer, picks = timed(lambda: straightforward(features, count, int(cover.picks[0])))
    same = sum(a == b for a, b in zip(cover.picks, picks, strict=True))
    speeds = f"{peer:.2f}", f"{ours:.2f}", f"{peer / ours:.1f}"
    return name, f"{rows:,}", f"{count:,}", *speeds, f"{same:,}", f"{memory:.2f}"


def main() -> None:
    """Print the table."""
    columns = "vectors | rows | picks | peer, s | ours, s | times faster | same picks | memory / features"
    rows = (row_of(*kind, *size) for kind in (("clusters", 50), ("noise", 0)) for size in SIZES)
    show("k-center greedy, 384 dimensions, one thread", columns, rows)


if __name__ == "__main__":
    main()
