"""Selection: what each method keeps, what it says of every row, and what is kept whatever it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.params import BudgetParams, NuggetsParams
from tasks.core.records import Example, Receipt
from tasks.core.tables import read_records, table_writer, write_records
from tasks.curate.select import nuggets
from tasks.curate.select.nuggets import Golden
from tasks.curate.select.stage import Fate, Pool, cover, draw, golden_fates, picks_of, plan_pairs, select
from tasks.similarity.embedder import EmbeddingError, embeddings_table
from tasks.similarity.neighbours import on_grid
from tests.examples import an_example

BUDGET = BudgetParams(count=3, share=0, radius=0)
NUGGETS = NuggetsParams(pairs=2000, tasks=16, threshold=0.5, share=0, max_tokens=256, batch_size=8, threads=1)


def at(*degrees: float) -> Any:
    """Unit vectors in the plane, on the grid."""
    return on_grid(np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees]))


def pool(*degrees: float, always: list[int] | None = None) -> Pool:
    return Pool([f"{row:064x}" for row in range(len(degrees))], at(*degrees), always or [])


def kept(fates: dict[int, Fate]) -> list[int]:
    return sorted(row for row, fate in fates.items() if fate.kept)


def test_a_budget_is_a_count_a_share_or_whatever_the_radius_needs() -> None:
    assert picks_of(BudgetParams(count=3, share=0, radius=0), 10) == 3
    assert picks_of(BudgetParams(count=0, share=0.25, radius=0), 10) == 2
    assert picks_of(BudgetParams(count=0, share=0, radius=0.1), 10) == 10


@given(st.integers(0, 30), st.integers(1, 30))
def test_a_draw_takes_its_budget_and_a_new_example_moves_at_most_one_other(rows: int, count: int) -> None:
    budget = BudgetParams(count=count, share=0, radius=0)
    before, after = (kept(draw(pool(*[0] * n), budget, seed=1)) for n in (rows, rows + 1))
    assert len(before) == min(rows, count)
    assert len(set(before) - set(after)) <= 1


def test_the_rows_that_are_kept_always_count_in_the_budget() -> None:
    assert len(kept(draw(pool(*[0] * 9, always=[4, 5]), BUDGET, seed=1))) == 1
    fates, _ = cover(pool(0, 1, 90, 91, 180, always=[0, 1]), BUDGET)
    assert kept(fates) == [4]
    assert kept(cover(pool(0, 1, 90, always=[0, 1]), BudgetParams(count=1, share=0, radius=0))[0]) == []


def test_a_row_that_is_left_out_is_told_who_stands_for_it_and_how_near_that_one_is() -> None:
    """From 0°, which is kept always: 180° first, then 90°; 80° is 10° from 90°, and 1° from nobody but 0°."""
    fates, covering = cover(pool(0, 1, 80, 90, 180, always=[0]), BUDGET)
    ten, one = 1 - math.cos(math.radians(10)), 1 - math.cos(math.radians(1))
    assert fates == {
        4: Fate(True, "covers others", "pick 1 of 2", pytest.approx(2.0, abs=0.01)),
        3: Fate(True, "covers others", "pick 2 of 2", pytest.approx(1.0, abs=0.01)),
        2: Fate(False, "covered by another", f"{3:064x}", pytest.approx(ten, abs=0.01)),
        1: Fate(False, "covered by another", f"{0:064x}", pytest.approx(one, abs=0.01)),
    }
    assert covering.radii == pytest.approx([1.0, ten], abs=0.01)


def test_a_golden_set_by_threshold_keeps_the_threshold_itself() -> None:
    scores = [Golden(0.5, 0.1, 4), Golden(0.25, 0.9, 4), Golden(1.0, -0.1, 4)]
    fates = golden_fates([7, 8, 9], scores, NUGGETS)
    assert kept(fates) == [7, 9]
    assert fates[8] == Fate(False, "golden score too low", "mean gain 0.9000 over 4 tasks", 0.25)


def test_a_golden_set_by_share_keeps_the_best_and_mean_gain_breaks_ties() -> None:
    """Half of 4: the one with 1.0, then of three equal ones that with the highest gain."""
    scores = [Golden(0.5, 0.1, 4), Golden(0.5, 0.3, 4), Golden(1.0, 0.0, 4), Golden(0.5, 0.2, 4)]
    settings = NUGGETS.model_copy(update={"threshold": 0.0, "share": 0.5})
    assert kept(golden_fates([1, 3, 5, 7], scores, settings)) == [3, 5]


@pytest.mark.parametrize(
    "rows, plan",
    [(0, (0, 16)), (125, (125, 16)), (200, (200, 10)), (500, (500, 4)), (9999, (500, 4))],
)
def test_the_pairs_stay_within_their_budget(rows: int, plan: tuple[int, int]) -> None:
    """2,000 pairs: 16 tasks up to 125 examples, fewer tasks up to 500 examples, and no more examples than that."""
    assert plan_pairs(NUGGETS, rows) == plan


Run = Callable[..., tuple[list[Example], list[Receipt]]]


@pytest.fixture
def run(set_params: Callable[..., None]) -> Run:
    """Runs the stage on eight examples at these degrees, the third of them a correction."""
    examples = [an_example(f"Question {row}?", "x", origin="feedback" if row == 2 else "human") for row in range(8)]
    write_records(layout.DEDUP / "examples.parquet", examples, Example)
    vectors = iter([at(0, 1, 2, 3, 90, 91, 180, 181)])
    table = embeddings_table([(e.id, e.id, e.id) for e in examples], lambda _: next(vectors))
    with table_writer(layout.EMBED / "examples.parquet", table.schema) as writer:
        writer.write(table)

    def go(**changes: Any) -> tuple[list[Example], list[Receipt]]:
        set_params("select", {"budget": BUDGET.model_dump(), "nuggets": NUGGETS.model_dump(), **changes})
        select()
        receipts = read_records(layout.SELECT / "receipt.parquet", Receipt)
        found = read_records(layout.SELECT / "examples.parquet", Example)
        assert [r.example_id for r in receipts] == [e.id for e in examples]
        assert [r.example_id for r in receipts if r.kept] == [e.id for e in found]
        assert receipts[2].reason == "corrected by a user"
        return found, receipts

    return go


@pytest.mark.parametrize("method, count", [("all", 8), ("random", 3), ("k_center", 3)])
def test_the_stage_keeps_what_the_method_takes_and_has_a_receipt_for_every_row(
    run: Run, method: str, count: int
) -> None:
    assert len(run(method=method)[0]) == count


def test_the_curve_is_drawn_whatever_the_method(run: Run) -> None:
    """Seven picks beside the correction at 2°; after the first, 181°, the farthest is 91°, 89° from 2°."""
    run(method="all")
    lines = (layout.PLOTS / "k_center.csv").read_text().splitlines()
    away, correction = at(91, 2)
    assert lines[:2] == ["examples,radius", f"2,{1 - away @ correction:.6f}"]
    assert lines[-1].startswith("8,")
    assert (layout.PLOTS / "nuggets.csv").read_text() == "rank,golden_score,mean_gain\n"


def scored(monkeypatch: pytest.MonkeyPatch, seen: list[int]) -> None:
    """In place of the model: an odd number in the question is worth 1, an even one 0."""

    def scores(examples: list[Example], features: Any, tasks: int, *_: Any) -> list[Golden]:
        seen.append(len(examples))
        return [Golden(float(int(e.instruction[9]) % 2), 0.1, tasks) for e in examples]

    monkeypatch.setattr(nuggets, "score_examples", scores)


def test_nuggets_judges_what_k_center_took(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four, the correction and three picks: 7 (181°), 4 (90°) or 5 (91°), and so on; odd ones stay."""
    seen: list[int] = []
    scored(monkeypatch, seen)
    found, receipts = run(method="k_center_nuggets", budget={"count": 4, "share": 0, "radius": 0})
    assert seen == [3]
    odd = [e for e in found if e.origin == "human"]
    assert odd and all(int(e.instruction[9]) % 2 for e in odd)
    reasons = [receipt.reason for receipt in receipts]
    assert reasons.count("covered by another") == 4
    assert reasons.count("golden score") + reasons.count("golden score too low") == 3


def test_what_the_budget_of_pairs_does_not_reach_is_not_kept_and_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve pairs reach three examples on four tasks; seven wait."""
    seen: list[int] = []
    scored(monkeypatch, seen)
    _, receipts = run(method="nuggets", nuggets=NUGGETS.model_dump() | {"pairs": 12})
    assert seen == [3]
    told = [receipt.detail for receipt in receipts if receipt.reason == "not scored"]
    assert told == ["select.nuggets.pairs = 12 is spent"] * 4


def test_an_example_without_an_embedding_ends_the_stage(run: Run) -> None:
    examples = read_records(layout.DEDUP / "examples.parquet", Example)
    stranger = an_example("New?")
    write_records(layout.DEDUP / "examples.parquet", [*examples, stranger], Example)
    with pytest.raises(EmbeddingError, match="has no embedding; run dvc repro"):
        run(method="all")
