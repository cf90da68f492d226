"""Stage `select`: which of the deduplicated examples are trained on.

All; random (a draw, the same for the same ids); k_center (those that cover the others); nuggets (a high golden score);
k_center_nuggets (nuggets among what k_center took). What users corrected is always kept. In memory are ids, embeddings
of question and answer together, and at most `select.nuggets.pairs` examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import digest_of, fresh_directory, write_text
from tasks.core.params import BudgetParams, NuggetsParams, Params, load_params
from tasks.core.records import Example, Receipt
from tasks.core.stage import run_stage, write_metrics
from tasks.core.tables import copy_rows, read_batches, records_at, write_records
from tasks.curate.select.k_center import Cover, k_center, nearest_of
from tasks.similarity.embedder import read_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.curate.select.nuggets import Golden

STAGE = "select"
EXAMPLES = layout.DEDUP / "examples.parquet"
K_CENTER_PLOT = layout.PLOTS / "k_center.csv"
NUGGETS_PLOT = layout.PLOTS / "nuggets.csv"
CURVE_PICKS = 1000  # of the covering curve, where the method itself covers nothing
CURVE_POINTS = 200  # that a plot is drawn with
FEWEST_TASKS = 4  # golden scores over fewer say next to nothing


@dataclass(frozen=True)
class Pool:
    """What there is to choose from: ids, unit vectors, and the rows that are kept whatever the method says."""

    ids: list[str]
    features: NDArray[Any]
    always: list[int]


@dataclass(frozen=True)
class Fate:
    """What became of one row, in the words of a receipt."""

    kept: bool
    reason: str
    detail: str = ""
    score: float | None = None


def read_pool() -> Pool:
    """The deduplicated examples, without their texts."""
    ids: list[str] = []
    always: list[int] = []
    for table in read_batches(EXAMPLES, columns=["id", "origin"]):
        origins = table["origin"].to_pylist()
        always += [len(ids) + row for row, origin in enumerate(origins) if origin == "feedback"]
        ids += table["id"].to_pylist()
    return Pool(ids, read_embeddings(layout.EMBED / "examples.parquet").rows(ids)[1], always)


def picks_of(budget: BudgetParams, rows: int) -> int:
    """How many rows of `rows` a budget takes at most."""
    return budget.count or round(budget.share * rows) or rows


def draw(pool: Pool, budget: BudgetParams, seed: int) -> dict[int, Fate]:
    """Rows in the order of a seeded hash of their ids, up to the budget: a new example moves no other's place.

    A budget given as a radius means nothing here, and keeps every row.
    """
    always = set(pool.always)
    free = [row for row in range(len(pool.ids)) if row not in always]
    order = sorted(free, key=lambda row: digest_of([seed, pool.ids[row]]))
    most = max(0, picks_of(budget, len(pool.ids)) - len(always))
    return {row: Fate(place < most, "drawn" if place < most else "not drawn") for place, row in enumerate(order)}


def cover(pool: Pool, budget: BudgetParams) -> tuple[dict[int, Fate], Cover]:
    """Fates by k-center: a pick tells how far it was from those before it, another row which one stands for it."""
    most = max(0, picks_of(budget, len(pool.ids)) - len(pool.always))
    covering = k_center(pool.features, most, radius=budget.radius or None, given=pool.always)
    fates = {}
    for place, (row, before) in enumerate(zip(covering.picks, covering.before, strict=True), start=1):
        fates[int(row)] = Fate(True, "covers others", f"pick {place} of {len(covering.picks)}", _told(before))
    centres = np.concatenate([np.asarray(pool.always, np.int64), covering.picks])
    rest = np.setdiff1d(np.arange(len(pool.ids)), centres)
    for row, place, distance in zip(rest, *nearest_of(pool.features, rest, centres), strict=True):
        fates[int(row)] = Fate(False, "covered by another", pool.ids[centres[place]], _told(distance))
    return fates, covering


def _told(distance: float) -> float | None:
    """A distance for a receipt; the very first pick is infinitely far from those before it."""
    return round(float(distance), 6) if distance < float("inf") else None


def golden_fates(rows: Sequence[int], scores: Sequence[Golden], settings: NuggetsParams) -> dict[int, Fate]:
    """Fates by golden score; equal ones rank by their mean gain, then by row."""
    order = sorted(range(len(rows)), key=lambda place: (-scores[place].score, -scores[place].gain, rows[place]))
    best = set(order[: round(settings.share * len(rows))])
    fates = {}
    for place, (row, golden) in enumerate(zip(rows, scores, strict=True)):
        kept = place in best if settings.share else golden.score >= settings.threshold
        reason = "golden score" if kept else "golden score too low"
        fates[row] = Fate(kept, reason, f"mean gain {golden.gain:.4f} over {golden.tasks} tasks", golden.score)
    return fates


def plan_pairs(settings: NuggetsParams, rows: int) -> tuple[int, int]:
    """How many examples are scored, each on how many tasks, so that the pairs stay within the budget."""
    tasks = max(FEWEST_TASKS, min(settings.tasks, settings.pairs // max(rows, 1)))
    return min(rows, settings.pairs // tasks), tasks


def judge_rows(pool: Pool, rows: Sequence[int], params: Params) -> tuple[dict[int, Fate], list[Golden]]:
    """Fates of rows by Nuggets. Where the budget does not reach all of them, those that cover the others are scored."""
    from tasks.curate.select.nuggets import score_examples

    settings = params.select.nuggets
    count, tasks = plan_pairs(settings, len(rows))
    fates = {row: Fate(False, "not scored", f"select.nuggets.pairs = {settings.pairs} is spent") for row in rows}
    if count < len(rows):
        rows = [rows[place] for place in k_center(pool.features[list(rows)], count).picks]
    rows = sorted(rows)
    examples = list(records_at(read_batches(EXAMPLES), rows, Example).values())
    scores = score_examples(examples, pool.features[rows], tasks, params, load_domain(params.domain))
    return {**fates, **golden_fates(rows, scores, settings)}, scores


def choose(pool: Pool, params: Params) -> tuple[list[Fate], Cover, list[Golden]]:
    """The fate of every row by `select.method`, the covering curve, and the golden scores where there are any."""
    method, budget = params.select.method, params.select.budget
    fates = {row: Fate(True, "every example is taken") for row in range(len(pool.ids))}
    covering: Cover | None = None
    scores: list[Golden] = []
    if method == "random":
        fates = draw(pool, budget, params.seed)
    if method in ("k_center", "k_center_nuggets"):
        fates, covering = cover(pool, budget)
    if method in ("nuggets", "k_center_nuggets"):
        always = set(pool.always)
        rows = sorted(row for row, fate in fates.items() if fate.kept and row not in always)
        judged, scores = judge_rows(pool, rows, params) if rows else ({}, [])
        fates |= judged
    fates |= {row: Fate(True, "corrected by a user") for row in pool.always}
    covering = covering or k_center(pool.features, CURVE_PICKS, given=pool.always)
    return [fates[row] for row in range(len(pool.ids))], covering, scores


def write_plots(covering: Cover, given: int, scores: Sequence[Golden]) -> None:
    """The covering radius by picks, and the golden scores from the best down."""
    points = np.unique(np.geomspace(1, max(1, len(covering.radii)), CURVE_POINTS).round().astype(int)) - 1
    rows = [f"{given + point + 1},{covering.radii[point]:.6f}\n" for point in points if point < len(covering.radii)]
    write_text(K_CENTER_PLOT, "examples,radius\n" + "".join(rows))
    ranked = sorted(((golden.score, golden.gain) for golden in scores), reverse=True)
    rows = [f"{rank},{score:.6f},{gain:.6f}\n" for rank, (score, gain) in enumerate(ranked, start=1)]
    write_text(NUGGETS_PLOT, "rank,golden_score,mean_gain\n" + "".join(rows))


def details_of(covering: Cover, scores: Sequence[Golden], method: str) -> dict[str, Any]:
    """What the choice was made by. `radius` is 1 - cosine, of the covering curve's end."""
    found: dict[str, Any] = {"method": method}
    if len(covering.radii):
        found["radius"] = round(float(covering.radii[-1]), 6)
    if scores:
        found["nuggets"] = {
            "examples": len(scores),
            "pairs": sum(golden.tasks for golden in scores),
            "mean_score": round(sum(golden.score for golden in scores) / len(scores), 6),
            "mean_gain": round(sum(golden.gain for golden in scores) / len(scores), 6),
        }
    return found


def select() -> str:
    """Select from data/dedup into data/select; returns what happened, in a sentence."""
    params = load_params()
    pool = read_pool()
    fates, covering, scores = choose(pool, params)
    named = zip(pool.ids, fates, strict=True)
    with fresh_directory(layout.SELECT) as folder:
        receipts = (Receipt(example_id=identity, stage=STAGE, **vars(fate)) for identity, fate in named)
        write_records(folder / "receipt.parquet", receipts, Receipt)
        copy_rows(EXAMPLES, folder / "examples.parquet", [fate.kept for fate in fates], Example)
    write_plots(covering, len(pool.always), scores)
    kept = sum(fate.kept for fate in fates)
    details = details_of(covering, scores, params.select.method)
    write_metrics(STAGE, {"examples": kept, "dropped": len(fates) - kept}, details)
    return f"{kept} of {len(fates)} examples, method {params.select.method}"


if __name__ == "__main__":
    run_stage(STAGE, select)
