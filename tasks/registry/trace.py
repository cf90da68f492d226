"""From an answer back to the corrections behind it, and from a correction or an example to what it taught.

Joins the store (who said what of which answer) with the receipts kept with each version (which example was trained on).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from tasks.errors import FlywheelError
from tasks.registry.lineage import lineage, receipt_rows
from tasks.registry.versions import Registry, UnknownVersion, Version
from tasks.store.answers import AnswerRecord, get_answer
from tasks.store.feedback import FeedbackRow, feedback_on, get_feedback
from tasks.store.store import Store

FEEDBACK_STAGE = "feedback"
MOST_SHOWN = 5


class NothingToTrace(FlywheelError):
    """No answer, feedback, example or version of this id."""


@dataclass(frozen=True)
class Lesson:
    """A correction that a version was trained on."""

    feedback_id: str
    example_id: str
    version: str


def trace(registry: Registry, store: Store, identity: str) -> dict[str, Any]:
    """The story of an answer, a feedback row, an example (its id, or the first 8 characters or more) or a version.

    Raises:
        NothingToTrace: there is nothing of this id.
    """
    if found := get_answer(store, identity):
        return {"kind": "answer", **trace_answer(registry, store, found)}
    if row := get_feedback(store, identity):
        return {"kind": "feedback", **trace_feedback(registry, store, row)}
    try:
        return {"kind": "version", **lineage(registry, registry.get(identity))}
    except UnknownVersion as unknown:
        if story := trace_example(registry, identity):
            return {"kind": "example", **story}
        raise NothingToTrace(f"{identity} is no answer, feedback row, example or version here; {unknown}") from None


def lessons(registry: Registry, version: Version) -> list[Lesson]:
    """Every correction that a version has learnt, also through the versions it goes on from."""
    known = {v.number: v for v in registry.versions()}
    learnt: dict[str, Lesson] = {}
    chain: Version | None = version
    while chain is not None:
        for row in receipt_rows(registry, chain):
            for said in _corrections(row):
                learnt[said] = Lesson(said, str(row["example_id"]), chain.number)
        chain = known.get(chain.tags.get("continues", ""))
    return list(learnt.values())


def _corrections(row: dict[str, Any]) -> list[str]:
    """Ids of the feedback rows that a trained example comes from."""
    if not row["trained"]:
        return []
    return [str(step["detail"]) for step in row["story"] if step["stage"] == FEEDBACK_STAGE and step["kept"]]


def trace_answer(registry: Registry, store: Store, answer: AnswerRecord) -> dict[str, Any]:
    """An answer: who served it, and the corrections that its version had learnt, the likest question first."""
    question = _question(answer)
    version = next((v for v in registry.versions() if v.manifest == answer.digest), None)
    behind = []
    for lesson in lessons(registry, version) if version is not None else []:
        if corrected := _correction(store, lesson, question):
            behind.append(corrected)
    behind.sort(key=lambda item: (-item["similarity"], item["feedback"]))
    return {
        "answer": answer.id,
        "question": question,
        "text": answer.text,
        "version": answer.version,
        "digest": answer.digest,
        "verdict": version.tags.get("verdict") if version else None,
        "git_sha": version.tags.get("git_sha") if version else None,
        "feedback": [_brief(row) for row in feedback_on(store, answer.id)],
        "corrections_learnt": len(behind),
        "corrections": behind[:MOST_SHOWN],
    }


def _question(answer: AnswerRecord) -> str:
    return next((m["content"] for m in reversed(answer.messages) if m["role"] == "user"), "")


def _correction(store: Store, lesson: Lesson, question: str) -> dict[str, Any] | None:
    row = get_feedback(store, lesson.feedback_id)
    corrected = get_answer(store, row.answer_id) if row is not None else None
    if row is None or corrected is None:  # forgotten since
        return None
    asked = _question(corrected)
    return {
        "feedback": row.id,
        "example": lesson.example_id,
        "learnt_by_version": lesson.version,
        "night": row.night,
        "question": asked,
        "correction": row.text,
        "of_answer": corrected.id,
        "served_by_version": corrected.version,
        "similarity": round(SequenceMatcher(None, question, asked, autojunk=False).ratio(), 3),
    }


def _brief(row: FeedbackRow) -> dict[str, Any]:
    values = {"thumb": row.thumb, "rating": row.rating, "text": row.text}
    said = {key: value for key, value in values.items() if value is not None}
    return {"feedback": row.id, "reaction": row.kind, **said, "night": row.night}


def trace_feedback(registry: Registry, store: Store, row: FeedbackRow) -> dict[str, Any]:
    """A reaction: the answer it was about, the night that took it up, the versions that learnt it."""
    answer = get_answer(store, row.answer_id)
    taught = []
    for version in registry.versions():
        for receipt in receipt_rows(registry, version):
            if row.id in _corrections(receipt):
                taught.append({"version": version.number, "example": receipt["example_id"]})
    return {
        **_brief(row),
        "answer": row.answer_id,
        "question": _question(answer) if answer else None,
        "answered": answer.text if answer else None,
        "served_by_version": answer.version if answer else None,
        "learnt_by": taught,
    }


def trace_example(registry: Registry, prefix: str) -> dict[str, Any] | None:
    """An example: what each stage did with it in the newest version that saw it, and which versions trained on it."""
    if len(prefix) < 8:
        return None
    story, trained = None, []
    for version in registry.versions():
        for row in receipt_rows(registry, version):
            if str(row["example_id"]).startswith(prefix):
                story = story or {"example": row["example_id"], "seen_by": version.number, "story": row["story"]}
                trained += [version.number] if row["trained"] else []
    return {**story, "trained_by": trained} if story else None
