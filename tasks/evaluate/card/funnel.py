"""The way of the examples through the stages, added up from the receipt, and its picture for the release card.

One lane for the domain's own examples and one for general ones. An example counts once a stage, by its last step there.
In the picture a band's height is a number of examples; what a stage drops leaves it downwards, what joins there comes
in from below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from tasks.core.graph import data_stages

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 3
# Steps that end an example's way without judging it: it is used otherwise, or will be.
RESERVED = ("kept for the evaluation", "replay has enough", "learnt by the champion, not replayed")
INK, FLOW, DROPPED, OTHER_USE, JOINED = "#333333", "#2a6fdb", "#d1603d", "#b8bfc7", "#3a9d6e"
NODE = 0.05  # half a stage's width, where stages stand 1 apart
SHIFT, RISE = 0.3, 0.1  # how far right what is dropped ends, how far below what joins begins
TEXT = 0.9  # room below a lane for the reasons
NAMED = 3  # reasons under a stage


@dataclass(frozen=True)
class Drop:
    """One reason for which a stage dropped examples; `samples` are rows of the receipt, the first by id."""

    stage: str
    reason: str
    count: int
    samples: list[dict[str, Any]]

    @property
    def reserved(self) -> bool:
        """Whether these examples are not bad, but of other use."""
        return self.reason in RESERVED


@dataclass(frozen=True)
class StageCount:
    """What one stage let through and dropped of a lane."""

    stage: str
    kept: int
    drops: list[Drop]

    @property
    def dropped(self) -> int:
        """Examples dropped, for all reasons."""
        return sum(drop.count for drop in self.drops)

    @property
    def entering(self) -> int:
        """Examples that came to this stage."""
        return self.kept + self.dropped


@dataclass(frozen=True)
class Lane:
    """The way of one kind of examples: the domain's own, or general ones, which join them in stage `mix`."""

    name: str
    seen: int
    trained: int
    stages: list[StageCount]


@dataclass(frozen=True)
class Funnel:
    """What became of all examples: by lane, by reason, and how many were seen and are trained on by origin."""

    lanes: list[Lane]
    drops: list[Drop]
    seen: dict[str, int]
    trained: dict[str, int]


def read_funnel(path: Path) -> Funnel:
    """Add up a receipt."""
    import pandas as pd

    rows = pd.read_parquet(path)
    rows["origin"] = rows["origin"].fillna("unknown")
    rows["lane"] = rows["origin"].eq("general").map({True: "general", False: "domain"})
    rows[["instruction", "output"]] = rows[["instruction", "output"]].fillna("")
    steps = rows[["example_id", "lane", "instruction", "output", "story"]].explode("story", ignore_index=True)
    steps = steps.join(pd.DataFrame(steps.pop("story").tolist())).drop_duplicates(["example_id", "stage"], keep="last")
    return Funnel(
        [
            Lane(name, len(part), int(part["trained"].sum()), _counts(steps[steps["lane"] == name]))
            for name, part in rows.groupby("lane")
        ],
        [drop for stage in _counts(steps) for drop in stage.drops],
        rows["origin"].value_counts().sort_index().to_dict(),
        rows.loc[rows["trained"], "origin"].value_counts().sort_index().to_dict(),
    )


def _counts(steps: pd.DataFrame) -> list[StageCount]:
    """Each stage that saw any of them, in order; its reasons, the commonest first."""
    stages = dict(tuple(steps.groupby("stage")))
    counts = []
    for name in [stage for stage in dict.fromkeys([*data_stages(), *stages]) if stage in stages]:
        kept = stages[name]["kept"]
        drops = [
            Drop(name, str(reason), len(part), part.head(SAMPLES).to_dict("records"))
            for reason, part in stages[name][~kept].groupby("reason")
        ]
        counts.append(StageCount(name, int(kept.sum()), sorted(drops, key=lambda drop: (-drop.count, drop.reason))))
    return counts


def draw_funnel(lanes: list[Lane]) -> Any:
    """A matplotlib figure of the lanes, one below the other; heights are shared, so that lanes compare."""
    from matplotlib.figure import Figure

    most = max(stage.entering for lane in lanes for stage in lane.stages)
    # What is dropped ends under every stage, and its reasons stand below that.
    floors = [max(stage.entering for stage in lane.stages) / most + 0.2 for lane in lanes]
    depths = [
        floor + max(TEXT, *(stage.dropped / most for stage in lane.stages))
        for floor, lane in zip(floors, lanes, strict=True)
    ]
    drawing = Figure(figsize=(9.6, 1.55 * sum(depths) + 0.4), layout="constrained")
    axes = drawing.subplots(len(lanes), 1, squeeze=False, height_ratios=depths)[:, 0]
    for ax, lane, floor, depth in zip(axes, lanes, floors, depths, strict=True):
        ax.set_ylim(-depth, 0.3)
        ax.axis("off")
        title = f"{lane.name} examples: {lane.seen} seen, {lane.trained} trained on"
        ax.set_title(title, fontsize=9, color=INK, loc="left")
        _draw_lane(ax, lane, most, -floor)
    return drawing


def _draw_lane(ax: Any, lane: Lane, most: int, floor: float) -> None:
    chain = [stage for stage in lane.stages if stage.stage != "feedback"]
    for place, stage in enumerate(chain):
        after = chain[place + 1].entering if place + 1 < len(chain) else lane.trained
        _draw_stage(ax, place, stage, most, floor)
        _band(ax, (place, 0.0, stage.kept / most), (place + 1, 0.0, min(after, stage.kept) / most), FLOW)
        if joined := max(0, after - stage.kept):
            low, height = -stage.kept / most, joined / most
            _band(ax, (place + 0.7, low - RISE, height), (place + 1, low, height), JOINED)
            _text(ax, place + 0.7, low - RISE - height / 2, f"+{joined}", ha="right")
    _node(ax, len(chain), lane.trained / most, "trained on", lane.trained)
    if left := (chain[-1].kept - lane.trained if chain else 0):
        _text(ax, len(chain), -lane.trained / most - 0.05, f"{left} for\nvalidation", ha="center")
    ax.set_xlim(-0.4, len(chain) + 0.5)


def _draw_stage(ax: Any, place: int, stage: StageCount, most: int, floor: float) -> None:
    _node(ax, place, stage.entering / most, stage.stage, stage.kept)
    top, end = -stage.kept / most, floor
    for drop in sorted(stage.drops, key=lambda drop: drop.reserved):
        height = drop.count / most
        _band(ax, (place, top, height), (place + SHIFT, end, height), OTHER_USE if drop.reserved else DROPPED)
        top, end = top - height, end - height
    lines = [fill(f"−{drop.count} {drop.reason}", 21, subsequent_indent="   ") for drop in stage.drops[:NAMED]]
    if more := stage.drops[NAMED:]:
        lines.append(f"−{sum(drop.count for drop in more)}, {len(more)} more reasons")
    _text(ax, place + SHIFT, floor + 0.02, "\n".join(lines), ha="left")


def _node(ax: Any, place: int, height: float, name: str, count: int) -> None:
    ax.fill_between([place - NODE, place + NODE], [-height, -height], [0, 0], color=INK, linewidth=0)
    ax.text(place, 0.05, f"{name}\n{count}", fontsize=8, color=INK, ha="center", va="bottom")


def _text(ax: Any, x: float, y: float, words: str, ha: str) -> None:
    ax.text(x, y, words, fontsize=6.5, color=INK, ha=ha, va="top")


def _band(ax: Any, start: tuple[float, float, float], end: tuple[float, float, float], colour: str) -> None:
    """A band from one (x, top, height) to another, its edges smooth."""
    import numpy as np

    way = np.linspace(0.0, 1.0, 24)
    bend = way * way * (3.0 - 2.0 * way)
    tops = start[1] + (end[1] - start[1]) * bend
    heights = start[2] + (end[2] - start[2]) * bend
    across = start[0] + NODE + (end[0] - start[0] - 2 * NODE) * way
    ax.fill_between(across, tops - heights, tops, color=colour, alpha=0.55, linewidth=0)
