"""Columns are known by their headings, in several languages."""

from __future__ import annotations

import pytest

from tasks.corpus.columns import named


@pytest.mark.parametrize(
    "columns, mapped",
    [
        (["A", "answer", "question"], {"question": "question", "answer": "answer"}),
        (["Fråga (intern)", " SVAR ", "Ämne"], {"question": "Fråga (intern)", "answer": " SVAR ", "category": "Ämne"}),
        (
            ["编号", "问题", "答案：", "上下文"],
            {"id": "编号", "question": "问题", "answer": "答案：", "input": "上下文"},
        ),
        (["input", "output"], {"question": "input", "answer": "output"}),
        (["answer #1", "Question", "answer #2"], {"question": "Question", "answer": "answer #1"}),
        (["question", "distractor", "correct_answer"], {"question": "question", "answer": "correct_answer"}),
        (["context", "question", "answer_start"], {"question": "question", "input": "context"}),
    ],
)
def test_columns_are_called_by_the_surest_name(columns: list[str], mapped: dict[str, str]) -> None:
    assert named(columns) == mapped
