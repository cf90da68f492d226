"""What resembles an evaluation item is kept out of training."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.records import Example, Turn, make_item
from tasks.similarity.embedder import SLACK, EmbeddingError, Embeddings, last_exchanges
from tasks.similarity.leaks import LeakGuard, LeakThresholds
from tests.examples import an_example
from tests.planted import read_planted

ITEM = make_item(
    set="domain",
    prompt="How long does a building permit take?",
    reference="The statutory time is ten weeks in most cases.",
)
THRESHOLDS = LeakThresholds(near=0.6, semantic=0.75, shingle=5)


def guard_of(question: list[float], whole: list[float]) -> LeakGuard:
    vectors = np.array([question, whole], dtype=np.float32)
    return LeakGuard([ITEM], Embeddings([ITEM.id], vectors[:1], vectors[1:]), THRESHOLDS)


def checked(asked: Example, question: list[float], whole: list[float]) -> str | None:
    """How the example leaks; the item's vectors are both (1, 0)."""
    vectors = np.array([question, whole], dtype=np.float32)
    leak = guard_of([1, 0], [1, 0]).check([asked], Embeddings([asked.id], vectors[:1], vectors[1:]))[0]
    return leak.how if leak else None


@pytest.mark.parametrize(
    "question, answer, leaks",
    [
        ("How long does a building permit take?", "Anything.", True),
        ("how long does a building-permit take", "Ten weeks.", True),
        ("How long may a building permit take, then?", "The statutory time is ten weeks in most cases.", True),
        ("May I keep bees in a terraced house?", "Yes.", False),
        ("Quelle est la capitale?", "Paris", False),
    ],
)
def test_what_shares_its_characters_is_a_leak(question: str, answer: str, leaks: bool) -> None:
    assert checked(an_example(question, answer), [0, 1], [0, 1]) == ("near" if leaks else None)


@pytest.mark.parametrize("answer, how", [("Weeks.", "near"), ("It takes ten weeks.", "semantic")])
def test_an_item_asked_after_other_turns_is_a_leak_still(answer: str, how: str) -> None:
    """The vectors of the dialogue are far from the item; those of its last exchange are the item's own."""
    before = (Turn(user="I want to extend my house in the country by two rooms.", assistant="Then you need a permit."),)
    question = ITEM.prompt if how == "near" else "When will I be told whether I may?"
    asked = an_example(question, answer, history=before)
    [alone] = last_exchanges(asked)
    vectors = np.array([[0, 1], [0, 1] if how == "near" else [1, 0]], dtype=np.float32)
    [leak] = guard_of([1, 0], [1, 0]).check([asked], Embeddings([asked.id, alone.id], vectors, vectors))
    assert leak is not None and leak.how == how


def test_wholes_leak_at_the_cosine_and_questions_alone_only_nearer() -> None:
    """The bounds are 0.75 for wholes and 0.85 for questions."""
    asked, far = an_example("May I keep bees?", "Yes."), [0.0, 1.0]
    near = {cosine: [cosine, (1 - cosine**2) ** 0.5] for cosine in (0.74, 0.76, 0.84, 0.86)}
    assert SLACK == 0.1
    assert checked(asked, far, near[0.74]) is None and checked(asked, far, near[0.76]) == "semantic"
    assert checked(asked, near[0.84], far) is None and checked(asked, near[0.86], far) == "semantic"


def test_a_leak_names_the_item_and_says_how() -> None:
    asked = an_example(ITEM.prompt, ITEM.reference)
    vectors = np.array([[1, 0]], dtype=np.float32)
    leak = guard_of([1, 0], [1, 0]).check([asked], Embeddings([asked.id], vectors, vectors))[0]
    assert leak is not None and (leak.item, leak.how, leak.score) == (ITEM, "near", 1.0)
    assert leak.reason == "resembles an evaluation item (domain)"


def test_an_example_without_an_embedding_is_an_error_and_without_items_nothing_leaks() -> None:
    empty = Embeddings([], np.empty((0, 2), np.float32), np.empty((0, 2), np.float32))
    vectors = np.array([[0, 1]], dtype=np.float32)
    asked = an_example("And then?", "Wait.", history=(Turn(user="Hi.", assistant="Hello."),))
    for known in (empty, Embeddings([asked.id], vectors, vectors)):  # the second lacks the last exchange
        with pytest.raises(EmbeddingError, match="no embedding"):
            guard_of([1, 0], [1, 0]).check([asked], known)
    plain = an_example("May I keep bees?", "Yes.")
    assert LeakGuard([], empty, THRESHOLDS).check([plain], Embeddings([plain.id], vectors, vectors)) == [None]
    assert guard_of([1, 0], [1, 0]).check([], empty) == []


def test_no_planted_copy_of_an_item_passes_and_no_other_row_is_kept_out() -> None:
    """Exact and edited copies, in two languages, with embeddings that know nothing."""
    rows = read_planted()
    bases = {row.of: row for row in rows if row.kind == "base"}
    items = [make_item(set="domain", prompt=row.question, reference=row.answer) for row in bases.values()]
    copies = [row for row in rows if row.kind in ("exact", "near")]
    others = [row for row in rows if row.kind == "look-alike"]

    def blind(ids: list[str], axis: int) -> Embeddings:
        vectors = np.zeros((len(ids), 2), dtype=np.float32)
        vectors[:, axis] = 1
        return Embeddings(ids, vectors, vectors)

    guard = LeakGuard(items, blind([item.id for item in items], 0), THRESHOLDS)
    examples = [row.example() for row in copies + others]
    found = guard.check(examples, blind([e.id for e in examples], 1))
    assert None not in found[: len(copies)]
    assert found[len(copies) :] == [None] * len(others)
