"""Stage `feedback`: what users said becomes training data, cleaned; without feedback the outputs are empty files.

Of the snapshot that state/feedback.json names, personal data is masked, repeats and superseded corrections dropped, and
the newest corrections and choices kept up to a number an identity and night. Corrections become examples, choices
between whole answers preference pairs; thumbs and stars are kept for later. The question of a correction in other words
is in no example, so that nothing learns or finds it: it is kept apart, by the example's id, to check what was learnt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import fresh_directory, holds, scratch_directory, take_place, write_json, write_manifest
from tasks.core.params import FeedbackParams, load_params
from tasks.core.pointers import FeedbackPointer, SnapshotError, read_feedback_pointer
from tasks.core.records import (
    Example,
    Message,
    Preference,
    Reaction,
    Receipt,
    Turn,
    make_example,
    make_preference,
    read_own_jsonl,
    write_jsonl,
)
from tasks.core.stage import run_stage
from tasks.core.tables import write_records
from tasks.text.passages import uncited
from tasks.text.personal import masked

STAGE = "feedback"
ROWS = "rows.jsonl"
OTHER_WORDS = "other_words"  # the file of them, and its key for the feedback that gave them


@dataclass
class Cleaned:
    """What is left of a snapshot, and what became of the rest."""

    examples: list[Example] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # ids of the examples that no champion has learnt
    other_words: dict[str, str] = field(default_factory=dict)  # id of an example → its question in other words
    preferences: list[Preference] = field(default_factory=list)
    new_preferences: list[str] = field(default_factory=list)  # ids, likewise
    signals: list[Reaction] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    choices_dropped: Counter[str] = field(default_factory=Counter)  # reason → choices between drafts
    masked: Counter[str] = field(default_factory=Counter)  # kind of personal data → times it was masked

    def facts(self) -> dict[str, object]:
        """Counts, for the card and the log."""
        dropped = Counter(receipt.reason for receipt in self.receipts if not receipt.kept) + self.choices_dropped
        return {
            "examples": len(self.examples),
            "new_examples": len(self.new),
            "preferences": len(self.preferences),
            "signals": len(self.signals),
            "dropped": dict(sorted(dropped.items())),
            "masked": dict(sorted(self.masked.items())),
        }


def write_snapshot(reactions: Sequence[Reaction], root: Path) -> str:
    """Lay a snapshot under its own digest below `root`; equal rows give an equal digest, which is returned."""
    folder = root / layout.FEEDBACK_SNAPSHOTS
    with scratch_directory(folder / "snapshot") as scratch:
        write_jsonl(scratch / ROWS, reactions)
        digest = write_manifest(scratch)
        if not holds(folder / digest, digest):
            take_place(scratch, folder / digest)
    return digest


def read_snapshot(pointer: FeedbackPointer, root: Path = Path()) -> list[Reaction]:
    """The rows a pointer names, checked against its digest. Raises SnapshotError: they are not here, or not those."""
    if pointer.digest is None:
        return []
    folder = root / layout.FEEDBACK_SNAPSHOTS / pointer.digest
    if not holds(folder, pointer.digest):
        raise SnapshotError(
            f"{folder} is missing or differs from its digest; `flywheel nightly` takes the snapshot again"
        )
    return read_own_jsonl(folder / ROWS, Reaction)


def clean(
    reactions: Sequence[Reaction],
    settings: FeedbackParams,
    since: int,
    language: str,
    system: str = "",
    held: Collection[int] = (),
) -> Cleaned:
    """Corrections, preference pairs and signals of a snapshot, in the order they were given.

    What was said in nights after `since` is new; of the nights `held` nothing is learnt. `system` is the domain's own
    prompt: what a client had put after it stays with the correction.
    """
    cleaned, worth = Cleaned(), list[tuple[Reaction, Example | Preference]]()
    ordered = sorted(reactions, key=lambda row: row.seq)
    latest = {_subject(row): row.seq for row in ordered}
    for row in ordered:
        if row.kind in ("thumb", "rating", "comment"):
            cleaned.signals.append(row.model_copy(update={"text": _mask(row.text, cleaned)}))
            continue
        made = _example(row, language, system, cleaned) if row.kind == "correction" else _preference(row, cleaned)
        reason = _useless(row, made, latest[_subject(row)] == row.seq)
        if not reason and row.night in held:
            reason = "held: a person rolled back what had learnt it"
        if made is None or reason:
            _drop(row, made, reason, cleaned)
        else:
            worth.append((row, made))
    _keep(_within_cap(worth, settings.max_rows_per_identity, cleaned), since, cleaned)
    places = {row.id: place for place, row in enumerate(ordered)}
    cleaned.receipts.sort(key=lambda receipt: places[receipt.detail])
    return cleaned


def _subject(row: Reaction) -> tuple[str, str, str]:
    """Who says what kind of thing about what: of several such rows the last one counts."""
    return row.identity, row.kind, row.draft if row.kind == "choice" else row.answer_id


def _useless(row: Reaction, made: Example | Preference | None, newest: bool) -> str:
    if made is None:
        return "its conversation does not end with a question"
    if not newest:
        return f"superseded by a later {row.kind} of the same answer"
    if isinstance(made, Example):
        return "the same as the answer it corrects" if uncited(row.text) == uncited(row.answer) else ""
    if {row.finish_reason, row.other_finish_reason} != {"stop"}:
        return "an answer of the choice was cut"
    if not made.chosen.strip() or not made.rejected.strip():
        return "an answer of the choice is empty"
    return "both answers of the choice are the same" if made.chosen == made.rejected else ""


def _within_cap(
    worth: Sequence[tuple[Reaction, Example | Preference]], cap: int, cleaned: Cleaned
) -> list[tuple[Reaction, Example | Preference]]:
    counts: Counter[tuple[str, int, str]] = Counter()
    kept = []
    for row, made in reversed(worth):
        counts[row.identity, row.night, row.kind] += 1
        if counts[row.identity, row.night, row.kind] <= cap:
            kept.append((row, made))
        else:
            _drop(row, made, f"more than {cap} rows of one identity in one night", cleaned)
    return kept[::-1]


def _keep(worth: Sequence[tuple[Reaction, Example | Preference]], since: int, cleaned: Cleaned) -> None:
    """What is learnt from, oldest first; a correction that is given again is as new as its last time."""
    examples: dict[str, tuple[Reaction, Example]] = {}
    for row, made in worth:
        if isinstance(made, Preference):
            cleaned.preferences.append(made)
            cleaned.new_preferences += [made.id] if row.night > since else []
            continue
        repeat = examples.pop(made.id, None) is not None
        examples[made.id] = row, made
        reason = "repeat of another correction" if repeat else "corrected by a user"
        cleaned.receipts.append(Receipt(example_id=made.id, stage=STAGE, kept=True, reason=reason, detail=row.id))
    cleaned.examples = [example for _, example in examples.values()]
    cleaned.new = [example.id for row, example in examples.values() if row.night > since]
    for row, example in examples.values():
        words = _mask(row.other_words.strip(), cleaned)
        if _letters(words) not in ("", _letters(example.instruction)):
            cleaned.other_words[example.id] = words


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _drop(row: Reaction, made: Example | Preference | None, reason: str, cleaned: Cleaned) -> None:
    if row.kind == "choice":
        cleaned.choices_dropped[reason] += 1
        return
    identity = made.id if made else row.id
    cleaned.receipts.append(Receipt(example_id=identity, stage=STAGE, kept=False, reason=reason, detail=row.id))


def _example(row: Reaction, language: str, system: str, cleaned: Cleaned) -> Example | None:
    """A correction as an example: the last question, the turns before it, and the corrected text as the answer."""
    spoken = [message for message in row.messages if message.role != "system"]
    alternates = [message.role for message in spoken] == ["user", "assistant"] * (len(spoken) // 2) + ["user"]
    if not alternates or not uncited(row.text):
        return None
    pairs = zip(spoken[:-1:2], spoken[1::2], strict=True)
    turns = [Turn(user=_mask(one.content, cleaned), assistant=_mask(two.content, cleaned)) for one, two in pairs]
    return make_example(
        instruction=_mask(spoken[-1].content, cleaned),
        output=_mask(uncited(row.text), cleaned),
        system=_system(row, system, cleaned),
        history=tuple(turns),
        language=language,
        origin="feedback",
        source=(f"feedback:{row.id}", f"answer:{row.answer_id}", f"version:{row.version}", f"night:{row.night}"),
        category="correction",
    )


def _system(row: Reaction, own: str, cleaned: Cleaned) -> str:
    """The system text of a row where it is not the domain's own, else "": what it holds for is learnt under it only."""
    told = "".join(message.content for message in row.messages if message.role == "system")
    if told.strip() == own.strip():
        return ""
    kept = own if own and told.startswith(own) else ""
    return kept + _mask(told.removeprefix(kept), cleaned)


def _preference(row: Reaction, cleaned: Cleaned) -> Preference:
    prompt = tuple(Message(role=m.role, content=_mask(m.content, cleaned)) for m in row.messages)
    source = (f"feedback:{row.id}", f"answer:{row.answer_id}", f"night:{row.night}")
    chosen, rejected = (_mask(uncited(text), cleaned) for text in (row.answer, row.other_answer))
    return make_preference(prompt, chosen, rejected, source)


def _mask(text: str, cleaned: Cleaned) -> str:
    result, kinds = masked(text)
    cleaned.masked.update(kinds)
    return result


def stage() -> str:
    """Write data/feedback; returns what happened, in a sentence."""
    params = load_params()
    pointer = read_feedback_pointer()
    domain, rows = load_domain(params.domain), read_snapshot(pointer)
    cleaned = clean(rows, params.feedback, pointer.since, domain.language, domain.system_text(), pointer.held)
    with fresh_directory(layout.FEEDBACK) as folder:
        write_records(folder / "examples.parquet", cleaned.examples, Example)
        write_jsonl(folder / "preferences.jsonl", cleaned.preferences)
        write_jsonl(folder / "signals.jsonl", cleaned.signals)
        write_records(folder / "receipt.parquet", cleaned.receipts, Receipt)
        write_json(folder / "new.json", sorted(cleaned.new))
        write_json(folder / "new_preferences.json", sorted(cleaned.new_preferences))
        # Beside the words stands which feedback gave them: by such names `flywheel forget` finds a file.
        sources = [one.source[0] for one in cleaned.examples if one.id in cleaned.other_words]
        write_json(folder / f"{OTHER_WORDS}.json", cleaned.other_words | ({OTHER_WORDS: sources} if sources else {}))
        write_json(folder / "facts.json", cleaned.facts())
    return (
        f"{len(cleaned.examples)} corrections, {len(cleaned.new)} of them new, "
        f"{len(cleaned.preferences)} preferences, {len(cleaned.signals)} signals"
    )


if __name__ == "__main__":
    run_stage(STAGE, stage)
