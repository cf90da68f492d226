"""An answer is stored once, in a conversation of the one it was served to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.store.answers import ensure_conversation, get_answer, open_draft, record_answer
from tasks.store.errors import BadValue, StoreError, UnknownConversation
from tasks.store.identities import Identity
from tasks.store.schema import AnswerRow
from tasks.store.store import Store

Serve = Callable[..., AnswerRow]


def test_a_conversation_is_made_once_and_found_again(store: Store, anna: Identity) -> None:
    made = ensure_conversation(store, None, anna, "construction")
    assert ensure_conversation(store, made, anna, "construction") == made
    assert ensure_conversation(store, None, anna, "construction") != made


def test_a_conversation_of_another_or_of_nobody_is_refused_in_the_same_words(
    store: Store, anna: Identity, bo: Identity
) -> None:
    made = ensure_conversation(store, None, anna, "construction")
    messages = set()
    for identity, wanted, domain in (
        (bo, made, "construction"),
        (anna, made, "law"),
        *((anna, forged, "construction") for forged in ("conv_0", "", "' OR 1=1 --")),
    ):
        with pytest.raises(UnknownConversation) as error:
            ensure_conversation(store, wanted, identity, domain)
        messages.add(str(error.value))
    assert len(messages) == 1
    with pytest.raises(BadValue):
        ensure_conversation(store, "conv_\x00", anna, "construction")


@pytest.mark.parametrize("changes", [{}, dict.fromkeys(("prompt_tokens", "completion_tokens", "first_token_ms"))])
def test_an_answer_comes_back_as_it_was_and_may_be_stored_again(
    store: Store, anna: Identity, serve: Serve, changes: dict[str, None]
) -> None:
    answer = serve(anna, **changes)
    assert get_answer(store, answer.id) == answer
    record_answer(store, replace(answer))
    with pytest.raises(StoreError, match="another answer"):
        record_answer(store, replace(answer, text="Something else."))
    assert get_answer(store, answer.id) == answer
    assert get_answer(store, "ans_none") is None


def test_an_answer_goes_into_no_conversation_of_another(
    store: Store, anna: Identity, bo: Identity, serve: Serve
) -> None:
    answer = serve(anna)
    for changes in ({"identity_id": bo.id}, {"conversation_id": "conv_x"}, {"domain": "law"}):
        with pytest.raises(UnknownConversation):
            record_answer(store, replace(answer, id="ans_x", **changes))
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
