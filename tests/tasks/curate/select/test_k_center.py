"""k-center greedy: the picks of the plain algorithm, ties in order, radii that say how well the rest is covered."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.curate.select import k_center as module
from tasks.curate.select.k_center import SelectionError, k_center, nearest_of
from tasks.similarity.neighbours import on_grid


def at(*degrees: float) -> Any:
    """Unit vectors in the plane, on the grid."""
    return on_grid(np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees]))


def units(rows: Any) -> Any:
    return on_grid(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def plain(features: Any, count: int, given: list[int]) -> list[int]:
    """The algorithm as it stands in the paper, in float64, one pass over all rows a pick; the first of equals."""
    rows = features.astype(np.float64)
    nearest, picks = np.full(len(rows), -np.inf), []
    for row in given:
        nearest = np.maximum(nearest, rows @ rows[row])
    if not given:
        middle = rows @ rows.sum(axis=0)
        nearest = -middle
    for first in range(count):
        nearest[[*given, *picks]] = np.inf
        row = int(nearest.argmin())
        picks.append(row)
        nearest = rows @ rows[row] if first == 0 and not given else np.maximum(nearest, rows @ rows[row])
    return picks


def test_each_pick_is_the_farthest_from_those_before_it() -> None:
    """From 0°: 180° is farthest (distance 2), then 90° (1), then 45° (0.293 from both sides), then 10°."""
    cover = k_center(at(0, 10, 45, 90, 180), 9, given=[0])
    assert cover.picks.tolist() == [4, 3, 2, 1]
    radii = [1.0, 1 - math.cos(math.radians(45)), 1 - math.cos(math.radians(10)), 0.0]
    assert cover.radii == pytest.approx(radii, abs=0.01)


def test_a_radius_ends_the_picking_as_soon_as_every_row_has_a_pick_within_it() -> None:
    """45° lies 0.293 from 90°: a radius of 0.3 is reached by 180° and 90°, one of 0.29 needs 45° itself."""
    rows = at(0, 10, 45, 90, 180)
    assert k_center(rows, 9, radius=0.30, given=[0]).picks.tolist() == [4, 3]
    assert k_center(rows, 9, radius=0.29, given=[0]).picks.tolist() == [4, 3, 2]
    assert k_center(rows, 9, radius=2.0, given=[0]).picks.tolist() == []


def test_what_is_not_a_unit_vector_is_refused() -> None:
    rows = at(0, 90, 180)
    for wrong in (0.0, math.nan):
        rows[1] = wrong
        with pytest.raises(SelectionError, match="vectors that are not of length 1: 1, the first is row 1"):
            k_center(rows, 2)


def test_nothing_to_pick_is_an_answer() -> None:
    assert len(k_center(np.empty((0, 3), np.float32), 5).picks) == 0
    assert len(k_center(at(0, 90), 5, given=[0, 1]).picks) == 0


POINTS = st.lists(st.tuples(*[st.integers(-2, 2)] * 3).filter(any), min_size=1, max_size=40)


@given(POINTS, st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_the_picks_are_those_of_the_plain_algorithm_however_few_rows_are_looked_at(
    points: list[tuple[int, ...]], count: int, data: st.DataObject
) -> None:
    """Points of a small lattice: many rows are equal, or equally far."""
    features = units(np.array(points, dtype=np.float64))
    given_rows = data.draw(st.lists(st.integers(0, len(points) - 1), unique=True, max_size=3))
    count = min(count, len(points) - len(given_rows))
    expected = plain(features, count, given_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CANDIDATES", data.draw(st.integers(1, 8)))
        patch.setattr(module, "BLOCK", data.draw(st.integers(1, 16)))
        assert k_center(features, count, given=given_rows).picks.tolist() == expected


@pytest.mark.parametrize("clusters", [0, 40])
def test_the_picks_are_those_of_the_plain_algorithm_in_many_dimensions(clusters: int) -> None:
    random = np.random.default_rng(5)
    rows = random.standard_normal((3000, 96))
    if clusters:
        rows = 0.4 * rows + random.standard_normal((clusters, 96))[random.integers(0, clusters, 3000)]
    assert k_center(units(rows), 700).picks.tolist() == plain(units(rows), 700, [])


def test_radii_say_how_far_the_farthest_row_is_from_its_nearest_pick() -> None:
    rows = units(np.random.default_rng(6).standard_normal((500, 16)))
    cover = k_center(rows, 40)
    for count in (1, 7, 40):
        similarity = rows.astype(np.float64) @ rows[cover.picks[:count]].T.astype(np.float64)
        assert cover.radii[count - 1] == pytest.approx(1 - similarity.max(axis=1).min(), abs=0)


def test_a_row_is_told_its_nearest_pick() -> None:
    """10° is nearest to 0°, 80° to 90°; each lies 10° away."""
    places, distances = nearest_of(at(0, 90, 10, 80), np.array([2, 3]), np.array([1, 0]))
    assert places.tolist() == [1, 0]
    assert distances == pytest.approx([1 - math.cos(math.radians(10))] * 2, abs=0.01)
