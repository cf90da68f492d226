"""From reactions to training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.files import write_json
from tasks.core.params import FeedbackParams
from tasks.core.pointers import FeedbackPointer, SnapshotError, read_feedback_pointer
from tasks.core.records import Example, Message, Reaction, Receipt
from tasks.core.tables import read_records
from tasks.corpus.feedback.stage import clean, read_snapshot, stage, write_snapshot

SETTINGS = FeedbackParams(
    start="champion", max_rows_per_identity=3, repeat=1, learning_rate_share=0.5, replay_examples=1
)


def said(seq: int, **changes: Any) -> Reaction:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content=f"Question {seq}?"))
    fields: dict[str, Any] = {
        "seq": seq, "id": f"f{seq}", "night": 1, "identity": "anna", "kind": "correction", "answer": "Poor answer.",
        "text": f"Better answer {seq}.", "answer_id": f"a{seq}", "messages": messages,
        "version": "1", "digest": "d" * 64,
    }  # fmt: skip
    return Reaction(**fields | changes)


def test_a_correction_becomes_an_example_that_leads_back_to_the_answer() -> None:
    cleaned = clean([said(1)], SETTINGS, since=0, language="en")
    (example,) = cleaned.examples
    assert (example.instruction, example.output, example.origin) == ("Question 1?", "Better answer 1.", "feedback")
    assert example.source == ("feedback:f1", "answer:a1", "version:1", "night:1")
    assert cleaned.new == [example.id]


def test_thumbs_do_not_count_and_the_newest_corrections_are_those_that_stay() -> None:
    """Five thumbs, then four corrections with a cap of three: the first one is beyond it, not that of Bo or later."""
    rows = [*(said(n, kind="thumb", text="", thumb=1) for n in range(5)), *map(said, range(5, 9))]
    cleaned = clean([*rows, said(9, night=2), said(10, identity="bo")], SETTINGS, 0, "en")
    assert [example.instruction for example in cleaned.examples] == [f"Question {n}?" for n in (6, 7, 8, 9, 10)]
    reasons = [receipt.reason for receipt in cleaned.receipts if not receipt.kept]
    assert reasons == ["more than 3 rows of one identity in one night"]
    assert len(cleaned.signals) == 5


def test_rows_that_teach_nothing_do_not_count() -> None:
    """Three superseded ones and one unchanged answer beside three that count: none is beyond the cap of three."""
    rows = [*(said(n, answer_id="a") for n in range(4)), said(4, text="Poor answer."), said(5), said(6)]
    cleaned = clean(rows, SETTINGS, 0, "en")
    assert [example.output for example in cleaned.examples] == [f"Better answer {n}." for n in (3, 5, 6)]
    reasons = [r.reason for r in cleaned.receipts if not r.kept]
    assert reasons.count("superseded by a later correction of the same answer") == 3 == len(reasons) - 1


def test_a_superseded_text_is_not_learnt_where_the_later_one_is_beyond_the_cap() -> None:
    rows = [said(0, answer_id="a"), said(1, answer_id="a", night=2), *(said(n, night=2) for n in range(2, 5))]
    outputs = [example.output for example in clean(rows, SETTINGS, 0, "en").examples]
    assert outputs == ["Better answer 2.", "Better answer 3.", "Better answer 4."]


def test_a_correction_that_is_given_again_is_as_new_as_its_last_time() -> None:
    """Yes, then no, then yes again to one question: yes is the newest, and new to a champion of the first night."""
    asked = {"messages": said(1).messages}
    rows = [said(1, text="Yes.", **asked), said(2, text="No.", **asked), said(3, text="Yes.", night=2, **asked)]
    cleaned = clean(rows, SETTINGS, since=1, language="en")
    assert [example.output for example in cleaned.examples] == ["No.", "Yes."]
    assert cleaned.new == [cleaned.examples[1].id] and cleaned.examples[1].source[0] == "feedback:f3"


@pytest.mark.parametrize("cut", ["length", "cancelled", "error"])
@pytest.mark.parametrize("which", ["finish_reason", "other_finish_reason"])
def test_a_choice_with_a_cut_answer_is_no_preference_and_is_counted(cut: str, which: str) -> None:
    whole = said(1, kind="choice", text="", draft="d", answer="Good.", other_answer="Bad.")
    cleaned = clean(
        [whole, said(2, **whole.model_dump(exclude={"seq", "id", "draft"}) | {which: cut})], SETTINGS, 0, "en"
    )
    assert len(cleaned.preferences) == 1
    assert cleaned.facts()["dropped"] == {"an answer of the choice was cut": 1}


def test_a_clients_system_text_stays_with_its_correction_and_the_domains_own_does_not() -> None:
    """The gateway puts a client's system text after the domain's, with an empty line between."""
    theirs = Message(role="system", content="Be brief.\n\nAnswer for Skåne only; ask anna@example.com.")
    rows = [said(1), said(2, messages=(theirs, said(2).messages[-1])), said(3, messages=said(3).messages[1:])]
    cleaned = clean(rows, SETTINGS, 0, "en", system="Be brief.\n")
    masked = "Be brief.\n\nAnswer for Skåne only; ask <EMAIL>."
    assert [example.system for example in cleaned.examples] == ["", masked, ""]


def test_what_was_said_in_a_held_night_is_not_learnt_unless_it_is_said_again() -> None:
    """Nights 2 and 3 taught a version that was rolled back; of two corrections of night 2 one was given anew."""
    rows = [said(1), said(2, night=2), said(3, night=2, answer_id="a"), said(4, night=4, answer_id="a")]
    cleaned = clean(rows, SETTINGS, since=1, language="en", held=(2, 3))
    assert [example.output for example in cleaned.examples] == ["Better answer 1.", "Better answer 4."]
    assert cleaned.new == [cleaned.examples[1].id]
    assert cleaned.facts()["dropped"] == {
        "held: a person rolled back what had learnt it": 1,
        "superseded by a later correction of the same answer": 1,
    }


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"text": " Poor answer. "}, "the same as the answer it corrects"),
        ({"messages": (Message(role="assistant", content="x"),)}, "its conversation does not end with a question"),
        ({"messages": ()}, "its conversation does not end with a question"),
        ({"text": "  "}, "its conversation does not end with a question"),
    ],
)
def test_what_teaches_nothing_is_dropped_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    cleaned = clean([said(1, **changes)], SETTINGS, 0, "en")
    assert cleaned.examples == [] and [r.reason for r in cleaned.receipts] == [reason]


def test_the_same_correction_by_two_people_is_one_example() -> None:
    same = {"messages": said(1).messages, "text": "Yes."}
    cleaned = clean([said(1, **same), said(2, identity="bo", **same)], SETTINGS, 0, "en")
    assert len(cleaned.examples) == 1 and cleaned.facts()["dropped"] == {}
    assert [receipt.reason for receipt in cleaned.receipts][1] == "repeat of another correction"


def test_the_last_choice_between_two_drafts_is_a_preference_and_the_rest_is_kept_for_later() -> None:
    rows = [
        said(0, kind="choice", text="", draft="d", answer="Bad.", other_answer="Good."),
        said(1, kind="choice", text="", draft="d", answer="Good.", other_answer="Bad."),
        said(2, kind="choice", text="", draft="e", answer="Same.", other_answer="Same."),
        said(3, kind="thumb", text="", thumb=-1, identity="bo"),
        said(4, kind="rating", text="", rating=5, identity="bo"),
    ]
    cleaned = clean(rows, SETTINGS, 0, "en")
    (preference,) = cleaned.preferences
    assert (preference.chosen, preference.rejected) == ("Good.", "Bad.")
    assert [signal.kind for signal in cleaned.signals] == ["thumb", "rating"]


def test_earlier_turns_become_the_history_and_personal_data_is_masked_wherever_it_stands() -> None:
    turns = ("user", "Hello"), ("assistant", "Hi"), ("user", "我的邮箱wang@example.com")
    messages = tuple(Message(role=role, content=text) for role, text in turns)
    cleaned = clean([said(1, messages=messages, text="Mail b@c.se")], SETTINGS, 0, "zh")
    (example,) = cleaned.examples
    assert [(turn.user, turn.assistant) for turn in example.history] == [("Hello", "Hi")]
    assert (example.instruction, example.output) == ("我的邮箱<EMAIL>", "Mail <EMAIL>")
    assert cleaned.facts()["masked"] == {"EMAIL": 2}


@pytest.mark.parametrize(
    "other_words, kept",
    [
        (" May I, asks a@b.se? ", "May I, asks <EMAIL>?"),
        ("", None),
        ("question 1 ?", None),
        ("“QUESTION　1！”", None),
        ("?!", None),
    ],
)
def test_other_words_are_kept_apart_masked_unless_they_are_the_question_itself(
    other_words: str, kept: str | None
) -> None:
    cleaned, plain = (clean([said(1, other_words=words)], SETTINGS, 0, "en") for words in (other_words, ""))
    assert cleaned.other_words == ({cleaned.examples[0].id: kept} if kept else {})
    assert cleaned.examples == plain.examples


@pytest.mark.parametrize("newest, kept", [("Must I?", ["Must I?"]), ("", [])])
def test_of_the_same_correction_given_again_the_newest_words_count(newest: str, kept: list[str]) -> None:
    same = {"messages": said(1).messages, "text": "Yes."}
    rows = [said(1, other_words="May I?", **same), said(2, identity="bo", other_words=newest, **same)]
    assert list(clean(rows, SETTINGS, 0, "en").other_words.values()) == kept


@given(st.permutations([said(n, identity="ab"[n % 2], answer_id=f"a{n // 2}") for n in range(8)]))
def test_the_order_in_which_rows_are_read_does_not_matter(rows: list[Reaction]) -> None:
    wanted = clean(sorted(rows, key=lambda row: row.seq), SETTINGS, 0, "en")
    assert clean(rows, SETTINGS, 0, "en").examples == wanted.examples


def test_a_snapshot_is_found_again_by_its_digest(tmp_path: Path) -> None:
    rows = [said(1), said(2, text="引号“”与换行\n", other_words="换个说法？")]
    digest = write_snapshot(rows, tmp_path)
    assert write_snapshot(rows, tmp_path) == digest
    assert [path.name for path in (tmp_path / layout.FEEDBACK_SNAPSHOTS).iterdir()] == [digest]
    pointer = FeedbackPointer(count=2, digest=digest, watermark=1)
    assert read_snapshot(pointer, tmp_path) == rows
    path = tmp_path / layout.FEEDBACK_SNAPSHOTS / digest / "rows.jsonl"
    assert ["other_words" in line for line in path.read_text().splitlines()] == [False, True], "digests stay"
    path.write_text(path.read_text().replace("Better", "Worse"))
    with pytest.raises(SnapshotError, match="differs from its digest"):
        read_snapshot(pointer, tmp_path)


def test_the_stage_writes_examples_and_receipts_as_tables(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".flywheel").mkdir()
    for name in ("params.yaml", "domains", "infra", ".flywheel/packages"):
        (tmp_path / name).symlink_to(root / name)
    rows = [said(1, other_words="May I?"), said(2, text="Poor answer.")]
    pointer = FeedbackPointer(count=2, digest=write_snapshot(rows, tmp_path), watermark=1)
    write_json(tmp_path / layout.FEEDBACK_POINTER, pointer.model_dump(mode="json"))
    monkeypatch.chdir(tmp_path)
    assert stage() == "1 corrections, 1 of them new, 0 preferences, 0 signals"
    (example,) = read_records(layout.FEEDBACK / "examples.parquet", Example)
    receipts = read_records(layout.FEEDBACK / "receipt.parquet", Receipt)
    assert example.output == "Better answer 1."
    other_words = json.loads((layout.FEEDBACK / "other_words.json").read_text())
    assert other_words == {example.id: "May I?", "other_words": ["feedback:f1"]}
    assert [(receipt.kept, receipt.detail) for receipt in receipts] == [(True, "f1"), (False, "f2")]


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"count": 2, "digest": null, "watermark": null}', "has a digest and a watermark"),
        ('{"count": 0, "rows": 3}', "Extra inputs"),
        ("{", "Invalid JSON"),
    ],
)
def test_a_pointer_that_is_wrong_says_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / layout.FEEDBACK_POINTER
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(SnapshotError, match=problem):
        read_feedback_pointer(tmp_path)


def test_the_embedded_default_is_no_feedback(root: Path) -> None:
    assert json.loads((root / layout.FEEDBACK_POINTER).read_text())["count"] == 0
    assert read_snapshot(read_feedback_pointer(root), root) == []
