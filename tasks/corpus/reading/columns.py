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
    "answer": ("correct answer", "right answer", "best answer", "reference answer", "facit", "正解", "ground truth")
    + ("right … answer", "answer", "answers", "response", "output", "reply", "completion", "svar", "antwort")
    + ("antworten", "réponse", "respuesta", "resposta", "risposta", "antwoord", "vastaus", "ответ", "标准答案")
    + ("正确答案", "参考答案", "答案", "回答", "答复", "答", "답변", "solution", "gold", "ideal", "expected", "a")
    + ("… answer",),
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
# Headings that speak of an answer, by one word of at most three, so that few sentences of a table are taken for any.
ANSWER = re.compile(
    r"(\S+ ){0,2}(answers?|response|output|reply|completion|svar|\w*antwort(en)?|antwoord|vastaus|ответ)"
    r"( text| \d+| [a-h])?|(\S+ )?(réponse|respuesta|resposta|risposta)( \w+)?"
    r"|\w{0,6}(答案|回答|回复|答复|答え|답변)[a-h\d]?"
)
RIGHT = re.compile(
    r"gold|expected|accepted|correct|right|best|ideal|reference|approved|verified|rätt|korrekt|riktig|rigtig|richtig|bonne"
    r"|juste|certa|esatta|правильн|正确|标准|参考|正しい"
)
# What is never an answer to learn: one that is wrong or was replaced, a remark, whether an answer is right.
WRONG = re.compile(
    r"\b(wrong|incorrect|rejected|negative|bad|worse|old|previous|outdated|is|notes?|remarks?|comments?"
    r"|fel(aktig\w*)?|feil|forkert|fout|gam(mal|la)\w*|tidigare|kommentar\w*|anteckning\w*|anmärkning\w*|falsche?|alte?|bemerkung\w*"
    r"|remarque|mauvaise|incorrecta|errada|sbagliata|неправильн\w*)\b|错|旧|备注|注释|评论|間違"
)


def heading(name: str) -> str:
    """A column's name as headings are compared: case, space, remarks in brackets and marks at its end left out."""
    return re.sub(r"[(\[（【].*", "", _words(name), flags=re.DOTALL).strip(" ?:.*#)")


def known_as(name: str) -> str:
    """A column's heading as NAMES has it; "" of one that speaks of an answer and is none to learn."""
    word = heading(name)
    if not ANSWER.fullmatch(word):
        return word
    if is_wrong(name):
        return ""
    return word if word in NAMES["answer"] else "right … answer" if RIGHT.search(_words(name)) else "… answer"


def is_wrong(name: str) -> bool:
    """Whether a column holds wrong answers or remarks, by its name, remarks in brackets included."""
    return bool(WRONG.search(_words(name)))


def _words(name: str) -> str:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).casefold()
    return re.sub(r"[\s_-]+", " ", re.sub(r" #\d+$", "", plain))  # the number of one among several


def named(names: Iterable[str]) -> dict[str, str]:
    """Which of these columns is called as what in NAMES; a key that none is called as is left out."""
    found: dict[str, str] = {}
    headings = {known_as(name): name for name in reversed([*names])}
    for key, known in NAMES.items():
        ranked = (headings[word] for word in known if word in headings)
        if name := next((name for name in ranked if name not in found.values()), ""):
            found[key] = name
    return found
