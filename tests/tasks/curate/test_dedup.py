"""Of examples that say the same, the best one stays."""

from __future__ import annotations

from tasks.curate.dedup import keep_best
from tasks.params import DedupParams
from tasks.records import Example, make_example

PARAMS = DedupParams(near_threshold=0.8, shingle=3, permutations=128)


def example(question: str, answer: str, *sources: str) -> Example:
    return make_example(instruction=question, output=answer, language="en", origin="human", source=("x", *sources))


def test_the_one_with_most_sources_then_the_longest_answer_is_kept() -> None:
    short = example("What is the RUT deduction?", "A deduction.")
    long = example("What is the RUT deduction", "A tax deduction for household services.")
    sourced = example("what is the RUT deduction?", "Tax.", "Law 67")
    other = example("How high may a fence be?", "1.8 m.")
    kept, receipts = keep_best([short, long, other, sourced], PARAMS)
    assert kept == [other, sourced]
    dropped = {receipt.example_id: receipt.detail for receipt in receipts if not receipt.kept}
    assert dropped == {short.id: sourced.id, long.id: sourced.id}
    kept, _ = keep_best([short, long], PARAMS)
    assert kept == [long]


def test_two_questions_with_one_answer_are_not_duplicates() -> None:
    yes = "Yes."
    kept, _ = keep_best([example("May I build a shed?", yes), example("Is ROT paid by the invoice?", yes)], PARAMS)
    assert len(kept) == 2


def test_every_example_has_one_receipt() -> None:
    examples = [example(f"Question number {n} about a different matter {n * n}?", f"Answer {n}.") for n in range(20)]
    _, receipts = keep_best(examples, PARAMS)
    assert sorted(receipt.example_id for receipt in receipts) == sorted(e.id for e in examples)
