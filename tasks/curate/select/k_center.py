"""Core-set selection by k-center greedy: each pick is the row farthest from all that are picked already.

The source is Sener and Savarese 2018 (arXiv 1708.00489, algorithm 1): a greedy cover whose radius is at most twice the
best one of its size. Distance is 1 - cosine.

The plain algorithm passes over all rows once a pick, and waits for memory all that time. Here the rows that may be
picked next (those with the farthest bounds) are first looked at among themselves, and a hundred of their picks or more
are then compared with all rows in one matrix product. Bounds are float32 with a known error; whatever may be picked is
compared in float64. So the picks are those of the plain algorithm in float64, on any number of threads.
Limits: time still grows with rows times picks; the features are held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.errors import FlywheelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANDIDATES = 256  # rows that are looked at among themselves at a time
BLOCK = 2048  # rows of one matrix product
TIE = 1e-12  # similarities nearer to one another than this are equal: float64's own noise lies below it
UNIT = 1e-3  # how far a squared length may be from 1


class SelectionError(FlywheelError):
    """A selection cannot be made as asked."""


@dataclass(frozen=True)
class Cover:
    """Rows in the order they were picked, and how well they cover the others.

    `before[i]` is the distance (1 - cosine) of pick i from the nearest one before it; infinite if there is none.
    `radii[i]` is the largest distance from any row to the nearest of `given` and the first i + 1 picks.
    """

    picks: NDArray[Any]
    before: NDArray[Any]
    radii: NDArray[Any]


def k_center(features: NDArray[Any], count: int, *, radius: float | None = None, given: Sequence[int] = ()) -> Cover:
    """Pick rows greedily until there are `count`, or until every row lies within `radius` of one.

    Rows that are equally far are picked in order.

    Args:
        features: (n, d) unit vectors; float32 is used as it is, anything else is copied.
        count: the most picks there may be, `given` not counted.
        radius: 1 - cosine to stop at; None goes on to `count`.
        given: rows that are taken already. Without any, the first pick is the row nearest to the mean direction.

    Raises:
        SelectionError: a row is not a unit vector (zero, say, or not a number).
    """
    import numpy as np

    features = np.ascontiguousarray(features, dtype=np.float32)
    _check_unit(features)
    count = min(count, len(features) - len(set(given)))
    if count <= 0:
        return Cover(np.empty(0, np.int64), np.empty(0), np.empty(0))
    stop = -np.inf if radius is None else radius
    greedy = _Greedy(features)
    if given:
        greedy.take(np.unique(np.asarray(given, dtype=np.int64)))
    else:
        greedy.pick([greedy.middle()])
    while len(greedy.picks) < count and greedy.farthest() > stop:
        greedy.round(count, stop)
    distances = np.maximum([*greedy.distances, greedy.farthest()], 0.0)
    return Cover(np.asarray(greedy.picks, np.int64), distances[:-1], distances[1:])


def _check_unit(features: NDArray[Any]) -> None:
    import numpy as np

    squares = np.einsum("ij,ij->i", features, features)
    wrong = np.flatnonzero(~(np.abs(squares - 1.0) < UNIT))
    if len(wrong):
        raise SelectionError(
            f"vectors that are not of length 1: {len(wrong)}, the first is row {wrong[0]}; run dvc repro embed"
        )


class _Greedy:
    """Where the picking stands: for each row, a bound of its similarity to the nearest centre there is."""

    def __init__(self, features: NDArray[Any]) -> None:
        import numpy as np

        self.features = features
        # Of a float32 product of two unit vectors, in whatever order it is summed (Higham 2002, equation 3.5).
        self.error = features.shape[1] * 2.0**-24
        self.nearest = np.full(len(features), -np.inf, dtype=np.float32)
        self.centres = np.empty(0, dtype=np.int64)
        self.picks: list[int] = []
        self.distances: list[float] = []  # of each pick to the nearest centre before it; of the first of all, infinite
        self._next: tuple[Any, Any, float] | None = None

    def middle(self) -> int:
        """The row nearest to the mean direction, the first of equals."""
        import numpy as np

        mean = self.features.mean(axis=0, dtype=np.float64)
        similarity = np.concatenate([block.astype(np.float64) @ mean for _, block in self._blocks()])
        return int(np.flatnonzero(similarity >= similarity.max() - TIE)[0])

    def take(self, rows: NDArray[Any]) -> None:
        """Make centres of rows: every row's bound hears of them."""
        import numpy as np

        self.centres = np.concatenate([self.centres, rows])
        vectors = self.features[rows].T
        for start, block in self._blocks():
            nearest = self.nearest[start : start + BLOCK]
            np.maximum(nearest, (block @ vectors).max(axis=1), out=nearest)
        self.nearest[rows] = np.inf  # a centre is not picked again
        self._next = None

    def pick(self, rows: list[int], distances: Sequence[float] = (float("inf"),)) -> None:
        """Make picks of rows."""
        import numpy as np

        self.picks += rows
        self.distances += distances
        self.take(np.asarray(rows, dtype=np.int64))

    def farthest(self) -> float:
        """The largest distance of any row to its nearest centre, 0 when all rows are centres."""
        rows, similarity, _ = self._candidates()
        return float(1.0 - similarity.min()) if len(rows) else 0.0

    def round(self, count: int, radius: float) -> None:
        """Pick among the candidates for as long as no other row can be farther than the farthest of them."""
        import numpy as np

        rows, similarity, limit = self._candidates()
        vectors = self.features[rows].astype(np.float64)
        picks: list[int] = []
        distances: list[float] = []
        while len(self.picks) + len(picks) < count:
            lowest = similarity.min()
            if not np.isfinite(lowest) or 1.0 - lowest <= radius or lowest + TIE >= limit:
                break
            place = int(np.flatnonzero(similarity <= lowest + TIE)[0])
            picks.append(int(rows[place]))
            distances.append(1.0 - float(lowest))
            np.maximum(similarity, vectors @ vectors[place], out=similarity)
            similarity[place] = np.inf
        self.pick(picks, distances)

    def _candidates(self) -> tuple[Any, Any, float]:
        """Rows in order, their similarity (float64) to the nearest centre, and one that every other row is above.

        The rows are those with the lowest bounds, and all whose true value could be as low as the lowest of theirs,
        so that there is always one to pick.
        """
        import numpy as np

        if len(self.centres) == len(self.nearest):
            return np.empty(0, np.int64), np.empty(0), np.inf
        if self._next is None:
            size = min(CANDIDATES, len(self.nearest) - len(self.centres))
            bound = float(np.partition(self.nearest, size - 1)[size - 1])
            bound = max(bound, float(self.nearest.min()) + 2.0 * self.error + 2.0 * TIE)
            rows = np.flatnonzero(self.nearest <= bound)
            others = self.nearest[self.nearest > bound]
            limit = float(others.min()) - self.error if len(others) else np.inf
            self._next = rows, self._exact(rows), limit
        return self._next

    def _exact(self, rows: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        similarity = np.full(len(rows), -np.inf)
        vectors = self.features[rows].astype(np.float64).T
        for start in range(0, len(self.centres), BLOCK):
            centres = self.features[self.centres[start : start + BLOCK]].astype(np.float64)
            np.maximum(similarity, (centres @ vectors).max(axis=0), out=similarity)
        return similarity

    def _blocks(self) -> Any:
        for start in range(0, len(self.features), BLOCK):
            yield start, self.features[start : start + BLOCK]


def nearest_of(features: NDArray[Any], rows: NDArray[Any], picks: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each of `rows` the place in `picks` of the nearest pick, and its distance (1 - cosine, float32)."""
    import numpy as np

    places, similarity = np.zeros(len(rows), np.int64), np.full(len(rows), -np.inf, np.float32)
    for start in range(0, len(rows), BLOCK):
        block = features[rows[start : start + BLOCK]]
        for first in range(0, len(picks), BLOCK):
            found = block @ features[picks[first : first + BLOCK]].T
            best = found.argmax(axis=1)
            value = found[np.arange(len(block)), best]
            closer = value > similarity[start : start + BLOCK]
            places[start : start + BLOCK][closer] = best[closer] + first
            similarity[start : start + BLOCK][closer] = value[closer]
    return places, np.maximum(0.0, 1.0 - similarity)
