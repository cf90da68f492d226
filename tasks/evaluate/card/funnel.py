"""The release card's picture of the data: a Sankey diagram of every example's way through the stages.

One lane for the domain's own examples and one for general ones. A band's height is a number of examples; what a stage
drops leaves it downwards, what joins there comes in from below.
"""

from __future__ import annotations

from textwrap import fill
from typing import Any

from tasks.curate.mix.funnel import Lane, Passage

INK, FLOW, DROPPED, ASIDE, JOINED = "#333333", "#2a6fdb", "#d1603d", "#b8bfc7", "#3a9d6e"
NODE = 0.05  # half a stage's width, where stages stand 1 apart
ASIDE_BY, RISE = 0.3, 0.1  # how far right what is dropped ends, how far below what joins begins
TEXT = 0.9  # room below a lane for the reasons
NAMED = 3  # reasons under a stage
STEPS = 24  # points of a band's edge


def draw_funnel(lanes: list[Lane]) -> Any:
    """A matplotlib figure of the lanes, one below the other; heights are shared, so that lanes compare."""
    from matplotlib.figure import Figure

    most = max(_entering(passage) for lane in lanes for passage in lane.ordered())
    depths = [_floor(lane, most) + max(_deepest(lane, most), TEXT) for lane in lanes]
    drawing = Figure(figsize=(9.6, 1.55 * sum(depths) + 0.4), layout="constrained")
    axes = drawing.subplots(len(lanes), 1, squeeze=False, height_ratios=depths)[:, 0]
    for ax, lane, depth in zip(axes, lanes, depths, strict=True):
        ax.set_ylim(-depth, 0.3)
        _draw_lane(ax, lane, most)
    return drawing


def _draw_lane(ax: Any, lane: Lane, most: int) -> None:
    chain = [passage for passage in lane.ordered() if passage.stage != "feedback"]
    ax.set_title(
        f"{lane.name} examples: {lane.seen} seen, {lane.trained} trained on", fontsize=9, color=INK, loc="left"
    )
    for place, passage in enumerate(chain):
        after = _entering(chain[place + 1]) if place + 1 < len(chain) else lane.trained
        _draw_stage(ax, place, passage, most, -_floor(lane, most))
        _band(ax, (place, 0.0, passage.kept / most), (place + 1, 0.0, min(after, passage.kept) / most), FLOW)
        if joined := max(0, after - passage.kept):
            low, height = -passage.kept / most, joined / most
            _band(ax, (place + 0.7, low - RISE, height), (place + 1, low, height), JOINED)
            _text(ax, place + 0.7, low - RISE - height / 2, f"+{joined}", ha="right")
    _node(ax, len(chain), lane.trained / most, "trained on", lane.trained)
    if left := (chain[-1].kept - lane.trained if chain else 0):
        _text(ax, len(chain), -lane.trained / most - 0.05, f"{left} for\nvalidation", ha="center")
    ax.set_xlim(-0.4, len(chain) + 0.5)
    ax.axis("off")


def _entering(passage: Passage) -> int:
    return passage.kept + passage.dropped


def _floor(lane: Lane, most: int) -> float:
    """How far below the top what is dropped ends: under every stage."""
    return max(_entering(passage) for passage in lane.ordered()) / most + 0.2


def _deepest(lane: Lane, most: int) -> float:
    return max(passage.dropped for passage in lane.ordered()) / most


def _draw_stage(ax: Any, place: int, passage: Passage, most: int, floor: float) -> None:
    _node(ax, place, _entering(passage) / most, passage.stage, passage.kept)
    top, end = -passage.kept / most, floor
    for drop in sorted(passage.drops, key=lambda drop: drop.laid_aside):
        height = drop.count / most
        _band(ax, (place, top, height), (place + ASIDE_BY, end, height), ASIDE if drop.laid_aside else DROPPED)
        top, end = top - height, end - height
    lines = [fill(f"−{drop.count} {drop.reason}", 21, subsequent_indent="   ") for drop in passage.drops[:NAMED]]
    if more := passage.drops[NAMED:]:
        lines.append(f"−{sum(drop.count for drop in more)}, {len(more)} more reasons")
    _text(ax, place + ASIDE_BY, floor + 0.02, "\n".join(lines), ha="left")


def _node(ax: Any, place: int, height: float, name: str, count: int) -> None:
    ax.fill_between([place - NODE, place + NODE], [-height, -height], [0, 0], color=INK, linewidth=0)
    ax.text(place, 0.05, f"{name}\n{count}", fontsize=8, color=INK, ha="center", va="bottom")


def _text(ax: Any, x: float, y: float, words: str, ha: str) -> None:
    ax.text(x, y, words, fontsize=6.5, color=INK, ha=ha, va="top")


def _band(ax: Any, start: tuple[float, float, float], end: tuple[float, float, float], colour: str) -> None:
    """A band from one (x, top, height) to another, its edges smooth."""
    import numpy as np

    way = np.linspace(0.0, 1.0, STEPS)
    bend = way * way * (3.0 - 2.0 * way)
    tops = start[1] + (end[1] - start[1]) * bend
    heights = start[2] + (end[2] - start[2]) * bend
    across = start[0] + NODE + (end[0] - start[0] - 2 * NODE) * way
    ax.fill_between(across, tops - heights, tops, color=colour, alpha=0.55, linewidth=0)
