"""From a version, an answer, a correction or an example back to what it was made from, and on to what it taught.

Joins the store (who said what of which answer) with the receipts kept with each version (which example was trained on).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.corpus.forgetting import feedback_behind
from tasks.curate.receipt.stage import find_receipts
from tasks.registry.runs import flatten, text
from tasks.registry.versions import Registry, UnknownVersion, Version, line_of
from tasks.store.answers import feedback_on, get_answer, get_feedback
from tasks.store.schema import AnswerRow, FeedbackRow
from tasks.store.store import Store
from tasks.text.passages import cited

FEEDBACK_STAGE = "feedback"
MOST_SHOWN = 5
DIGESTS = [f"{name}_sha256" for name in ("dvc_lock", "manifest", "data", "base_manifest", "verdict")]


class NothingToTrace(FlywheelError):
    """No answer, feedback, example or version of this id."""


def trace(registry: Registry, store: Store, identity: str, receipt: Path | None = None) -> dict[str, Any]:
    """The story of an answer, a feedback row, an example (its id, or the first 8 characters or more) or a version.

    `receipt` is that of the last run in this checkout, where there is one: it may know examples no version has seen.

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
        if story := trace_example(registry, store, identity.lower(), receipt):
            return {"kind": "example", **story}
        raise NothingToTrace(f"{identity} is no answer, feedback row, example or version here; {unknown}") from None


def lineage(registry: Registry, version: Version) -> dict[str, Any]:
    """Commit, dvc.lock, digests of data and base, params, and a count of the receipt of the training examples."""
    run = registry.client.get_run(version.run_id)
    names = {item.path for item in registry.client.list_artifacts(version.run_id)}
    kept = {name: f"runs:/{version.run_id}/{name}" for name in ("dvc.lock", "receipt.parquet") if name in names}
    trained = [row["trained"] for row in receipt_rows(registry, version)] if "receipt.parquet" in kept else None
    counts = {"rows": len(trained), "trained": sum(trained), "left_out": len(trained) - sum(trained)} if trained else {}
    return {
        "domain": registry.domain,
        "version": version.number,
        "aliases": list(version.aliases),
        "verdict": version.tags.get("verdict"),
        "git_sha": version.tags.get("git_sha"),
        "dirty": version.tags.get("dirty") == "true",
        **{key: version.tags.get(key) for key in (*DIGESTS, "data_snapshot", "inputs_sha256", "prefect_flow_run_id")},
        "mlflow_run_id": version.run_id,
        "dvc_lock": kept.get("dvc.lock"),
        "receipt": kept.get("receipt.parquet"),
        "params": dict(sorted(run.data.params.items())),
        "examples": counts,
    }


def receipt_rows(registry: Registry, version: Version, prefix: str = "") -> list[dict[str, Any]]:
    """The receipt of a version: a row for every example that any stage saw, or those whose id begins with `prefix`."""
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(registry.client.download_artifacts(version.run_id, "receipt.parquet", folder))
        return find_receipts(path, prefix) if prefix else list(pyarrow.parquet.read_table(path).to_pylist())


def lessons(registry: Registry, version: Version) -> dict[str, tuple[str, str]]:
    """Of each correction that a version has learnt, also through those it goes on from: its example, and by whom."""
    learnt: dict[str, tuple[str, str]] = {}
    for one in line_of(registry, version):
        for row in receipt_rows(registry, one):
            learnt |= {correction: (str(row["example_id"]), one.number) for correction in _corrections(row)}
    return learnt


def _corrections(row: dict[str, Any]) -> tuple[str, ...]:
    """Ids of the feedback rows that a trained example comes from."""
    return feedback_behind(row) if row["trained"] else ()


def trace_answer(registry: Registry, store: Store, answer: AnswerRow) -> dict[str, Any]:
    """An answer: who served it, its passages, and the corrections that its version had learnt, the likest first."""
    question = _question(answer)
    version = next((v for v in registry.versions() if v.manifest == answer.digest), None)
    learnt = lessons(registry, version) if version is not None else {}
    behind = [found for correction, by in learnt.items() if (found := _correction(store, correction, *by, question))]
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
        "passages": _passages(answer, receipt_rows(registry, version) if version is not None else []),
        "corrections_learnt": len(behind),
        "corrections": behind[:MOST_SHOWN],
    }


def _passages(answer: AnswerRow, receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an answer was given from, by number: where it comes from, and the examples that its version learnt of it."""
    taught: dict[str, list[str]] = {}
    for row in receipts:
        for source in (row.get("source") or ()) if row["trained"] else ():
            taught.setdefault(source, []).append(row["example_id"])
    places = cited(answer.text, len(answer.passages or ()))
    return [
        {
            "number": place + 1,
            **{name: one[name] for name in ("kind", "source", "question", "score")},
            "cited": place in places,
            "examples": taught.get(one["source"], []),
        }
        for place, one in enumerate(answer.passages or ())
    ]


def _question(answer: AnswerRow) -> str:
    return next((m["content"] for m in reversed(answer.messages) if m["role"] == "user"), "")


def _correction(store: Store, feedback: str, example: str, by: str, question: str) -> dict[str, Any] | None:
    row = get_feedback(store, feedback)
    corrected = get_answer(store, row.answer_id) if row is not None else None
    if row is None or corrected is None:  # forgotten since
        return None
    asked = _question(corrected)
    return {
        "feedback": row.id,
        "example": example,
        "learnt_by_version": by,
        "night": row.night,
        "question": asked,
        "correction": row.text,
        "of_answer": corrected.id,
        "served_by_version": corrected.version,
        "similarity": round(SequenceMatcher(None, question, asked, autojunk=False).ratio(), 3),
    }


def _brief(row: FeedbackRow) -> dict[str, Any]:
    values = {"thumb": row.thumb, "rating": row.rating, "text": row.text, "other_words": row.other_words}
    given = {key: value for key, value in values.items() if value is not None}
    return {"feedback": row.id, "reaction": row.kind, **given, "night": row.night}


def trace_feedback(registry: Registry, store: Store, row: FeedbackRow) -> dict[str, Any]:
    """A reaction: the answer it was about, the night that took it up, the versions that learnt it."""
    answer = get_answer(store, row.answer_id)
    taught = [
        {"version": version.number, "example": receipt["example_id"]}
        for version in registry.versions()
        for receipt in receipt_rows(registry, version)
        if row.id in _corrections(receipt)
    ]
    return {
        **_brief(row),
        "answer": row.answer_id,
        "question": _question(answer) if answer else None,
        "answered": answer.text if answer else None,
        "served_by_version": answer.version if answer else None,
        "learnt_by": taught,
    }


def trace_example(registry: Registry, store: Store, prefix: str, receipt: Path | None = None) -> dict[str, Any] | None:
    """An example: what it says, what each stage did with it when it was last seen, and which versions trained on it.

    What was last seen is the run in this checkout, or else the newest version. Where more examples begin with
    `prefix`, the others are named.
    """
    seen = (
        [("the last run here", row) for row in find_receipts(receipt, prefix)] if receipt and receipt.is_file() else []
    )
    trained: dict[str, list[str]] = {}
    for version in registry.versions():
        for row in receipt_rows(registry, version, prefix):
            seen.append((f"version {version.number}", row))
            if row["trained"]:
                trained.setdefault(row["example_id"], []).append(version.number)
    if not seen:
        return None
    by, row = seen[0]
    identity = row["example_id"]
    return {
        "example": identity,
        "origin": row.get("origin"),  # receipts of older versions tell less
        "source": row.get("source"),
        "instruction": row.get("instruction") or _said(store, row),
        "output": row.get("output"),
        "seen_by": by,
        "last_word": f"{row['last_stage']}: {row['reason']}",
        "story": row["story"],
        "trained_by": trained.get(identity, []),
        "others": sorted({other["example_id"] for _, other in seen} - {identity}),
    }


def _said(store: Store, row: dict[str, Any]) -> str:
    """What a user's correction was about: receipts do not copy it, and it may have been forgotten since."""
    for identity in (step["detail"] for step in row["story"] if step["stage"] == FEEDBACK_STAGE):
        feedback = get_feedback(store, identity)
        answer = get_answer(store, feedback.answer_id) if feedback is not None else None
        if answer is not None:
            return _question(answer)
    return ""


def words(story: dict[str, Any], everything: bool = False, here: Path = layout.PARAMS) -> Iterator[str]:
    """A story in lines for people; of a version's settings only those that differ from `here`, or all of them."""
    if story["kind"] == "example":
        yield from example_words(story)
        return
    if story["kind"] == "version" and not everything and here.is_file():
        own = {key: text(value) for key, value in flatten(yaml.safe_load(here.read_text(encoding="utf-8")))}
        changed = {key: value for key, value in story["params"].items() if own.get(key) != value}
        story = {**story, "params": changed or f"all {len(story['params'])} as in {here.name} here; --all lists them"}
    yield from _lines(story)


def _lines(value: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield f"{indent}{key}"
            yield from _lines(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            yield f"{indent}{key}"
            for entry in item:
                yield from _lines(entry, indent + "    ")
                yield ""
        else:
            shown = ", ".join(map(str, item)) if isinstance(item, list) else item
            yield f"{indent}{key:<24} {'' if shown is None else shown}"


def example_words(story: dict[str, Any]) -> Iterator[str]:
    """The story of an example in lines for people: one a step, what was measured behind it."""
    for key in ("example", "origin", "source", "instruction", "output", "seen_by", "last_word"):
        value = story[key]
        yield f"{key.replace('_', ' '):<12} {', '.join(value) if isinstance(value, list) else value or ''}".rstrip()
    for step in story["story"]:
        score = f" {step['score']:.3g}" if step["score"] is not None else ""
        detail = f" ({step['detail']})" if step["detail"] else ""
        yield f"  {step['stage']:<10} {'kept' if step['kept'] else 'dropped':<8} {step['reason']}{score}{detail}"
    yield f"{'trained by':<12} {', '.join(f'version {number}' for number in story['trained_by']) or 'no version'}"
    if story["others"]:
        yield f"{'also':<12} {', '.join(story['others'])}"
