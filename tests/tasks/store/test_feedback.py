"""Feedback is stored once for each key, on answers that were served to the one who speaks, and on nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.store.answers import ensure_conversation, open_draft
from tasks.store.errors import BadValue, KeyReused, NotADraft, StoreError, UnknownAnswer
from tasks.store.feedback import FeedbackIn, feedback_on, get_feedback, record_feedback
from tasks.store.identities import Identity
from tasks.store.schema import AnswerRow, FeedbackRow
from tasks.store.store import Store

Serve = Callable[..., AnswerRow]
EXAMPLES = itertools.count()


def count(store: Store) -> int:
    with store.read() as session:
        return int(session.execute(text("SELECT count(*) FROM feedback")).scalar_one())


def test_each_kind_is_stored_with_its_value(store: Store, anna: Identity, serve: Serve) -> None:
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    answer = serve(anna, conversation_id=conversation, draft_id=draft, position=1)
    given = [
        FeedbackIn("1", answer.id, "thumb", thumb=-1),
        FeedbackIn("2", answer.id, "rating", rating=5),
        FeedbackIn("3", answer.id, "correction", text="更好的回答"),
        FeedbackIn("4", answer.id, "comment", text=" too long "),
        FeedbackIn("5", answer.id, "choice"),
    ]
    rows = [record_feedback(store, anna, one)[0] for one in given]
    assert feedback_on(store, answer.id) == rows
    assert [(row.key, row.kind, row.thumb, row.rating, row.text) for row in rows] == [
        ("1", "thumb", -1, None, None),
        ("2", "rating", None, 5, None),
        ("3", "correction", None, None, "更好的回答"),
        ("4", "comment", None, None, " too long "),
        ("5", "choice", None, None, None),
    ]
    assert [row.seq for row in rows] == sorted(row.seq for row in rows)
    assert {(row.identity_id, row.night) for row in rows} == {(anna.id, None)}
    assert get_feedback(store, rows[2].id) == rows[2]
    assert get_feedback(store, "fb_none") is None


def test_the_same_post_again_gives_the_stored_row(store: Store, anna: Identity, serve: Serve) -> None:
    post = FeedbackIn("k", serve(anna).id, "thumb", thumb=1)
    first, new = record_feedback(store, anna, post)
    again, newer = record_feedback(store, anna, post)
    assert (new, newer, again, count(store)) == (True, False, first, 1)


def test_a_key_is_good_for_one_content_only(store: Store, anna: Identity, serve: Serve) -> None:
    answer, other = serve(anna), serve(anna)
    post = FeedbackIn("k", answer.id, "rating", rating=4)
    row, _ = record_feedback(store, anna, post)
    for changed in (
        replace(post, rating=5),
        replace(post, answer_id=other.id),
        FeedbackIn("k", answer.id, "comment", text="4"),
    ):
        with pytest.raises(KeyReused):
            record_feedback(store, anna, changed)
    assert feedback_on(store, answer.id) == [row]


def test_an_answer_of_another_is_as_unknown_as_one_that_is_not_there(
    store: Store, anna: Identity, bo: Identity, serve: Serve
) -> None:
    messages = set()
    for answer_id in (serve(bo).id, "ans_forged", "", "' OR 1=1 --"):
        with pytest.raises(UnknownAnswer) as error:
            record_feedback(store, anna, FeedbackIn("k", answer_id, "thumb", thumb=1))
        messages.add(str(error.value))
    assert len(messages) == 1
    assert count(store) == 0


def test_an_answer_that_failed_was_not_served(store: Store, anna: Identity, serve: Serve) -> None:
    with pytest.raises(UnknownAnswer):
        record_feedback(store, anna, FeedbackIn("k", serve(anna, finish_reason="error").id, "thumb", thumb=1))
    assert record_feedback(store, anna, FeedbackIn("k", serve(anna, finish_reason="cancelled").id, "thumb", thumb=-1))[
        1
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "like"}, "kind must be one of"),
    ({"kind": "thumb"}, "needs thumb"),
    ({"kind": "thumb", "thumb": 0}, "thumb must be"),
    ({"kind": "thumb", "thumb": True}, "thumb must be"),
    ({"kind": "thumb", "thumb": 1, "text": "so"}, "has no text"),
    ({"kind": "rating", "rating": 6}, "from 1 to 5"),
    ({"kind": "rating", "rating": 4.5}, "whole number"),
    ({"kind": "rating", "rating": 10**30}, "from 1 to 5"),
    ({"kind": "correction"}, "needs text"),
    ({"kind": "correction", "text": " \u3000\n"}, "must not be empty"),
    ({"kind": "comment", "text": 7}, "must be text"),
    ({"kind": "choice", "rating": 1}, "has no rating"),
    ({"kind": "thumb", "thumb": 1, "key": ""}, "1 to 200"),
    ({"kind": "thumb", "thumb": 1, "key": "k" * 201}, "1 to 200"),
    ({"kind": "choice"}, "the only one"),
]


def test_what_is_no_feedback_is_refused_by_name(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    for wrong, named in WRONG:
        with pytest.raises((BadValue, NotADraft), match=named):
            record_feedback(store, anna, FeedbackIn(**{"key": "k", "answer_id": answer.id} | wrong))
    assert count(store) == 0


def test_threads_that_post_the_same_key_at_once_store_one_row(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    for key in ("a", "b", "c"):
        post = FeedbackIn(key, answer.id, "correction", text="Better.")
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _, post=post: record_feedback(store, anna, post), range(16)))
        assert sum(new for _, new in results) == 1
        assert len({row.id for row, _ in results}) == 1
    assert len(feedback_on(store, answer.id)) == 3


def test_threads_that_post_other_content_under_one_key_store_one_of_them(
    store: Store, anna: Identity, serve: Serve
) -> None:
    answer = serve(anna)

    def post(rating: int) -> str:
        try:
            record_feedback(store, anna, FeedbackIn("k", answer.id, "rating", rating=rating))
        except KeyReused:
            return "reused"
        return "stored"

    with ThreadPoolExecutor(5) as pool:
        outcomes = sorted(pool.map(post, (1, 2, 3, 4, 5)))
    assert outcomes == ["reused"] * 4 + ["stored"]
    assert len(feedback_on(store, answer.id)) == 1


POSTS = st.tuples(
    st.sampled_from(["anna", "bo"]),
    st.sampled_from(["k1", "k2", "k3"]),
    st.sampled_from(["of anna", "of bo", "of nobody"]),
    st.integers(1, 2),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posts=st.lists(POSTS, max_size=12))
def test_any_sequence_of_posts_leaves_what_a_dictionary_would(
    store: Store, anna: Identity, bo: Identity, serve: Serve, posts: list[tuple[str, str, str, int]]
) -> None:
    """The model: the first post of a person under a key counts, if it is about an answer served to that person."""
    example = next(EXAMPLES)
    people = {"anna": anna, "bo": bo}
    answers = {"of anna": serve(anna).id, "of bo": serve(bo).id, "of nobody": f"ans_{example}"}
    model: dict[tuple[str, str], tuple[str, int]] = {}
    for name, key, which, rating in posts:
        expected: object
        if (name, key) in model:
            expected = False if model[name, key] == (which, rating) else KeyReused
        elif which != f"of {name}":
            expected = UnknownAnswer
        else:
            model[name, key], expected = (which, rating), True
        assert outcome(store, people[name], f"{example} {key}", answers[which], rating) == expected
    stored = [row for answer_id in answers.values() for row in feedback_on(store, answer_id)]
    assert sorted(map(summary, stored)) == sorted(
        (people[name].id, f"{example} {key}", answers[which], rating) for (name, key), (which, rating) in model.items()
    )


def outcome(store: Store, identity: Identity, key: str, answer_id: str, rating: int) -> object:
    try:
        return record_feedback(store, identity, FeedbackIn(key, answer_id, "rating", rating=rating))[1]
    except StoreError as error:
        return type(error)


def summary(row: FeedbackRow) -> tuple[str, str, str, int | None]:
    return row.identity_id, row.key, row.answer_id, row.rating
