"""The way of the examples through the stages: how many each let through, how many it dropped and why, with samples.

Two views. `write_funnel` counts what lies in the stages' outputs, for `dvc plots show`. `read_funnel` adds up the
receipt, where every drop has its reason, for the release card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_text
from tasks.core.tables import count_rows, read_batches

STAGES = ("ingest", "feedback", "construct", "validate", "dedup", "select", "mix")
SAMPLES = 3
# Steps that end an example's way without judging it: it is used otherwise, or will be.
LAID_ASIDE = ("kept for the evaluation", "replay has enough", "learnt by the champion, not replayed")


@dataclass(frozen=True)
class Sample:
    """A dropped example: what it says, as far as the receipt tells, and what was measured."""

    example_id: str
    instruction: str
    output: str
    detail: str
    score: float | None


@dataclass
class Drop:
    """One reason for which a stage dropped examples; samples are the first by id."""

    stage: str
    reason: str
    count: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def laid_aside(self) -> bool:
        """Whether these examples are not bad, but of other use."""
        return self.reason in LAID_ASIDE


@dataclass
class Passage:
    """What one stage did: examples it let through and dropped."""

    stage: str
    kept: int = 0
    drops: list[Drop] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Examples dropped, for all reasons."""
        return sum(drop.count for drop in self.drops)


@dataclass
class Lane:
    """The way of one kind of examples: the domain's own, or general ones, which join them in stage `mix`."""

    name: str
    seen: int = 0
    trained: int = 0
    passages: dict[str, Passage] = field(default_factory=dict)

    def ordered(self) -> list[Passage]:
        """The stages that saw any of them, in order."""
        known = dict.fromkeys([*STAGES, *self.passages])
        return [self.passages[stage] for stage in known if stage in self.passages]


@dataclass
class Funnel:
    """What became of all examples, by lane; and how many were seen and are trained on, by origin."""

    lanes: list[Lane]
    seen: dict[str, int]
    trained: dict[str, int]

    @property
    def drops(self) -> list[Drop]:
        """Every reason of every lane, in the order of the stages, the commonest first."""
        found: dict[tuple[str, str], Drop] = {}
        for lane in self.lanes:
            for passage in lane.ordered():
                for drop in passage.drops:
                    both = found.setdefault((drop.stage, drop.reason), Drop(drop.stage, drop.reason))
                    both.count += drop.count
                    both.samples = [*both.samples, *drop.samples][:SAMPLES]
        order = {stage: place for place, stage in enumerate(STAGES)}
        return sorted(found.values(), key=lambda drop: (order.get(drop.stage, len(order)), *_most_first(drop)))


def read_funnel(path: Path) -> Funnel:
    """Add up a receipt, a batch of examples at a time. Every example counts once a stage, by its last step there.

    Raises:
        RecordError: the receipt is missing or damaged.
    """
    lanes = {name: Lane(name) for name in ("domain", "general")}
    seen: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for batch in read_batches(path):
        for row in batch.to_pylist():
            origin = row["origin"] or "unknown"
            lane = lanes["general" if origin == "general" else "domain"]
            lane.seen += 1
            lane.trained += row["trained"]
            seen[origin] += 1
            trained[origin] += row["trained"]
            for step in {step["stage"]: step for step in row["story"]}.values():
                passage = lane.passages.setdefault(step["stage"], Passage(step["stage"]))
                if step["kept"]:
                    passage.kept += 1
                else:
                    _count(passage, row, step)
    for lane in lanes.values():
        for passage in lane.passages.values():
            passage.drops.sort(key=_most_first)
    return Funnel(
        [lane for lane in lanes.values() if lane.seen], dict(sorted(seen.items())), dict(sorted((+trained).items()))
    )


def _count(passage: Passage, row: dict[str, Any], step: dict[str, Any]) -> None:
    drop = next((drop for drop in passage.drops if drop.reason == step["reason"]), None)
    if drop is None:
        drop = Drop(step["stage"], step["reason"])
        passage.drops.append(drop)
    drop.count += 1
    if len(drop.samples) < SAMPLES:
        texts = (row["instruction"] or "", row["output"] or "")
        drop.samples.append(Sample(row["example_id"], *texts, step["detail"], step["score"]))


def _most_first(drop: Drop) -> tuple[int, str]:
    return -drop.count, drop.reason


def write_funnel(counts: Mapping[str, int]) -> None:
    """Write how many examples each stage let through, for `dvc plots show`; `counts` are those of stage `mix`.

    Raises:
        RecordError: a stage has not run.
    """
    data = layout.INGEST.parent
    names = ("ingest", "feedback", "construct", "validate", "dedup", "select")
    rows = [(name, count_rows(data / name / "examples.parquet")) for name in names]
    rows += [("leak guard", counts["domain"]), ("replay added", counts["replay"]), ("train", counts["train"])]
    write_text(layout.PLOTS / "data_counts.csv", "stage,examples\n" + "".join(f"{s},{n}\n" for s, n in rows))
