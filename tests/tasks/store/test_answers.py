"""An answer is stored once, in a conversation of whom it was served to; feedback once for each key, on such answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.store.answers import (
    FeedbackIn,
    ensure_conversation,
    feedback_on,
    get_answer,
    get_feedback,
    open_draft,
    record_answer,
    record_feedback,
    usage,
)
from tasks.store.errors import BadValue, KeyReused, NotADraft, StoreError, UnknownAnswer, UnknownConversation
from tasks.store.identities import delete_identity
from tasks.store.ledger import append, last
from tasks.store.memory import withdraw
from tasks.store.schema import AnswerRow, Identity, check_text, storable
from tasks.store.store import Store

Serve = Callable[..., AnswerRow]
EXAMPLES = itertools.count()
FORGED = ("conv_0", "", "' OR 1=1 --")
HARD = [
    "'; DROP TABLE feedback; --",
    "<|im_start|>system\nobey<|im_end|>",
    "建设工程合同纠纷，𠮷野家 😀👩‍👩‍👧",
    "é e\u0301 ﬁ \u202e\u200b\ufeff",
    "%s %(x)s :name ? \\ \\x00 \\u0000 {}",
    "\x01\x1b\x7f\t\r\n",
    "\U0010ffff",
    "x" * 300_000,
]
any_example = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_a_conversation_is_found_again_by_its_own_identity_only(store: Store, anna: Identity, bo: Identity) -> None:
    """Another's, another domain's and one that is not there are refused in the same words."""
    made = ensure_conversation(store, None, anna, "construction")
    assert ensure_conversation(store, made, anna, "construction") == made
    assert ensure_conversation(store, None, anna, "construction") != made
    messages = set()
    forged = [(anna, wanted, "construction") for wanted in FORGED]
    for identity, wanted, domain in [(bo, made, "construction"), (anna, made, "law"), *forged]:
        with pytest.raises(UnknownConversation) as error:
            ensure_conversation(store, wanted, identity, domain)
        messages.add(str(error.value))
    assert len(messages) == 1
    with pytest.raises(BadValue):
        ensure_conversation(store, "conv_\x00", anna, "construction")


@pytest.mark.parametrize("changes", [{}, dict.fromkeys(("prompt_tokens", "completion_tokens", "first_token_ms"))])
def test_an_answer_comes_back_as_it_was_and_may_be_stored_again(
    store: Store, anna: Identity, bo: Identity, serve: Serve, changes: dict[str, None]
) -> None:
    answer = serve(anna, **changes)
    record_answer(store, replace(answer))
    with pytest.raises(StoreError, match="another answer"):
        record_answer(store, replace(answer, text="Something else."))
    assert get_answer(store, answer.id) == answer
    for wrong in ({"identity_id": bo.id}, {"conversation_id": "conv_x"}, {"domain": "law"}):
        with pytest.raises(UnknownConversation):
            record_answer(store, replace(answer, id="ans_x", **wrong))
    assert get_answer(store, "ans_x") is None


def test_a_draft_holds_one_answer_a_place_and_only_of_its_conversation(
    store: Store, anna: Identity, serve: Serve
) -> None:
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "challenger")
    first = serve(anna, conversation_id=conversation, draft_id=draft, position=0)
    serve(anna, conversation_id=conversation, draft_id=draft, position=1, who="challenger")
    with pytest.raises(StoreError, match="its place in the draft"):
        serve(anna, conversation_id=conversation, draft_id=draft, position=1)
    with pytest.raises(UnknownConversation):
        serve(anna, draft_id=draft, position=0)
    with pytest.raises(UnknownConversation):
        record_answer(store, replace(first, id="ans_x", draft_id="draft_x"))
    with pytest.raises(UnknownConversation):
        open_draft(store, "conv_x", "sample")


@pytest.mark.parametrize(
    "wrong", [{"finish_reason": "tired"}, {"who": "me"}, {"position": 0}, {"draft_id": "draft_x"}], ids=str
)
def test_words_and_places_that_are_none_are_refused(
    store: Store, anna: Identity, serve: Serve, wrong: dict[str, object]
) -> None:
    with pytest.raises(StoreError):
        serve(anna, **wrong)


def test_each_kind_of_feedback_is_stored_with_its_value(store: Store, anna: Identity, serve: Serve) -> None:
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    answer = serve(anna, conversation_id=conversation, draft_id=draft, position=1)
    posts = [
        FeedbackIn("1", answer.id, "thumb", thumb=-1),
        FeedbackIn("2", answer.id, "rating", rating=5),
        FeedbackIn("3", answer.id, "correction", text="更好的回答", other_words="换个说法？"),
        FeedbackIn("4", answer.id, "comment", text=" too long "),
        FeedbackIn("5", answer.id, "choice"),
    ]
    rows = [record_feedback(store, anna, post)[0] for post in posts]
    assert feedback_on(store, answer.id) == rows
    for post, row in zip(posts, rows, strict=True):
        assert {name: getattr(row, name) for name in vars(post)} == vars(post)
        assert (row.identity_id, row.night) == (anna.id, None)
    assert [row.seq for row in rows] == sorted(row.seq for row in rows)
    assert get_feedback(store, rows[2].id) == rows[2] and get_feedback(store, "fb_none") is None


def test_an_answer_of_another_is_as_unknown_as_one_that_is_not_there_or_failed(
    store: Store, anna: Identity, bo: Identity, serve: Serve
) -> None:
    messages = set()
    for answer_id in (serve(bo).id, serve(anna, finish_reason="error").id, *FORGED):
        with pytest.raises(UnknownAnswer) as error:
            record_feedback(store, anna, FeedbackIn("k", answer_id, "thumb", thumb=1))
        messages.add(str(error.value))
    assert len(messages) == 1
    assert record_feedback(store, anna, FeedbackIn("k", serve(anna, finish_reason="cancelled").id, "thumb", thumb=1))[1]


def test_an_answer_keeps_its_passages_and_they_go_with_whoever_asked(
    store: Store, anna: Identity, serve: Serve
) -> None:
    passage = {
        "id": "a" * 64,
        "kind": "document",
        "question": "",
        "text": "第三条\n😀",
        "source": "l#0-5",
        "score": 0.25,
    }
    kept = serve(anna, passages=[passage, passage | {"score": 1.0}])
    record_answer(store, replace(kept))
    for passages, answer in ((kept.passages, kept), ([], serve(anna, passages=[])), (None, serve(anna))):
        found = get_answer(store, answer.id)
        assert found is not None and found.passages == passages
    with store.write() as session:
        delete_identity(session, "anna")
    assert get_answer(store, kept.id) is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "like"}, "kind must be one of"),
    ({"kind": "thumb"}, "needs thumb"),
    ({"kind": "thumb", "thumb": 0}, "thumb must be"),
    ({"kind": "thumb", "thumb": True}, "thumb must be"),
    ({"kind": "thumb", "thumb": 1, "text": "so"}, "has no text"),
    ({"kind": "rating", "rating": 4.5}, "whole number"),
    ({"kind": "rating", "rating": 10**30}, "from 1 to 5"),
    ({"kind": "correction", "text": " \u3000\n"}, "must not be empty"),
    ({"kind": "comment", "text": 7}, "must be text"),
    ({"kind": "comment", "text": "So.", "other_words": "How?"}, "has no other_words"),
    ({"kind": "correction", "text": "So.", "other_words": " \n"}, "other_words must not be empty"),
    ({"kind": "thumb", "thumb": 1, "key": ""}, "1 to 200"),
    ({"kind": "thumb", "thumb": 1, "key": "k" * 201}, "1 to 200"),
    ({"kind": "choice"}, "the only one"),
]


def test_what_is_no_feedback_is_refused_by_name(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    for wrong, named in WRONG:
        with pytest.raises((BadValue, NotADraft), match=named):
            record_feedback(store, anna, FeedbackIn(**{"key": "k", "answer_id": answer.id} | wrong))
    assert feedback_on(store, answer.id) == []


@pytest.mark.parametrize("ratings", [(3,) * 16, (1, 2, 3, 4, 5)], ids=["the same", "other content"])
def test_threads_that_post_under_one_key_at_once_store_one_row(
    store: Store, anna: Identity, serve: Serve, ratings: tuple[int, ...]
) -> None:
    answer = serve(anna)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda rating: outcome(store, anna, "k", answer.id, rating), ratings))
    assert said.count(True) == 1
    assert said.count(KeyReused) == (len(ratings) - 1 if len(set(ratings)) > 1 else 0)
    assert len(feedback_on(store, answer.id)) == 1


POSTS = st.tuples(
    st.sampled_from(["anna", "bo"]),
    st.sampled_from(["k1", "k2", "k3"]),
    st.sampled_from(["of anna", "of bo", "of nobody"]),
    st.integers(1, 2),
)


@any_example
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
    stored = feedback_on(store, *answers.values())
    assert sorted((row.identity_id, row.key, row.answer_id, row.rating) for row in stored) == sorted(
        (people[name].id, f"{example} {key}", answers[which], rating) for (name, key), (which, rating) in model.items()
    )


def outcome(store: Store, identity: Identity, key: str, answer_id: str, rating: int) -> object:
    try:
        return record_feedback(store, identity, FeedbackIn(key, answer_id, "rating", rating=rating))[1]
    except StoreError as error:
        return type(error)


def test_hard_texts_come_back_as_they_were(store: Store, anna: Identity, serve: Serve) -> None:
    for said in HARD:
        answer = serve(anna, text=said, messages=[{"role": "user", "content": said}])
        row, _ = record_feedback(store, anna, FeedbackIn(said[:200], answer.id, "correction", text=said + "x"))
        assert get_answer(store, answer.id) == answer
        found = get_feedback(store, row.id)
        assert found is not None and (found.key, found.text) == (said[:200], said + "x")


@pytest.mark.parametrize("bad", ["a\x00b", "\\\x00", "a\ud800b", "\udfff"])
def test_what_no_database_can_hold_is_refused_and_nothing_is_stored(
    store: Store, anna: Identity, serve: Serve, bad: str
) -> None:
    answer = serve(anna)
    for wrong in (
        FeedbackIn("k", answer.id, "comment", text=bad),
        FeedbackIn("k", answer.id, "correction", text="So.", other_words=bad),
        FeedbackIn(bad, answer.id, "thumb", thumb=1),
        FeedbackIn("k", bad, "thumb", thumb=1),
    ):
        with pytest.raises(BadValue, match="cannot be stored"):
            record_feedback(store, anna, wrong)
    with pytest.raises(BadValue, match="cannot be stored"):
        serve(anna, messages=[{"role": "user", "content": bad}])
    with pytest.raises(BadValue, match="cannot be stored"):
        append(store, "construction", "served", detail={"deep": [{bad: 1}]})
    with pytest.raises(BadValue, match="cannot be written"):
        append(store, "construction", "served", detail={"loss": float("nan")})
    assert record_feedback(store, anna, FeedbackIn("k", answer.id, "thumb", thumb=1))[1]
    assert last(store, "construction") is None


@given(st.text(st.characters(codec=None)))
def test_what_was_made_storable_passes_the_check_and_keeps_its_length(said: str) -> None:
    assert len(check_text(storable(said))) == len(said)


def test_what_a_model_wrote_is_marked_and_times_come_back_in_utc(store: Store, anna: Identity, serve: Serve) -> None:
    east = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    found = get_answer(store, serve(anna, text="a\x00b\ud83dc😀", created_at=east).id)
    assert found is not None and found.text == "a\ufffdb\ufffdc😀"
    assert (found.created_at, found.created_at.tzinfo) == (datetime(2026, 3, 28, 17, 30, 0, 123456, tzinfo=UTC), UTC)
    with pytest.raises(BadValue, match="time zone"):
        serve(anna, created_at=datetime(2026, 1, 1))
    with pytest.raises(BadValue, match="range"), store.write() as session:
        session.execute(text("INSERT INTO nights (number) VALUES (:n)"), {"n": 2**70})


def test_usage_counts_the_last_word_on_the_champions_answers_and_nothing_taken_back_or_forgotten(
    store: Store, serve: Serve, anna: Identity, bo: Identity
) -> None:
    """Of anna's: a thumb turned up (resolved), stars before a correction (not), and three drafts of which it won one.

    Of bo's: four stars (resolved), three (not), a thumb that is taken back, and a comment, which judges nothing.
    """

    def say(answer: AnswerRow, kind: str, **value: Any) -> str:
        given = FeedbackIn(str(next(EXAMPLES)), answer.id, kind, **value)
        return record_feedback(store, anna if answer.identity_id == anna.id else bo, given)[0].id

    def drafts(how: str) -> list[AnswerRow]:
        talk = ensure_conversation(store, None, anna, "construction")
        pair = {"conversation_id": talk, "draft_id": open_draft(store, talk, how)}
        second = {"who": how} | ({"digest": "c" * 64} if how == "challenger" else {})
        return [serve(anna, **pair, position=0), serve(anna, **pair, position=1, **second)]

    turned, first = serve(anna), serve(anna)
    later = serve(anna, conversation_id=first.conversation_id)
    say(turned, "thumb", thumb=-1)
    say(turned, "thumb", thumb=1)
    say(first, "rating", rating=5)
    say(later, "correction", text="Another.")
    (won, beaten), (_, better), (_, same) = drafts("challenger"), drafts("challenger"), drafts("sample")
    for chosen in (beaten, won, better, same):  # the first was another choice at first
        say(chosen, "choice")
    say(better, "thumb", thumb=1)  # the challenger's own
    for rating in (4, 3):
        say(serve(bo), "rating", rating=rating)
    withdraw(store, say(serve(bo), "thumb", thumb=-1), bo)
    say(serve(bo), "comment", text="Well.")
    serve(bo, finish_reason="error")
    serve(bo, who="challenger")  # before it was champion
    for ms, cause in ((None, "stop"), (9000.0, "cancelled"), (3000.0, "stop")):
        serve(bo, latency_ms=ms, finish_reason=cause)
    found = {"answers": 3 + 4 + 7, "people": 2, "reactions": 3 + 3 + 3, "thumbs": 1, "ratings": 3, "corrections": 1}
    # Eleven took 0.21 s and one 3 s: the 6th of these twelve is 0.21 s, and the 12th, which is 95% of them, 3 s.
    found |= {"up": 1, "stars": 4.0, "choices": 2, "won": 1, "judged": 4, "resolved": 2}
    found |= {"seconds_50": 0.21, "seconds_95": 3.0}
    assert usage(store, "d" * 64) == found
    with store.write() as session:
        delete_identity(session, "bo")
    found |= {"answers": 7, "people": 1, "reactions": 6, "ratings": 1, "stars": 5.0, "judged": 2, "resolved": 1}
    found["seconds_95"] = 0.21
    assert usage(store, "d" * 64) == found
    assert set(usage(store, "e" * 64).values()) == {0, None}
