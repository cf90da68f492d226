"""The gateway's light reading of the tokenizer against the one that trained the model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ServiceError
from serving.prompt_checks import Wanted, checked_prompt, with_system
from tasks.core.params import load_params
from tasks.text.prompts import PromptBook, TokenizerMissing


@pytest.fixture(scope="module")
def book(base_model: Path) -> PromptBook:
    return PromptBook(base_model)


def test_the_bound_without_tokenising_is_never_above_the_count(book: PromptBook) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=300) | st.text(alphabet=" \n-=", max_size=600))
    def check(text: str) -> None:
        assert book.at_least(text) <= book.count(text)

    check()


def test_a_prompt_that_is_too_long_by_its_length_alone_is_never_tokenised(
    book: PromptBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptBook, "count", lambda *_: pytest.fail("it was tokenised"))
    wanted = Wanted([{"role": "user", "content": "x" * 200_000}])
    with pytest.raises(ServiceError, match="at least"):
        asyncio.run(checked_prompt(book, load_params().serving, wanted, "Be brief."))


def test_a_clients_system_message_is_appended_where_the_setting_says_so() -> None:
    theirs = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    merged = with_system(theirs, "Be brief.", "append")
    assert merged == [{"role": "system", "content": "Be brief.\n\nBe kind."}, {"role": "user", "content": "Hi"}]
    with pytest.raises(ServiceError, match="comes first"):
        with_system(theirs[::-1], "Be brief.", "append")
    with pytest.raises(ServiceError, match="its own system prompt"):
        with_system(theirs, "Be brief.", "refuse")


def test_a_missing_base_model_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(TokenizerMissing, match="dvc repro base_model"):
        PromptBook(tmp_path)
