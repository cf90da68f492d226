"""Which training rows an answer owes most to, of the version that gave it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel import rows_behind as module
from flywheel.leave_one_out import NotAsked
from flywheel.rows_behind import nearest, rows_behind
from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.core.records import Example, make_example, write_jsonl
from tasks.core.tables import write_records
from tasks.store.schema import AnswerRow
from tests.preferences import write_adapter


def row(question: str, answer: str, origin: str = "human") -> Example:
    source = ("feedback:f1",) if origin == "feedback" else ("file",)
    return make_example(instruction=question, output=answer, origin=origin, source=source, language="en")


ROWS = [
    row("Who pays?", "The client pays."),
    row("谁来付钱?", "业主付钱。"),
    *[row("Who pays for the roof?", "The client pays.", "feedback")] * 3,
    row("Hello", "Zebras.", "general"),
]


@pytest.fixture
def version(root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A two-layer version in models/package with the rows it was trained on; returns its digest."""
    (tmp_path / ".flywheel").mkdir()
    for name in ("infra", "domains", "params.yaml", ".flywheel/packages"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    layout.BASE_MODEL.mkdir(parents=True)
    for path in tiny_model.iterdir():
        if path.name != "MANIFEST.json":
            (layout.BASE_MODEL / path.name).hardlink_to(path)
    base = write_manifest(layout.BASE_MODEL)
    write_adapter(layout.PACKAGE / "adapter", tiny_model, scale=0.2)
    write_json(layout.PACKAGE / "base.json", {"digest": base})
    write_json(layout.PACKAGE / "prompt.json", {"system": "Answer."})
    write_jsonl(layout.MIX / "train.jsonl", ROWS)
    write_records(layout.INGEST / "safety.parquet", [], Example)
    return write_manifest(layout.PACKAGE)


def answer(digest: str) -> AnswerRow:
    asked = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Who pays?"}]
    nothing = dict.fromkeys(
        ("prompt_tokens", "completion_tokens", "first_token_ms", "latency_ms", "draft_id", "position")
    )
    said = {"messages": asked, "text": "The client pays.", "version": "7", "digest": digest, "who": "champion"}
    where = {"id": "chatcmpl-1", "conversation_id": "c", "identity_id": "i", "domain": "construction"}
    rest = {"prompt_sha256": "", "finish_reason": "stop", "created_at": datetime.now(UTC)}
    return AnswerRow(**where, **said, **rest, **nothing)


@pytest.mark.slow
def test_the_row_that_says_the_same_pulls_most_and_tells_how_often_it_was_seen(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is the answer to the letter, under the same prompt: its cosine is 1."""
    monkeypatch.setattr(module, "SHOWN", 1)
    first, last = rows_behind(answer(version))
    assert (first["question"], first["influence"]) == ("Who pays?", pytest.approx(1.0, abs=1e-3))
    assert last["influence"] < 0.9
    monkeypatch.setattr(module, "SHOWN", 2)
    assert {one["question"]: one["times"] for one in rows_behind(answer(version))}["Who pays for the roof?"] == 3


def test_an_answer_of_another_version_is_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(NotAsked, match=r"version 7 gave chatcmpl-1, .* then `dvc checkout`"):
        rows_behind(answer("0" * 64))


def test_the_nearest_rows_are_those_with_most_characters_in_common_in_any_writing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ASKED", 1)
    assert nearest(ROWS, "谁付钱?") == [ROWS[1]]
    assert nearest(ROWS, "Who pays for roofs?") == ROWS[2:5]
