"""What every method of construction has: its language and settings, a teacher to ask, and what came of its candidates.

A method asks the teacher, reads examples out of the replies, keeps the good ones and says of each other why it was
dropped. Nothing is padded; zero is an outcome.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import yaml

from tasks.core.params import Params
from tasks.core.records import Dropped, Example, Origin, Receipt, make_example
from tasks.core.settings import SettingsError
from tasks.corpus.teacher.teacher import Ask, Reply, Usage, dialogue
from tasks.text.markup import html_in, role_mark_in

if TYPE_CHECKING:
    from tasks.corpus.teacher.teacher import Teacher

STAGE = "construct"
MAX_DETAIL = 500  # characters
CUT = "at the limit of construct.teacher.max_tokens"
DROPPED_FIELDS = {"id", "origin", "instruction", "input", "output", "source", "evidence"}
FOLDER = Path(__file__).with_name("prompts")
OPENING = 60  # characters in which a refusal stands: models lead with it
JSON = json.JSONDecoder(strict=False)  # teachers break lines inside of texts


class Problem(NamedTuple):
    """Why something is dropped; `detail` is what was found."""

    reason: str
    detail: str = ""


def problem_with(reply: Reply, prompts: Any) -> Problem | None:
    """Why a reply cannot be used; None where it can."""
    text = reply.text.strip()
    if reply.error is not None:
        return Problem("no reply", reply.error)
    if reply.finish_reason == "content_filter":
        return Problem("refused", text or "the endpoint's content filter")
    if not text:
        return Problem("empty reply")
    opening = text[:OPENING].casefold().replace("’", "'")
    if found := next((word for word in prompts.refusals if word.casefold() in opening), None):
        return Problem("refused", found)
    if reply.finish_reason == "length":
        return Problem("cut short", CUT)
    return unclean(text)


def unclean(text: str) -> Problem | None:
    """Marks between roles, and HTML; None where there are none."""
    if found := role_mark_in(text):
        return Problem("role mark", found)
    if found := html_in(text):
        return Problem("HTML", found)
    return None


def mentioned(text: str, words: Sequence[str]) -> str | None:
    """The first of `words` that a text mentions, as a word's beginning where words have spaces between them.

    "graph" is in "graphs" and not in "paragraph"; 上述 is wherever it stands.
    """
    lowered = text.casefold()
    for word in words:
        begins = r"(?<!\w)" if word[0].isascii() else ""
        if re.search(begins + re.escape(word.casefold()), lowered):
            return word
    return None


def listed(text: str, words: Mapping[str, Sequence[str]], cut: bool = False) -> tuple[list[dict[str, str]], list[str]]:
    """The objects that a reply lists, every field of each a text; and what cannot be read, such as a last one `cut`.

    `words` are other names of the fields, of which the first begins an object. JSON is read wherever it stands, in
    fences, behind numbers, without an end; where there is none, labels at the beginning of lines are.
    """
    field_of = {word.casefold(): field for field, others in words.items() for word in (field, *others)}
    names = "|".join(map(re.escape, field_of))
    first = "|".join(re.escape(word) for word, field in field_of.items() if field == next(iter(words)))
    found, unread = [], []
    begun = rf'\{{[^{{}}]*?"(?:{first})"\s*:|\{{\s*(?:"\w*"?)?\s*\Z'
    begins = [match.start() for match in re.finditer(begun, text, re.IGNORECASE)]
    for begin, end in pairwise([*begins, len(text)]):
        try:
            one = {field_of.get(key.casefold(), ""): value for key, value in JSON.raw_decode(text, begin)[0].items()}
            found.append({field: _whole(one.get(field)) for field in words})
        except (ValueError, RecursionError):
            unread.append(text[begin:end].strip())
    if begins:
        return found, unread
    parts = re.split(rf"^\W*(?:\d+\W+)?({names})\W?\d*\W{{0,4}}?[:：][*_ ]*", text, flags=re.MULTILINE | re.IGNORECASE)
    for label, part in zip(parts[1::2], parts[2::2], strict=True):
        if (field := field_of[label.casefold()]) == next(iter(words)):
            found.append(dict.fromkeys(words, ""))
        if found:
            found[-1][field] = found[-1][field] or part.strip()
    return (found[:-1], ["\n".join(found[-1].values()).strip()]) if cut and found else (found, unread)


def _whole(value: Any) -> str:
    """A text of JSON without half characters (lone surrogates); a number as a text; "" for what is neither."""
    text = str(value) if isinstance(value, str | int | float) else ""
    return text.encode("utf-8", errors="replace").decode("utf-8").strip()


def has_prompts(language: str) -> bool:
    """Whether a teacher is asked in a language."""
    return (FOLDER / f"{language}.yaml").is_file()


@cache
def load_prompts(language: str) -> Any:
    """What a teacher is asked and its replies are read by, from prompts/<language>.yaml, its keys as attributes.

    A language without a file is asked in English, and told by its code what to answer in.
    """
    known = has_prompts(language)
    raw = yaml.safe_load((FOLDER / f"{language if known else 'en'}.yaml").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(raw), object_hook=lambda fields: SimpleNamespace(**fields))
    if not known:
        found.language = f"the language with the code {language!r}"
    return found


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

    def __post_init__(self) -> None:  # noqa: D105
        self._before = self.teacher.usage if self.teacher else Usage()

    @property
    def usage(self) -> Usage:
        """What it has used of the teacher."""
        return self.teacher.usage.since(self._before) if self.teacher else Usage()

    @property
    def prompts(self) -> Any:
        """What the teacher is asked, in the language."""
        return load_prompts(self.language)

    def ask(
        self,
        dialogues: Iterable[Sequence[str]],
        title: str,
        fields: tuple[str, ...] = (),
        most: int = 1,
        sample: int | None = None,
    ) -> list[Reply]:
        """The teacher's replies to dialogues of worked examples with the question last: user and assistant in turn.

        `fields`: `most` items with these are wanted, each as long as an answer may be. `sample`: the first one's
        number, where equal dialogues are to have replies of their own. Raises SettingsError where there is no teacher.
        """
        if self.teacher is None:
            raise SettingsError(f"construct.{self.origin} needs a teacher")
        settings = self.params.construct_.teacher
        asks = [
            Ask(
                messages=dialogue(*texts),
                max_tokens=settings.max_tokens * most,
                temperature=settings.temperature,
                sample=0 if sample is None else number,
                fields=fields,
            )
            for number, texts in enumerate(dialogues, start=sample or 0)
        ]
        return self.teacher.ask(asks, f"{self.origin}: {title}")

    def items(
        self, reply: Reply, fields: tuple[str, ...], most: int, source: tuple[str, ...], **about: str
    ) -> list[dict[str, str]]:
        """At most `most` items of a reply, each with these fields; what cannot be read is dropped, as a candidate."""
        cut = reply.finish_reason == "length"
        found, unread = listed(reply.text, {name: getattr(self.prompts.fields, name) for name in fields}, cut)
        problem = Problem("cut short", CUT) if cut else Problem("not readable")
        if not found and not unread:
            problem = problem_with(reply, self.prompts) or Problem(f"no {fields[0]} in the reply")
            unread = [reply.text.strip()]
        for text in unread:
            self.drop(self.candidate("", text, source, **about), *problem)
        if len(found) > most:
            self.skipped["more than was asked for"] += len(found) - most
        return found[:most]

    def text_problem(self, reply: Reply, text: str) -> Problem | None:
        """Why a text out of a reply cannot be used; None where it can, though the reply was cut behind it."""
        finish = "stop" if reply.finish_reason == "length" else reply.finish_reason
        return problem_with(reply.model_copy(update={"text": text, "finish_reason": finish}), self.prompts)

    def candidate(self, instruction: str, output: str, source: tuple[str, ...], **fields: Any) -> Example:
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
