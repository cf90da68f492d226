"""Figures as people read them."""

from __future__ import annotations

import math

GIB = 1 << 30


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rough(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is short."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gib(size: float) -> str:
    """Bytes as GiB, or as MiB where it is less than a tenth of one."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{math.ceil(size / (1 << 20))} MiB"
