"""The interval of what an online training gained."""

from __future__ import annotations

import pytest

from tasks.train.online.held_out import paired_interval


def test_the_interval_is_students() -> None:
    """Differences 1, 2 and 3: mean 2, deviation 1, and t of two degrees of freedom is 4.3027."""
    half = 4.3027 / 3**0.5
    assert paired_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-4)
