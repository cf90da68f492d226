"""What one method of construction made: examples, what it dropped and why, and what it used of the teacher."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from tasks.core.records import Dropped, Example, Origin, Receipt
from tasks.corpus.teacher.budget import Usage

STAGE = "construct"
MAX_DETAIL = 500  # characters


@dataclass
class Made:
    """A method's outcome. `scores` are the groundedness of every candidate that was measured, dropped ones too."""

    origin: Origin
    examples: list[Example] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def keep(self, example: Example, detail: str = "", score: float | None = None) -> None:
        """Keep a candidate."""
        self.examples.append(example)
        self._receipt(example, True, self.origin, detail, score)

    def drop(self, example: Example, reason: str, detail: str = "", score: float | None = None) -> None:
        """Drop a candidate, with the reason measured."""
        fields = example.model_dump(include={"id", "origin", "instruction", "input", "output", "source", "evidence"})
        self.dropped.append(Dropped(**fields, reason=reason, detail=detail[:MAX_DETAIL], score=score))
        self._receipt(example, False, f"{self.origin}: {reason}", detail, score)

    def _receipt(self, example: Example, kept: bool, reason: str, detail: str, score: float | None) -> None:
        receipt = Receipt(
            example_id=example.id, stage=STAGE, kept=kept, reason=reason, detail=detail[:MAX_DETAIL], score=score
        )
        self.receipts.append(receipt)

    def summary(self) -> dict[str, Any]:
        """Counts for summary.json: a function of the replies, whether they came from the cache or not."""
        candidates = len(self.examples) + len(self.dropped)
        return {
            "candidates": candidates,
            "kept": len(self.examples),
            "yield": round(len(self.examples) / candidates, 4) if candidates else 0.0,
            "dropped": dict(sorted(Counter(dropped.reason for dropped in self.dropped).items())),
            "skipped": dict(sorted(self.skipped.items())),
            "mean_groundedness": round(fmean(self.scores), 4) if self.scores else None,
        } | self.usage._asdict()

    def sentence(self) -> str:
        """What it made, and why it dropped the rest, for people."""
        counts = Counter(dropped.reason for dropped in self.dropped)
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        candidates = len(self.examples) + len(self.dropped)
        return f"{self.origin}: {len(self.examples)} of {candidates} candidates kept" + (f" ({why})" if why else "")
