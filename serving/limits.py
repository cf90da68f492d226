"""How much one identity may ask, and how much all may ask together. In memory: one gateway process, its own count.

A token bucket for each identity: a minute's worth may come at once, then it refills evenly. Nothing is looked up or
stored before a request passed here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from serving.errors import ServiceError
from tasks.core.params import ServingParams

MAX_BUCKETS = 10_000


class Buckets:
    """One token bucket for each name: `per_minute` at most at once, refilled evenly over a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._rate, self._clock = float(per_minute), per_minute / 60.0, clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> float:
        """Take one token; 0 if there was one, else the seconds until there is."""
        now = self._clock()
        left, then = self._left.get(name, (self._size, now))
        left = min(self._size, left + (now - then) * self._rate)
        if left < 1.0:
            self._left[name] = (left, now)
            return (1.0 - left) / self._rate
        if len(self._left) >= MAX_BUCKETS and name not in self._left:
            self._forget_full(now)
        self._left[name] = (left - 1.0, now)
        return 0.0

    def _forget_full(self, now: float) -> None:
        """A bucket that is full again says nothing: drop it."""
        self._left = {n: (left, t) for n, (left, t) in self._left.items() if left + (now - t) * self._rate < self._size}


class Limits:
    """Rates by identity, and streams of all together."""

    def __init__(self, settings: ServingParams) -> None:
        self._rates = {"requests": settings.requests_per_minute, "feedback posts": settings.feedback_per_minute}
        self._buckets = {what: Buckets(rate) for what, rate in self._rates.items()}
        self._most, self._streams = settings.max_concurrent, 0

    def take(self, what: str, identity: str) -> None:
        """Count one of an identity's "requests" or "feedback posts".

        Raises:
            ServiceError: 429 with Retry-After.
        """
        if (wait := math.ceil(self._buckets[what].take(identity))) > 0:
            message = f"more than {self._rates[what]} {what} a minute; wait {wait} s"
            raise ServiceError(429, "rate_limit_exceeded", message, retry_after=wait)

    def take_streams(self, n: int) -> None:
        """Take `n` places among the answers being given.

        Raises:
            ServiceError: 429, all places are taken.
        """
        if self._streams + n > self._most:
            message = f"{self._streams} of {self._most} answers are being given; try again in a moment"
            raise ServiceError(429, "too_many_streams", message, retry_after=1)
        self._streams += n

    def free_streams(self, n: int) -> None:
        """Give `n` places back."""
        self._streams -= n
