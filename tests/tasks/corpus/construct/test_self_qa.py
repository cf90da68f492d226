"""Self-QA: which passages are drawn, which questions are asked, which answers are kept; with a teacher that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.files import digest_of
from tasks.core.records import Document
from tasks.corpus.construct.self_qa import Chunk, Passage, SelfQa, chunk
from tests.construct_root import document
from tests.said_teacher import SaidTeacher, at_work

PARAMS = {"questions_per_chunk": 3, "min_groundedness": 0.7}
FEE = Passage("book/a.txt#0-60", "The fee of a building permit is 1,000 kronor in this town.")
ROAD = Passage("法/1#0-20", "行人不得进入高速公路，违反的罚款五十元。")


def made_of(teacher: SaidTeacher, root: Path, passage: Passage = FEE, language: str = "en") -> SelfQa:
    method = at_work(SelfQa, root, teacher, language, **PARAMS)
    method.build([passage])
    return method


def passages(root: Path, documents: list[Document], count: int, seed: int = 1) -> tuple[list[Passage], int]:
    """The passages drawn of halves of documents, and how many were too short."""
    method = at_work(SelfQa, root, seed=seed, chunks=count)
    return method.passages(documents, halves), method.skipped["passage too short"]


def halves(doc: Document) -> list[Chunk]:
    middle = len(doc.text) // 2
    return [Chunk(0, middle, doc.text[:middle]), Chunk(middle, len(doc.text), doc.text[middle:])]


def test_a_grounded_answer_is_kept_with_its_passage_and_its_span(root: Path) -> None:
    def say(asked: str) -> str:
        return "The fee is 1,000 kronor." if "Question: What" in asked else "1. What is the fee of a building permit?"

    teacher = SaidTeacher(say)
    made = made_of(teacher, root)
    (example,) = made.examples
    assert (example.instruction, example.output) == (
        "What is the fee of a building permit?",
        "The fee is 1,000 kronor.",
    )
    assert (example.evidence, example.source, example.origin) == (FEE.text, (FEE.source,), "self_qa")
    assert made.receipts[0].score == made.scores[0] == 1.0
    # A worked example, then the passage; the question is asked with the passage too.
    assert [message.role for message in teacher.asks[0].messages] == ["user", "assistant", "user"]
    assert FEE.text in teacher.asks[1].messages[-1].content


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("It is 2,000 kronor.", "not grounded"),
        ("A lawyer can tell you everything about contracts.", "not grounded"),
        ("The fee of a building permit", "answer repeats the question"),
        ("NOT IN THE PASSAGE", "refused"),
        ("", "empty reply"),
    ],
)
def test_an_answer_that_cannot_be_used_is_dropped_with_its_reason(root: Path, answer: str, reason: str) -> None:
    question = "What is the fee of a building permit?"
    made = made_of(SaidTeacher(lambda asked: answer if "Question:" in asked else question), root)
    assert made.examples == []
    assert [(dropped.reason, dropped.instruction) for dropped in made.dropped] == [(reason, question)]
    assert made.receipts[0].reason == f"self_qa: {reason}"
    assert made.summary()["yield"] == 0.0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("There is a fee.", "no question in the reply"),
        ("", "questions: empty reply"),
        ("What does the passage say?", "question hangs on its passage"),
        ("Why?", "question too short or too long"),
        ("What does it cost to return a book to the town library late?", "question copied from the worked example"),
    ],
)
def test_a_question_that_cannot_be_asked_is_dropped_with_its_reason(root: Path, reply: str, reason: str) -> None:
    teacher = SaidTeacher(lambda asked: reply)
    made = made_of(teacher, root)
    assert [dropped.reason for dropped in made.dropped] == [reason]
    assert len(teacher.asks) == 1


def test_a_question_is_asked_once_and_no_more_than_are_wanted(root: Path) -> None:
    listed = "1. How much is it?\n2. how much is it ?\n3. Who has to pay it?\n4. When does one pay?"
    teacher = SaidTeacher(lambda asked: "kronor" if "Question:" in asked else listed)
    made = made_of(teacher, root)
    assert len(teacher.asked("Question:")) == 2
    assert [dropped.reason for dropped in made.dropped if "already" in dropped.reason] == ["question asked already"]


def test_chinese_passages_are_asked_about_in_chinese(root: Path) -> None:
    teacher = SaidTeacher(lambda asked: "行人不得进入高速公路。" if "问题：" in asked else "1、谁不得进入高速公路？")
    made = made_of(teacher, root, ROAD, "zh")
    assert [example.output for example in made.examples] == ["行人不得进入高速公路。"]
    assert "段落" in teacher.asks[0].messages[0].content


def test_the_title_is_part_of_the_passage_but_not_of_its_span(root: Path) -> None:
    (first, _), short = passages(root, [document("a.txt", "words and words " * 12, title="Fees")], 2)
    assert first.text.startswith("Fees\n")
    assert first.source.startswith("book/a.txt#")
    assert short == 0


def test_passages_with_nothing_to_ask_about_are_counted_and_left_out(root: Path) -> None:
    drawn, short = passages(root, [document("a.txt", "Page 3\n\n- 4 -")], 5)
    assert (drawn, short) == ([], 2)


@given(st.integers(0, 99), st.integers(1, 12), st.integers(0, 11))
def test_one_more_document_moves_no_drawn_passage_but_the_ones_it_replaces(
    root: Path, seed: int, count: int, new: int
) -> None:
    documents = [document(f"{n}.txt", f"A text of number {n} and more words. " * 5) for n in range(12)]
    before, _ = passages(root, documents[:new] + documents[new + 1 :], count, seed)
    after, _ = passages(root, documents, count, seed)
    kept = [passage for passage in after if not passage.source.startswith(f"book/{new}.txt")]
    assert kept == before[: len(kept)]


def whole(text: str) -> Document:
    return Document(id=digest_of(text), name="law/x.txt", text=text, sha256=digest_of("file"))


def letters(text: str, **_: Any) -> dict[str, Any]:
    """A tokenizer with one token a character."""
    return {"offset_mapping": [(place, place + 1) for place in range(len(text))]}


def octets(text: str, **_: Any) -> dict[str, Any]:
    """A tokenizer with one token a byte of UTF-8."""
    return {"offset_mapping": [(place, place + 1) for place, c in enumerate(text) for _ in c.encode()]}


@pytest.mark.parametrize(
    "text, tokenize, sizes, cut",
    [
        # `One is here.` ends at 12; the next 20 letters from 13 reach into the third sentence.
        ("One is here. Two is there. Three is.", letters, (20, 0), ["One is here.", "Two is there.", "Three is."]),
        # 20 letters reach the full stop behind `B b.` (at 18), the paragraph ends at 13, in the last half.
        ("A long para\n\nB b. Ccccccc ccc.", letters, (20, 0), ["A long para", "B b. Ccccccc ccc."]),
        ("Aaa aaa. Bb. Ccc ccc. Ddd ddd.", letters, (22, 11), ["Aaa aaa. Bb. Ccc ccc.", "Ccc ccc. Ddd ddd."]),
        ("行人应当靠右行走。没有人行道！", octets, (30, 0), ["行人应当靠右行走。", "没有人行道！"]),
        ("a" * 25, letters, (10, 0), ["a" * 10, "a" * 10, "a" * 5]),
        ("😀😀", octets, (2, 0), ["😀", "😀"]),  # a character of more tokens than a passage is not cut
    ],
)
def test_passages_are_whole_sentences_and_paragraphs_where_they_fit(
    text: str, tokenize: Any, sizes: tuple[int, int], cut: list[str]
) -> None:
    found = chunk(whole(text), tokenize, *sizes)
    assert [c.text for c in found] == cut == [text[c.start : c.end] for c in found]


def test_an_overlap_as_long_as_the_passage_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap 8 must be below tokens 8"):
        chunk(whole("x"), letters, tokens=8, overlap=8)


TEXTS = st.text(st.sampled_from("ab 。.\n字😀!"), max_size=120)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 30), st.data(), st.sampled_from([letters, octets]))
def test_passages_hold_all_text_in_order_and_their_spans_are_exact(
    text: str, tokens: int, data: st.DataObject, tokenize: Any
) -> None:
    overlap = data.draw(st.integers(0, tokens - 1))
    found = chunk(whole(text), tokenize, tokens, overlap)
    covered: set[int] = set()
    for one, following in zip(found, [*found[1:], None], strict=False):
        assert text[one.start : one.end] == one.text == one.text.strip() != ""
        used = len(tokenize(one.text)["offset_mapping"])
        assert used <= tokens or len(one.text) == 1
        covered |= set(range(one.start, one.end))
        if following:
            assert one.start < following.start and one.end < following.end
            assert len(tokenize(text[following.start : one.end])["offset_mapping"]) <= overlap
    assert covered >= {place for place, character in enumerate(text) if not character.isspace()}
