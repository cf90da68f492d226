"""Corrections beside an index: asked in the same words always first, in other words where it is the same question."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.records import Passage, make_passage
from tasks.knowledge.corrections import BATCH, CORRECTION
from tasks.knowledge.search import Hit, Knowledge
from tasks.similarity.embedder import SENTENCES, sentence_encoders
from tests.laid_index import MODEL, count, entry, lay_index

CODE = "Which paint colour code does our office use for facade samples?"
OTHER = "What is our office's paint colour code for samples of a facade?"
NEIGHBOUR = "Which paint colour code does our office use for window samples?"
ROWS = [
    entry(1, "May I build a shed?", "Up to 15 square metres."),
    entry(2, "May I paint a facade in another colour?", "Not without a permit, where the look changes much."),
]


def correction(question: str, text: str = "NCS S 2005-Y20R.", number: int = 1) -> Passage:
    return make_passage(kind="correction", question=question, text=text, source=f"feedback:fb_{number}")


def sources(hits: list[Hit]) -> list[str]:
    return [hit.passage.source for hit in hits]


def test_by_words_alone_a_correction_is_found_by_the_same_words_only(tmp_path: Path) -> None:
    index = lay_index(tmp_path, ROWS)
    own = [correction(CODE)]
    same, other = index.search([CODE.upper().rstrip("?"), OTHER], beside=own)
    assert sources(same)[0] == "feedback:fb_1" and same[0].score == CORRECTION
    assert other == index.search([OTHER])[0]
    assert sources(lay_index(tmp_path / "empty", []).search([CODE], beside=own)[0]) == ["feedback:fb_1"]


@pytest.fixture(scope="module")
def index(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    """With the real embedder and its own vectors, and a correction of what nobody asks here."""
    rows = [*ROWS, correction("Who digs a well?", "A driller.", 7)]
    vectors = sentence_encoders(root / MODEL, 32, 1).question([one.whole for one in rows])
    folder = tmp_path_factory.mktemp("index") / "index"
    return lay_index(folder, rows, vectors, root / MODEL, threshold=SENTENCES.answer, word=SENTENCES.word)


def test_a_correction_stands_alone_for_its_question_and_is_not_shown_for_a_neighbouring_one(index: Knowledge) -> None:
    own = [correction(CODE)]
    same, other, neighbour = index.search([CODE, OTHER, NEIGHBOUR], beside=own)
    assert sources(same) == sources(other) == ["feedback:fb_1"]
    assert same[0].score == 1 + CORRECTION > other[0].score > SENTENCES.answer
    assert neighbour == index.search([NEIGHBOUR])[0]
    assert index.search([ROWS[1].question], beside=own)[0][0].passage == ROWS[1]


def test_a_correction_of_an_entry_takes_its_place_and_of_two_the_first_is_taken(index: Knowledge) -> None:
    asked = ROWS[0].question
    newer, older = correction(asked, "Up to 30 square metres.", 2), correction(asked, "Up to 20.", 1)
    [found] = index.search([asked], beside=[newer, older])
    assert sources(found) == ["feedback:fb_2"]
    [searched] = index.search([asked], 2, beside=[newer, older])
    assert sources(searched) == ["feedback:fb_2", "faq/1"]


def test_what_no_wording_was_measured_for_is_the_same_question_in_the_same_words_only(index: Knowledge) -> None:
    strict = Knowledge(index.folder, count)
    strict.settings = index.settings.model_copy(update={"word": 1.0})
    same, other = strict.search([CODE, OTHER], beside=[correction(CODE)])
    assert sources(same)[0] == "feedback:fb_1" and other == strict.search([OTHER])[0]


def test_a_correction_that_the_index_has_is_not_added_and_one_that_was_withdrawn_is_not_found(index: Knowledge) -> None:
    asked = "Who digs a well?"
    again = correction(asked, "A driller, in other words.", 7)
    [found] = index.search([asked], beside=[again])
    assert found == index.search([asked])[0] and sources(found)[0] == "feedback:fb_7"
    whole = "Who digs a well? A driller."
    assert found[0].score == pytest.approx(cosine(index, asked, whole) + CORRECTION, abs=1e-5)
    for most in (0, 9):
        assert "feedback:fb_7" not in sources(index.search([asked], most, withdrawn={"feedback:fb_7"})[0])


def cosine(index: Knowledge, asked: str, whole: str) -> float:
    one, other = sentence_encoders(index.folder / "embedder", 32, 1).question([asked, whole])
    return float(one @ other)


def test_a_correction_that_is_too_long_leaves_the_others_where_they_are(index: Knowledge) -> None:
    asked = ROWS[0].question
    long = correction(asked, "word " * index.settings.tokens)
    assert index.search([asked], beside=[long]) == index.search([asked])


def test_after_a_restart_no_question_waits_for_all_corrections(index: Knowledge) -> None:
    fresh = Knowledge(index.folder, count)
    many = [correction(f"Where is key {number}?", f"In box {number}.", number + 10) for number in range(BATCH)]
    beside = [*many, correction(CODE)]
    found = [sources(fresh.search([OTHER], beside=beside)[0])[:1] for _ in range(2)]
    assert found[0] != ["feedback:fb_1"] == found[1]
    assert sources(fresh.search([CODE], beside=beside)[0])[0] == "feedback:fb_1"


@pytest.mark.parametrize("odd", ["?", "！", ""])
def test_a_question_without_words_finds_no_correction_of_another(index: Knowledge, odd: str) -> None:
    assert index.search([odd or " "], beside=[correction(CODE)]) == index.search([odd or " "])
