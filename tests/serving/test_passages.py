"""Answers from a real index: what the engine is sent, what is kept and told, to the public `openai` client too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from serving.passages import annotations_of, sources_of
from serving.prompt_checks import Prompt, with_passages
from tasks.core.records import make_passage
from tasks.knowledge.search import Hit, Knowledge
from tasks.store.answers import get_answer
from tasks.text.passages import answering_words, ask_from, cited
from tasks.text.prompts import PromptBook, prompt_sha256, render
from tests.serving.gateways import DOMAIN, PASSAGES, make_index

QUESTION = "Do I need a permit for a shed?"
FOUND = PASSAGES[:3]
ANSWER = "No permit 😀 is needed [1], whatever [9] says [3][1]."
BARE = ask_from([], "Zzz", answering_words("en"))


@pytest.fixture(scope="module")
def knowing(gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The gateway, whose version has an index; its engine knows the answer by heart."""
    index = make_index(tmp_path_factory.mktemp("index") / "knowledge")
    knowledge = Knowledge(index, gateway.service.prompts.count)
    knowledge.warm()
    gateway.service.follower.stop()  # it would serve the bare base model again
    before = gateway.service.traffic.champion
    gateway.service.traffic.champion = replace(before, knowledge=knowledge)
    yield gateway
    gateway.service.traffic.champion = before


@pytest.fixture
def answering(knowing: Any, plain: Any) -> Any:
    """The stub engine, which answers what it is asked from passages."""
    asked = ask_from(FOUND, QUESTION, answering_words("en"))
    plain.behave(answers={asked: [ANSWER], BARE: ["The material does not say."]})
    return plain


def client_of(gateway: Any) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.keys["ann"], max_retries=0)


def complete(gateway: Any, question: str = QUESTION, **changes: Any) -> Any:
    said: Any = [{"role": "user", "content": question}]
    return client_of(gateway).chat.completions.create(**{"model": DOMAIN, "messages": said} | changes)


def get(gateway: Any, path: str) -> Any:
    return httpx.get(f"{gateway.url}/v1/{path}", headers=gateway.headers()).json()


def test_the_engine_is_asked_as_training_asks_and_the_row_keeps_what_the_user_wrote(
    knowing: Any, answering: Any
) -> None:
    earlier: Any = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    answer = complete(knowing, messages=[*earlier, {"role": "user", "content": QUESTION}])
    asked = answering.seen()["asked"][-1]["messages"]
    assert asked[1:] == [*earlier, {"role": "user", "content": ask_from(FOUND, QUESTION, answering_words("en"))}]
    row = get_answer(knowing.service.storage.store, answer.id)
    assert row is not None and row.messages[1:] == [*earlier, {"role": "user", "content": QUESTION}]
    assert row.prompt_sha256 == prompt_sha256(render(knowing.service.prompts, asked))
    assert row.passages is not None
    assert [passage["id"] for passage in row.passages] == [passage.id for passage in FOUND]
    assert [{**FOUND[0].model_dump(), "score": 0.1}, set(row.passages[0])] == [
        row.passages[0], {"id", "kind", "question", "text", "source", "score"},
    ]  # fmt: skip


def test_sources_and_annotations_come_with_the_answer_and_are_there_later(knowing: Any, answering: Any) -> None:
    reply = complete(knowing)
    [choice] = reply.choices
    assert [(one["number"], one["source"], one["cited"]) for one in choice.sources] == [
        (1, "faq/7", True), (2, "law/pbl.txt#0-344", False), (3, "fb_1", True),
    ]  # fmt: skip
    noted = [note.url_citation for note in choice.message.annotations]
    assert [(choice.message.content[one.start_index : one.end_index], one.title) for one in noted] == [
        ("[1]", "faq/7"), ("[3]", "fb_1"), ("[1]", "faq/7"),
    ]  # fmt: skip
    assert noted[1].url == f"/v1/answers/{reply.id}#source-3"
    assert get(knowing, f"answers/{reply.id}")["sources"] == choice.sources
    [told] = get(knowing, f"conversations/{reply.conversation_id}")["answers"]
    assert (told["sources"], told["question"]) == (choice.sources, QUESTION)
    said: Any = choice.message.model_dump()
    again = complete(knowing, messages=[{"role": "user", "content": QUESTION}, said, {"role": "user", "content": "x"}])
    assert again.choices[0].sources == []


def test_a_stream_ends_with_the_sources_also_for_the_clients_own_helper(knowing: Any, answering: Any) -> None:
    *before, last = list(complete(knowing, stream=True))
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
    assert [one["cited"] for one in last.choices[0].sources] == [True, False, True]
    assert len(last.choices[0].delta.annotations) == 3
    assert not any(hasattr(chunk.choices[0], "sources") for chunk in before)
    said: Any = [{"role": "user", "content": QUESTION}]
    with client_of(knowing).chat.completions.stream(model=DOMAIN, messages=said) as stream:
        whole: Any = stream.get_final_completion().choices[0]
    assert whole.message.content == ANSWER and len(whole.message.annotations) == 3


def test_where_nothing_is_found_the_model_is_told_so(knowing: Any, answering: Any) -> None:
    reply = complete(knowing, "Zzz")
    assert reply.choices[0].message.content == "The material does not say."
    assert (reply.choices[0].sources, reply.choices[0].message.annotations) == ([], [])
    row = get_answer(knowing.service.storage.store, reply.id)
    assert row is not None and row.passages == []


def test_drafts_that_nobody_has_chosen_between_tell_no_sources(knowing: Any, answering: Any) -> None:
    conversation = complete(knowing).conversation_id
    said = [{"role": "user", "content": QUESTION}]
    body = {"model": DOMAIN, "messages": said, "stream": True, "conversation_id": conversation}
    stream = httpx.post(f"{knowing.url}/v1/drafts", headers=knowing.headers(), json=body).text
    assert "faq/7" not in stream
    _, *pair = get(knowing, f"conversations/{conversation}")["answers"]
    assert [draft["sources"] for draft in pair] == [None, None]
    given = {"answer_id": pair[0]["id"], "kind": "choice", "idempotency_key": pair[0]["id"]}
    assert httpx.post(f"{knowing.url}/v1/feedback", headers=knowing.headers(), json=given).status_code == 201
    _, *pair = get(knowing, f"conversations/{conversation}")["answers"]
    assert [len(draft["sources"]) for draft in pair] == [3, 3]


def test_every_search_is_timed(knowing: Any, answering: Any) -> None:
    def count() -> float:
        lines = httpx.get(f"{knowing.url}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("flywheel_retrieval_seconds_count")).split()[1])

    before = count()
    complete(knowing, n=2)
    assert count() == before + 1


def test_without_an_index_the_question_is_sent_as_it_is(knowing: Any, plain: Any, monkeypatch: Any) -> None:
    traffic = knowing.service.traffic
    monkeypatch.setattr(traffic, "champion", replace(traffic.champion, knowledge=None))
    reply = complete(knowing)
    assert plain.seen()["asked"][-1]["messages"][-1]["content"] == QUESTION
    assert (reply.choices[0].sources, reply.choices[0].message.annotations) == (None, [])
    assert get(knowing, f"answers/{reply.id}")["sources"] is None
    assert "sources" not in "".join(chunk.model_dump_json() for chunk in complete(knowing, stream=True))


def test_passages_that_do_not_fit_are_left_away_from_the_last_on_and_no_question_is_refused(base_model: Path) -> None:
    book = PromptBook(base_model)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    plain = Prompt(messages, messages, "", 0)
    hits = [Hit(passage, 1.0) for passage in FOUND]

    def tokens_with(count: int) -> int:
        user = {"role": "user", "content": ask_from(FOUND[:count], QUESTION, answering_words("en"))}
        return book.count(render(book, [messages[0], user]))

    def within(most: int) -> Prompt:
        return asyncio.run(with_passages(book, most, plain, hits, answering_words("en")))

    for count in range(4):
        found = within(tokens_with(count))
        assert (found.tokens, len(found.passages or ())) == (tokens_with(count), count)
        assert found.messages == messages and found.sha256 == prompt_sha256(render(book, found.sent))
    assert within(tokens_with(0) - 1) is plain


@given(st.text(alphabet="[]0123 a😀"))
def test_annotations_cite_what_is_cited_and_nothing_else(text: str) -> None:
    hard = make_passage(kind="document", text="a\0b", source="s").model_dump() | {"score": 1.0}
    passages = [hard | {"source": str(number)} for number in (1, 2)]
    noted = [note["url_citation"] for note in annotations_of("x", text, passages)]
    assert all(text[one["start_index"] : one["end_index"]].strip("[]").lstrip("0") == one["title"] for one in noted)
    sources = sources_of(text, passages)
    assert sources is not None and json.dumps(sources)
    assert {int(one["title"]) - 1 for one in noted} == set(cited(text, 2))
    assert {source["number"] - 1 for source in sources if source["cited"]} == set(cited(text, 2))
