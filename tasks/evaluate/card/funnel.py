"""The way of the examples through the stages, added up from the receipt, and its picture for the release card.

One lane for the domain's own examples and one for general ones. An example counts once a stage, by its last step there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.graph import data_stages

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 3
# Steps that end an example's way without judging it: it is used otherwise, or will be.
RESERVED = ("kept for the evaluation", "replay has enough", "learnt by the champion, not replayed")
KEPT, DROPPED, OTHER_USE = "#2a6fdb", "#d1603d", "#b8bfc7"


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
    """A matplotlib figure, a lane below the other: for each stage a bar of what it kept and what it dropped."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9.6, 2.8 * len(lanes)), layout="constrained")
    for ax, lane in zip(drawing.subplots(len(lanes), 1, squeeze=False)[:, 0], lanes, strict=True):
        left_out = [sum(drop.count for drop in stage.drops if not drop.reserved) for stage in lane.stages]
        reserved = [sum(drop.count for drop in stage.drops if drop.reserved) for stage in lane.stages]
        kept = [stage.kept for stage in lane.stages]
        floor = [0] * len(kept)
        parts = (("kept", KEPT, kept), ("of other use", OTHER_USE, reserved), ("left out", DROPPED, left_out))
        for label, colour, counts in parts:
            bars = ax.bar([stage.stage for stage in lane.stages], counts, bottom=floor, label=label, color=colour)
            ax.bar_label(bars, [str(count or "") for count in counts], label_type="center", fontsize=7)
            floor = [low + count for low, count in zip(floor, counts, strict=True)]
        ax.set_title(f"{lane.name} examples: {lane.seen} seen, {lane.trained} trained on", fontsize=9, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        ax.legend(frameon=False, fontsize=8, ncols=len(parts), loc="lower right", bbox_to_anchor=(1, 1))
    return drawing
