"""What is forgotten is gone from every table, in one transaction, and only hashes of names are left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from tasks.store.answers import FeedbackIn, get_answer, get_feedback, record_feedback
from tasks.store.forgotten import Asked, begun, forget, hashes_of, still_there
from tasks.store.identities import list_identities
from tasks.store.memory import accept, memory_of
from tasks.store.nights import feedback_upto, open_night
from tasks.store.schema import AnswerRow, FeedbackRow, Identity
from tasks.store.store import Store

Serve = Callable[..., AnswerRow]


def sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def correct(store: Store, who: Identity, answer: AnswerRow, words: str) -> FeedbackRow:
    return record_feedback(store, who, FeedbackIn(answer.id, answer.id, "correction", text=words))[0]


def passage(source: str, words: str = "A contract.") -> dict[str, Any]:
    return {"id": "1" * 64, "kind": "question", "question": "What?", "text": words, "source": source, "score": 0.7}


def everything(store: Store) -> str:
    tables = ("identities", "conversations", "answers", "drafts", "feedback", "ledger", "approvals", "forgotten")
    with store.read() as session:
        return str([session.execute(text(f"SELECT * FROM {name}")).all() for name in tables])  # noqa: S608


def test_a_correction_is_gone_from_memory_from_others_answers_and_from_the_next_snapshot(
    store: Store, anna: Identity, bo: Identity, serve: Serve
) -> None:
    said, kept = correct(store, anna, serve(anna), "Said by Anna."), correct(store, bo, serve(bo), "Said by Bo.")
    accept(store, said.id, "rita")
    shown = [passage(f"feedback:{said.id}", "Said by Anna."), passage("faq/1")]
    answer = serve(bo, passages=shown)
    night = open_night(store, "construction", "run")

    counts, names = forget(store, Asked("feedback", said.id, "construction", (said.id,)), "c1", "rita")
    assert counts == {"passages": 1, "feedback": 1}
    hashed = frozenset({sha256(said.id), sha256(f"feedback:{said.id}")})
    assert names == hashes_of(store, "c1") == {"construction": hashed}
    assert get_feedback(store, said.id) is None
    assert [row.id for row, *_ in feedback_upto(store, "construction", night.number)] == [kept.id]
    memory = memory_of(store, "construction", anna.id)
    assert (memory.corrections, memory.forgotten) == ([], hashed)
    assert memory_of(store, "traffic_law", anna.id).forgotten == frozenset()
    row = get_answer(store, answer.id)
    assert row is not None and row.passages == [shown[0] | {"question": "", "text": ""}, shown[1]]
    left = everything(store)
    assert "Said by Bo." in left and "Said by Anna." not in left


def test_a_person_is_gone_with_all_that_was_said_in_every_domain(
    store: Store, anna: Identity, bo: Identity, serve: Serve
) -> None:
    here, there = serve(anna), serve(anna, domain="traffic_law")
    rows = [correct(store, anna, answer, "Said by Anna.") for answer in (here, there)]
    counts, names = forget(store, Asked("identity", "anna", "construction"), "c1", "rita")
    assert counts == {"passages": 0, "identities": 1, "conversations": 2, "answers": 2, "feedback": 2}
    assert names.keys() == {"construction", "traffic_law"} and sha256(rows[1].id) in names["traffic_law"]
    assert [one.name for one in list_identities(store)] == ["bo"]
    left = everything(store)
    assert "Said by Anna." not in left and "anna" not in left
    entry = begun(store, "construction", asked=Asked("identity", "anna", "construction"))
    assert entry is not None and (entry.reason, entry.actor, entry.digest) == ("c1", "rita", sha256("anna"))
    assert entry.detail == {"kind": "identity", "rows": counts} and entry == begun(store, "construction", "c1")
    assert begun(store, "construction", "c2") is None


def test_a_source_takes_the_texts_of_its_parts_and_of_no_other(store: Store, bo: Identity, serve: Serve) -> None:
    kept = [passage(source) for source in ("faq/7", "faq/70", "law/a.pdf#0-9", "law/b.pdf#0-9")]
    answer = serve(bo, passages=kept)
    names = frozenset({"faq/7", "law/a.pdf"})
    forget(store, Asked("source", "faq/7", "construction", names=names), "c1", "rita")
    row = get_answer(store, answer.id)
    assert row is not None and [one["text"] != "" for one in row.passages or ()] == [False, True, False, True]


def test_a_dry_run_counts_the_same_and_changes_nothing(store: Store, anna: Identity, serve: Serve) -> None:
    correct(store, anna, serve(anna), "Said by Anna.")
    asked, before = Asked("identity", "anna", "construction"), everything(store)
    dry = forget(store, asked, "c1", "rita", dry=True)
    assert everything(store) == before and begun(store, "construction", "c1") is None
    assert forget(store, asked, "c1", "rita") == dry


def test_a_failure_in_the_middle_changes_nothing(
    store: Store, anna: Identity, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(store, anna, serve(anna), "Said by Anna.")
    before = everything(store)
    monkeypatch.setattr("tasks.store.forgotten.LedgerEntry", lambda *_: 1 / 0)  # the last that is written
    with pytest.raises(ZeroDivisionError):
        forget(store, Asked("identity", "anna", "construction"), "c1", "rita")
    assert everything(store) == before


def test_what_came_back_with_a_backup_is_said(store: Store, anna: Identity, serve: Serve) -> None:
    said = correct(store, anna, serve(anna), "Said by Anna.")
    answer = serve(anna, passages=[passage("faq/1")])
    found = still_there(store, "identity", sha256("anna"), lambda name: name in (said.id, "faq/1"))
    assert found == [
        "the database: an identity of this name",
        f"the database: feedback {said.id}",
        f"the database: a passage of answer {answer.id}",
    ]
    assert still_there(store, "identity", sha256("bo"), lambda name: False) == []
