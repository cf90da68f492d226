"""The one clock of what is written down."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """This moment, in UTC and aware of it."""
    return datetime.now(UTC)
