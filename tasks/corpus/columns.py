"""What the columns of people's tables are called, in the languages that people write them in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# The headings that people give to columns, the surest first: a lower one is taken only where no higher one is there.
NAMES = {
    "question": ("question", "questions", "instruction", "prompt", "query", "ask", "input", "q")
    + ("fråga", "frågor", "fraga", "frage", "fragen", "spørgsmål", "spørsmål", "vraag", "pregunta", "pergunta")
    + ("domanda", "kysymys", "вопрос", "问题", "提问", "问", "問題", "質問", "질문"),
    "answer": ("correct answer", "right answer", "best answer", "reference answer", "answer", "answers")
    + ("response", "output", "reply", "completion", "svar", "antwort", "antworten", "réponse", "respuesta")
    + ("resposta", "risposta", "antwoord", "vastaus", "ответ", "标准答案", "正确答案", "参考答案", "答案", "回答")
    + ("答复", "答", "답변", "a"),
    "input": ("context", "passage", "background", "input", "kontext", "sammanhang", "contexte", "contexto")
    + ("上下文", "背景", "材料", "原文"),
    "system": ("system", "system prompt", "系统提示"),
    "history": ("history",),
    "category": (
        "category",
        "topic",
        "subject",
        "tag",
        "kategori",
        "ämne",
        "kategorie",
        "thema",
        "类别",
        "分类",
        "主题",
    ),
    "sources": ("sources", "source", "reference", "references", "källa", "källor", "quelle", "quellen")
    + ("来源", "出处", "依据"),
    "id": ("id", "nr", "no", "number", "编号", "序号"),
}


def heading(name: str) -> str:
    """A column's name as headings are compared: case, space, remarks in brackets and marks at its end left out."""
    plain = re.sub(r" #\d+$", "", unicodedata.normalize("NFKC", name).casefold())  # the number of one among several
    plain = re.sub(r"[(\[（【].*", "", plain, flags=re.DOTALL)
    return re.sub(r"[\s_-]+", " ", plain).strip(" ?:.*#")


def named(names: Iterable[str]) -> dict[str, str]:
    """Which of these columns is called as what in NAMES; a key that none is called as is left out."""
    found: dict[str, str] = {}
    headings = {heading(name): name for name in reversed([*names])}
    for key, known in NAMES.items():
        ranked = (headings[word] for word in known if word in headings)
        if name := next((name for name in ranked if name not in found.values()), ""):
            found[key] = name
    return found
