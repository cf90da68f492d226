"""What the gateway serves at this moment, and what is still being answered by which version.

A request takes its `Served` once, at its beginning, and keeps it to its end: an answer never comes from two versions,
whatever the registry does meanwhile. Held in memory by one process; safe to use from the event loop and the
follower's thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """One version as the engine knows it. `version` is "base" or the registry's number."""

    version: str
    digest: str
    model: str
    system: str


class Traffic:
    """Champion and challenger of this moment, how many requests each model is answering, and why not more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: Counter[str] = Counter()
        self.champion: Served | None = None
        self.challenger: Served | None = None
        self.engine_up = False
        self.problems: dict[str, str] = {}

    @contextmanager
    def answering(self, served: Served) -> Iterator[None]:
        """Count a request as answered by this version until the block ends; its adapter stays loaded meanwhile."""
        with self._lock:
            self._in_flight[served.model] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[served.model] -= 1

    def in_flight(self, model: str | None = None) -> int:
        """How many requests are being answered, by one model or by all."""
        with self._lock:
            return self._in_flight[model] if model is not None else self._in_flight.total()

    def problem(self, key: str, reason: str | None) -> bool:
        """Note or clear (None) why something is not as it should be; tells whether that is news."""
        with self._lock:
            before = self.problems.get(key)
            if reason is None:
                self.problems.pop(key, None)
            else:
                self.problems[key] = reason
            return before != reason
