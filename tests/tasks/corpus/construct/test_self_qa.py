"""Self-QA: which passages are drawn, which questions are asked, which answers are kept; with a teacher that is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.files import digest_of
from tasks.core.records import Document, Turn
from tasks.corpus.construct.self_qa import Chunk, Passage, SelfQa, chunk
from tasks.corpus.teacher.teacher import Reply
from tests.construct_root import document
from tests.said_teacher import SaidTeacher, at_work, said_items

PARAMS: dict[str, Any] = {"questions_per_chunk": 3, "turns": 1, "min_groundedness": 0.7}
FEE = Passage("book/a.txt#0-60", "The fee of a building permit is 1,000 kronor in this town.")
ROAD = Passage("法/1#0-20", "行人不得进入高速公路，违反的罚款五十元。")


QUESTION, ANSWER = "What is the fee of a building permit?", "The fee is 1,000 kronor."
PAIR = (QUESTION, ANSWER)
# Characters of a request in prompts/en.yaml: its text twice, without a passage; the worked passage; its two pairs.
AROUND = 2 * 365 + 204 + 315


def made_of(reply: str | Reply, root: Path, passage: Passage = FEE, language: str = "en", **changes: Any) -> SelfQa:
    method = at_work(SelfQa, root, SaidTeacher(lambda asked: reply), language, **(PARAMS | changes))
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
    made = made_of(said_items(PAIR), root)
    (example,) = made.examples
    assert (example.instruction, example.output, example.history) == (QUESTION, ANSWER, ())
    assert (example.evidence, example.source, example.origin) == (FEE.text, (FEE.source,), "self_qa")
    assert made.receipts[0].score == made.scores[0] == 1.0


@pytest.mark.parametrize("wanted", [1, 9])
def test_a_passage_is_sent_once_however_many_questions_are_wanted(root: Path, wanted: int) -> None:
    teacher = SaidTeacher(lambda asked: said_items(PAIR))
    at_work(SelfQa, root, teacher, **(PARAMS | {"questions_per_chunk": wanted})).build([FEE, ROAD])
    # Two passages, two requests, of a passage and what stands around it.
    sizes = [sum(len(message.content) for message in ask.messages) for ask in teacher.asks]
    assert sizes == [AROUND + len(FEE.text), AROUND + len(ROAD.text)]
    for ask, passage in zip(teacher.asks, (FEE, ROAD), strict=True):
        # A worked example, then the passage.
        assert [message.role for message in ask.messages] == ["user", "assistant", "user"]
        assert passage.text in ask.messages[-1].content
        # Room for as many answers of the 192 tokens in params.yaml.
        assert (ask.fields, ask.max_tokens) == (("question", "answer"), wanted * 192)
        shown = json.loads(ask.messages[1].content)["items"]
        assert [set(pair) for pair in shown] == [set(ask.fields)] * 2


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ((QUESTION, "It is 2,000 kronor."), "not grounded"),
        ((QUESTION, "A lawyer can tell you everything about contracts."), "not grounded"),
        ((QUESTION, "The fee of a building permit"), "answer repeats the question"),
        (("“建设用地规划”指的是什么？", "“建设用地规划”指的是建设用地规划。"), "answer repeats the question"),
        ((QUESTION, "NOT IN THE PASSAGE"), "refused"),
        ((QUESTION, "<b>1,000</b> kronor"), "HTML"),
        ((QUESTION, ""), "empty reply"),
        (("There is a fee of 1,000 kronor.", ANSWER), "not a question"),
        (("What does the passage say?", ANSWER), "question hangs on its passage"),
        (("Why?", ANSWER), "question too short or too long"),
        (
            ("What does it cost to return a book to the town library late?", ANSWER),
            "question copied from the worked example",
        ),
    ],
)
def test_a_pair_that_cannot_be_used_is_dropped_with_its_reason_and_the_other_stays(
    root: Path, pair: tuple[str, str], reason: str
) -> None:
    other = ("Which permit has a fee of 1,000 kronor?", "The building permit has a fee of 1,000 kronor.")
    made = made_of(said_items(pair, other), root)
    assert [(one.instruction, one.output) for one in made.examples] == [other]
    assert [(one.reason, one.instruction, one.output) for one in made.dropped] == [(reason, *pair)]
    assert made.receipts[0].reason == f"self_qa: {reason}"
    assert made.summary()["yield"] == 0.5


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(text="There is a fee.", finish_reason="stop"), "no question in the reply"),
        (Reply(text='{"items": []}', finish_reason="stop"), "no question in the reply"),
        (Reply(text="", finish_reason="stop"), "empty reply"),
        (Reply(text="I'm sorry, I cannot.", finish_reason="stop"), "refused"),
        (Reply(text=said_items(PAIR), finish_reason="content_filter"), "refused"),
        (Reply(text='{"items": [{"question": "What is', finish_reason="length"), "cut short"),
        (Reply(text='{"items": [{"question": "What "is" it?", "answer": "x"}]}', finish_reason="stop"), "not readable"),
        (Reply(error="APITimeoutError: late"), "no reply"),
    ],
)
def test_a_reply_without_a_usable_pair_is_dropped_with_its_reason(root: Path, reply: Reply, reason: str) -> None:
    made = made_of(reply, root)
    assert ([dropped.reason for dropped in made.dropped], made.examples) == ([reason], [])


def test_of_a_reply_that_is_cut_the_whole_pairs_are_kept_and_the_cut_one_is_in_the_quarantine(root: Path) -> None:
    whole = said_items(PAIR, ("Who pays the fee of a permit?", "The builder pays the fee."))
    made = made_of(Reply(text=whole[: whole.index("builder")], finish_reason="length"), root)
    assert [(one.instruction, one.output) for one in made.examples] == [PAIR]
    (cut,) = made.dropped
    assert (cut.reason, cut.output) == ("cut short", '{"question": "Who pays the fee of a permit?", "answer": "The')
    assert cut.source == (FEE.source,)


def test_a_question_is_taken_once_and_no_more_than_are_wanted(root: Path) -> None:
    questions = ("How much is it?", "how much is it ?", "Who has to pay it?", "When does one pay?")
    made = made_of(said_items(*((question, "kronor") for question in questions)), root)
    assert [example.instruction for example in made.examples] == ["How much is it?", "Who has to pay it?"]
    assert [dropped.reason for dropped in made.dropped] == ["question asked already"]
    assert made.summary()["skipped"] == {"more than was asked for": 1}


@pytest.mark.parametrize(
    "reply",
    [
        '```json\n{"items": [{"question": "谁不得进入高速公路？", "answer": "行人不得进入高速公路。"}]}\n```',
        '1. {"问题": "谁不得进入高速公路？", "答案": "行人不得进入高速公路。"}',
        "1、问题：谁不得进入高速公路？\n答案：行人不得进入高速公路。",
    ],
)
def test_chinese_passages_are_asked_about_in_chinese(root: Path, reply: str) -> None:
    teacher = SaidTeacher(lambda asked: reply)
    made = at_work(SelfQa, root, teacher, "zh", **PARAMS)
    made.build([ROAD])
    assert [(one.instruction, one.output) for one in made.examples] == [
        ("谁不得进入高速公路？", "行人不得进入高速公路。")
    ]
    assert "段落" in teacher.asks[0].messages[0].content


FOLLOWED = ("And of what is that the fee?", "It is the fee of a building permit.")


def test_turns_make_one_conversation_of_a_passage(root: Path) -> None:
    teacher = SaidTeacher(lambda asked: said_items(PAIR, FOLLOWED))
    made = at_work(SelfQa, root, teacher, **(PARAMS | {"turns": 2}))
    made.build([FEE, ROAD])
    # As with people's conversations, each answer is learnt in an example of its own, behind what came before.
    assert [(one.instruction, one.output) for one in made.examples] == [PAIR, FOLLOWED]
    assert [one.history for one in made.examples] == [(), (Turn(user=QUESTION, assistant=ANSWER),)]
    # Of the second passage the first question comes again: what follows it goes with it.
    assert [one.reason for one in made.dropped] == ["question asked already", "behind an exchange that cannot be used"]
    assert len(teacher.asks) == 2
    assert "conversation in English of 2 questions" in teacher.asks[0].messages[-1].content


@pytest.mark.parametrize(("turns", "kept"), [([PAIR, ("And who pays that?", "The king.")], [PAIR]), ([PAIR[::-1]], [])])
def test_a_conversation_ends_before_the_first_exchange_that_cannot_be_used(
    root: Path, turns: list[tuple[str, str]], kept: list[tuple[str, str]]
) -> None:
    made = made_of(said_items(*turns, FOLLOWED), root, turns=3)
    assert [(one.instruction, one.output, one.history) for one in made.examples] == [(*pair, ()) for pair in kept]
    assert len(made.dropped) == 2


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
