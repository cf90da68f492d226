"""What every method of construction has: its language and settings, a teacher to ask, and what came of its candidates.

A method asks the teacher, reads examples out of the replies, keeps the good ones and says of each other why it was
dropped. Nothing is padded; zero is an outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.core.params import Params
from tasks.core.records import Dropped, Example, Origin, Receipt, make_example
from tasks.core.settings import SettingsError
from tasks.corpus.construct.teacher_prompts import TeacherPrompts, load_prompts
from tasks.corpus.teacher.cache import Ask, Reply, Usage, dialogue

if TYPE_CHECKING:
    from tasks.corpus.teacher.teacher import Teacher

STAGE = "construct"
MAX_DETAIL = 500  # characters
DROPPED_FIELDS = {"id", "origin", "instruction", "input", "output", "source", "evidence"}


@dataclass(kw_only=True)
class Method:
    """A method at work. `scores` are the groundedness of every candidate that was measured, dropped ones too."""

    origin: ClassVar[Origin]
    params: Params
    language: str
    teacher: Teacher | None = None
    examples: list[Example] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Begin to count."""
        self._before = self.teacher.usage if self.teacher else Usage()

    @property
    def usage(self) -> Usage:
        """What it has used of the teacher."""
        return self.teacher.usage.since(self._before) if self.teacher else Usage()

    @cached_property
    def prompts(self) -> TeacherPrompts:
        """What the teacher is asked, in the language."""
        return load_prompts(self.language)

    def ask(
        self, dialogues: Iterable[Sequence[str]], title: str, exact: bool = False, sample: int | None = None
    ) -> list[Reply]:
        """The teacher's replies to dialogues of worked examples with the question last.

        Args:
            dialogues: texts of a user and an assistant in turn.
            title: names what is asked, for the progress.
            exact: a word or two are wanted, drawn without chance.
            sample: the first one's number, where equal dialogues are to have replies of their own.

        Raises:
            SettingsError: there is no teacher.
        """
        if self.teacher is None:
            raise SettingsError(f"construct.{self.origin} needs a teacher")
        settings = self.params.construct_.teacher
        tokens, temperature = (8, 0.0) if exact else (settings.max_tokens, settings.temperature)
        asks = [
            Ask(
                messages=dialogue(*texts),
                max_tokens=tokens,
                temperature=temperature,
                sample=0 if sample is None else sample + number,
            )
            for number, texts in enumerate(dialogues)
        ]
        return self.teacher.ask(asks, f"{self.origin}: {title}")

    def candidate(self, instruction: str, output: str, source: tuple[str, ...], **fields: str) -> Example:
        """An example of this method."""
        return make_example(
            instruction=instruction, output=output, language=self.language, origin=self.origin, source=source, **fields
        )

    def keep(self, example: Example, detail: str = "", score: float | None = None, kind: str = "") -> None:
        """Keep a candidate; `kind` says which of several kinds it is."""
        self.examples.append(example)
        self._note(example, True, kind, detail, score)

    def drop(self, example: Example, reason: str, detail: str = "", score: float | None = None) -> None:
        """Drop a candidate, with the reason measured."""
        fields = example.model_dump(include=DROPPED_FIELDS)
        self.dropped.append(Dropped(**fields, reason=reason, detail=detail[:MAX_DETAIL], score=score))
        self._note(example, False, reason, detail, score)

    def _note(self, example: Example, kept: bool, reason: str, detail: str, score: float | None) -> None:
        why = f"{self.origin}: {reason}" if reason else self.origin
        self.receipts.append(
            Receipt(example_id=example.id, stage=STAGE, kept=kept, reason=why, detail=detail[:MAX_DETAIL], score=score)
        )

    def summary(self) -> dict[str, Any]:
        """Counts for summary.json: a function of the replies, whether they came from the cache or not."""
        candidates = len(self.examples) + len(self.dropped)
        return {
            "candidates": candidates,
            "kept": len(self.examples),
            "yield": round(len(self.examples) / candidates, 4) if candidates else 0.0,
            "dropped": self._reasons(),
            "skipped": dict(sorted(self.skipped.items())),
            "mean_groundedness": round(fmean(self.scores), 4) if self.scores else None,
        } | self.usage._asdict()

    def sentence(self) -> str:
        """What it made, and why it dropped the rest, for people."""
        why = ", ".join(f"{count} {reason}" for reason, count in self._reasons().items())
        candidates = len(self.examples) + len(self.dropped)
        return f"{self.origin}: {len(self.examples)} of {candidates} candidates kept" + (f" ({why})" if why else "")

    def _reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(dropped.reason for dropped in self.dropped).items()))
