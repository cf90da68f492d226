"""Search in a small index: scores by hand, what cuts them off, and an index that is not whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.records import make_passage
from tasks.knowledge.search import EMBEDDINGS, LEXICAL, PASSAGES, SETTINGS, Hit, IndexUnreadable, Knowledge
from tasks.similarity.embedder import sentence_encoders
from tests.laid_index import MODEL, count, entry, lay_index

SHED = entry(1, "May I build a shed?", "Up to 15 square metres.")
FENCE = entry(2, "How high is a fence?", "1.8 metres at most.")
WELL = entry(3, "Who digs a well?", "A driller.")
ROWS = [SHED, FENCE, WELL]
QUESTION = "Is a garden house allowed?"


def sources(hits: list[Hit]) -> list[str]:
    return [hit.passage.source for hit in hits]


def test_by_words_alone_the_best_passage_scores_a_tenth_and_what_shares_no_word_is_not_found(tmp_path: Path) -> None:
    """ "shed" stands in one passage, "metres" in two of them, and no word of the last question in any."""
    index = lay_index(tmp_path, ROWS, threshold=0.9)
    shed, metres, none = index.search(["A SHED of 15 metres", "metres", "zebra"])
    assert sources(shed)[0] == "faq/1" and shed[0].score == pytest.approx(LEXICAL)
    assert sorted(sources(metres)) == ["faq/1", "faq/2"] and metres[0].score == pytest.approx(LEXICAL)
    assert none == []
    assert [len(hits) for hits in index.search(["zebra"], most=2)] == [2], "`most` is cut off by nothing"


def test_the_answer_is_searched_as_well_as_the_question_it_answers(tmp_path: Path) -> None:
    index = lay_index(tmp_path, ROWS)
    assert [sources(hits) for hits in index.search(["driller", "digs"])] == [["faq/3"], ["faq/3"]]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("copies, k", [(4, 2), (30, 2)])
def test_equal_scores_go_by_id_in_whatever_order_the_rows_are(
    tmp_path: Path, turned: bool, copies: int, k: int
) -> None:
    rows = [make_passage(kind="document", text="A shed.", source=f"d#{number}") for number in range(copies)]
    index = lay_index(tmp_path, rows[::-1] if turned else rows, k=k)
    (hits,) = index.search(["shed"])
    assert [hit.passage.id for hit in hits] == sorted(row.id for row in rows)[:k]


@pytest.fixture
def by_meaning(root: Path, tmp_path: Path) -> Callable[..., Knowledge]:
    """An index in which the cosines of QUESTION with SHED, FENCE and WELL are 0.6, 0.3 and -0.2."""
    asked = sentence_encoders(root / MODEL, 32, 1).question([QUESTION])[0].astype(np.float64)
    along = asked / (asked @ asked)  # on the grid the question's vector is not quite of length 1
    across = np.eye(len(asked))[0] - asked[0] * along
    vectors = np.stack([cosine * along + across for cosine in (0.6, 0.3, -0.2)])
    return lambda **settings: lay_index(tmp_path / "index", ROWS, vectors, root / MODEL, **settings)


def test_a_score_is_the_cosine_and_a_tenth_for_the_best_match_in_words(by_meaning: Callable[..., Knowledge]) -> None:
    """Of the question's words the index holds "is" and "a". "is" stands in FENCE alone and "a" in all: FENCE is the
    best by words, 0.3 + 0.1. The others share "a": between the cosine and a tenth more. Below zero is not found.
    """
    index = by_meaning()
    (hits,) = index.search([QUESTION])
    assert sources(hits) == ["faq/1", "faq/2"]
    assert hits[1].score == pytest.approx(0.3 + LEXICAL, abs=2e-6)
    assert 0.6 < hits[0].score < 0.6 + LEXICAL
    (every,) = index.search([QUESTION], most=9)
    assert sources(every) == ["faq/1", "faq/2", "faq/3"] and -0.2 < every[2].score < -0.2 + LEXICAL
    assert index.search([QUESTION, "x"])[0] == hits, "what is asked beside it changes nothing"


@pytest.mark.parametrize("threshold, found", [(0.6, ["faq/1", "faq/2"]), (0.71, [])])
def test_nothing_is_found_where_the_best_score_is_below_the_threshold(
    by_meaning: Callable[..., Knowledge], threshold: float, found: list[str]
) -> None:
    """At 0.6 the second passage, with 0.4, comes with the first."""
    assert sources(by_meaning(threshold=threshold).search([QUESTION])[0]) == found


@pytest.mark.parametrize("k, tokens, found", [(1, 99, 1), (3, 19, 2), (3, 18, 1), (3, 10, 1), (3, 9, 0)])
def test_passages_come_up_to_their_number_and_their_tokens(
    by_meaning: Callable[..., Knowledge], k: int, tokens: int, found: int
) -> None:
    """SHED has 5 + 5 words, FENCE 5 + 4: 19 together."""
    assert [count(one.whole) for one in (SHED, FENCE)] == [10, 9]
    assert sources(by_meaning(k=k, tokens=tokens).search([QUESTION])[0]) == ["faq/1", "faq/2"][:found]


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(-3, 40))
def test_what_fits_is_a_beginning_of_the_passages_and_the_longest_that_fits(words: list[int], tokens: int) -> None:
    index = Knowledge.__new__(Knowledge)
    index.count = count
    rows = [make_passage(kind="document", text="w " * number, source=str(place)) for place, number in enumerate(words)]
    kept = index.fitting(rows, tokens)
    assert kept == rows[: len(kept)]
    assert sum(words[: len(kept)]) <= max(tokens, 0)
    assert len(kept) == len(rows) or sum(words[: len(kept) + 1]) > tokens


def test_an_empty_index_finds_nothing_and_can_be_warmed(tmp_path: Path) -> None:
    index = lay_index(tmp_path, [])
    index.warm()
    assert index.search(["A shed?", "A well?"]) == [[], []] and index.search([]) == []
    assert lay_index(tmp_path, ROWS).search([]) == []
    assert lay_index(tmp_path, [make_passage(kind="document", text="?!", source="d")]).search(["A shed?"]) == [[]]


@pytest.mark.parametrize("part", [SETTINGS, PASSAGES, EMBEDDINGS])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_an_index_with_a_missing_or_damaged_part_is_unreadable(
    by_meaning: Callable[..., Knowledge], part: str, damage: str
) -> None:
    folder = by_meaning().folder
    (folder / part).unlink()
    if damage == "damaged":
        (folder / part).write_text("{}")
    with pytest.raises(IndexUnreadable, match="run the stage index again"):
        Knowledge(folder, count).search([QUESTION])
