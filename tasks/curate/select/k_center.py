"""Core-set selection by k-center greedy: each pick is the row farthest from all that are picked already.

Sener and Savarese 2018 (arXiv 1708.00489, algorithm 1); distance is 1 - cosine, on the grid of neighbours.py. The rows
that may be picked next are first looked at among themselves, and their picks then compared with all rows in one matrix
product; the picks are those of the plain algorithm. Limit: time grows with rows times picks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import FlywheelError
from tasks.similarity.neighbours import BLOCK, on_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANDIDATES = 256  # rows that are looked at among themselves at a time
UNIT = 0.05  # how far a squared length may be from 1


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
    """Pick rows greedily until there are `count`, or until every row lies within `radius` (1 - cosine) of one.

    `features` are unit vectors (n, d), put on the grid. Rows `given` are taken already; without any, the first pick is
    the row nearest to the mean direction. Of rows equally far the first is picked. Raises SelectionError for a row that
    is no unit vector.
    """
    features = on_grid(features)
    _check_unit(features)
    count = min(count, len(features) - len(set(given)))
    if count <= 0:
        return Cover(np.empty(0, np.int64), np.empty(0), np.empty(0))
    closest = np.inf if radius is None else 1.0 - radius
    picks, lowest = [], []  # each pick, and its similarity to the nearest centre before it
    if not given:
        middle = features.astype(np.float64) @ features.sum(axis=0, dtype=np.float64)
        picks, lowest = [int(middle.argmax())], [-np.inf]
    nearest = np.full(len(features), -np.inf, np.float32)  # of each row to the nearest centre
    _add_centres(features, nearest, [*given, *picks])
    while len(picks) < count and nearest.min() < closest:
        found, similarity = _next_picks(features, nearest, count - len(picks), closest)
        _add_centres(features, nearest, found)
        picks += found
        lowest += similarity
    distances = np.maximum(1.0 - np.array([*lowest, nearest.min()], np.float64), 0.0)
    return Cover(np.array(picks, np.int64), distances[:-1], distances[1:])


def _check_unit(features: NDArray[Any]) -> None:
    squares = np.einsum("ij,ij->i", features, features)
    wrong = np.flatnonzero(~(np.abs(squares - 1.0) < UNIT))
    if len(wrong):
        raise SelectionError(
            f"vectors that are not of length 1: {len(wrong)}, the first is row {wrong[0]}; run dvc repro embed"
        )


def _add_centres(features: NDArray[Any], nearest: NDArray[Any], rows: list[int]) -> None:
    """Let every row's `nearest` hear of new centres, which are infinitely near and so not picked again."""
    vectors = features[rows].T
    for start in range(0, len(features), BLOCK):
        part = nearest[start : start + BLOCK]
        np.maximum(part, (features[start : start + BLOCK] @ vectors).max(axis=1), out=part)
    nearest[rows] = np.inf


def _next_picks(
    features: NDArray[Any], nearest: NDArray[Any], most: int, closest: float
) -> tuple[list[int], list[float]]:
    """Picks among the farthest rows, while no other row can be as far, and their similarity to what was before."""
    size = min(CANDIDATES, len(nearest))
    bound = np.partition(nearest, size - 1)[size - 1]
    rows = np.flatnonzero(nearest <= bound)
    limit = min(nearest[nearest > bound].min(initial=np.inf), closest)
    vectors, similarity = features[rows], nearest[rows]
    picks: list[int] = []
    lowest: list[float] = []
    while len(picks) < most and similarity.min() < limit:
        place = int(similarity.argmin())
        picks.append(int(rows[place]))
        lowest.append(float(similarity[place]))
        np.maximum(similarity, vectors @ vectors[place], out=similarity)
        similarity[place] = np.inf
    return picks, lowest


def nearest_of(features: NDArray[Any], rows: NDArray[Any], picks: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each of `rows` the place in `picks` of the nearest pick, and its distance (1 - cosine, float32)."""
    places, similarity = np.zeros(len(rows), np.int64), np.full(len(rows), -np.inf, np.float32)
    for start in range(0, len(rows), BLOCK):
        block, part = features[rows[start : start + BLOCK]], slice(start, start + BLOCK)
        for first in range(0, len(picks), BLOCK):
            found = block @ features[picks[first : first + BLOCK]].T
            closer = found.max(axis=1) > similarity[part]
            places[part] = np.where(closer, found.argmax(axis=1) + first, places[part])
            similarity[part] = np.maximum(found.max(axis=1), similarity[part])
    return places, np.maximum(0.0, 1.0 - similarity)
