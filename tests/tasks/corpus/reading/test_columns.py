"""Columns are known by their headings, in several languages."""

from __future__ import annotations

import pytest

from tasks.corpus.reading.columns import named


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
        (["question", "answer", "goldAnswer"], {"question": "question", "answer": "goldAnswer"}),
        (["Question", "Answer ID", "Answer Text"], {"question": "Question", "answer": "Answer Text"}),
        (["Fråga", "Gammalt svar", "Nytt svar"], {"question": "Fråga", "answer": "Nytt svar"}),
        (
            ["Pregunta", "Respuesta incorrecta", "Respuesta correcta"],
            {"question": "Pregunta", "answer": "Respuesta correcta"},
        ),
        (["问题", "备注", "客服回复"], {"question": "问题", "answer": "客服回复"}),
        (["question", "answer (old)", "answer (new)"], {"question": "question", "answer": "answer (new)"}),
        (["Fråga", "Ansvar"], {"question": "Fråga"}),
        (["We had no good answer"], {}),
    ],
)
def test_columns_are_called_by_the_surest_name(columns: list[str], mapped: dict[str, str]) -> None:
    assert named(columns) == mapped
