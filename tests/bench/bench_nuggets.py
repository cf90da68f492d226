"""Golden scores by shared passes against encoding every (example, task) pair by itself, in one run, on one thread each.

Run by `make bench`, where the stages up to `dedup` have been run. The peer is the loop that one writes first: for each
pair the whole conversation goes through the model in float32, and transformers' own loss is taken. Both get the same
examples and tasks. Spearman's correlation is over the examples, of golden scores and of the mean gains that rank equal
ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import Example
from tasks.core.tables import read_records
from tasks.curate.select.nuggets import Golden, Judge, choose_tasks, golden_scores
from tasks.curate.select.stage import EXAMPLES, read_pool
from tasks.text.likelihood import load_model

TASKS = 16
SIZES = (4, 8, 16)


def prepare() -> tuple[Judge, list[Example], list[Example]]:
    """The judge as stage `select` has it, examples and tasks, both of the default domain."""
    params, pool = load_params(), read_pool()
    model, tokenizer = load_model(layout.BASE_MODEL)
    settings = params.select.nuggets
    system = load_domain(params.domain).system_text()
    judge = Judge(model, tokenizer, system, settings.batch_size, settings.max_tokens)
    rows = read_records(EXAMPLES, Example)
    lengths = np.array([sum(map(len, pair)) for pair in judge.pairs(None, rows)])
    tasks = [rows[row] for row in choose_tasks(pool.features, lengths, TASKS, params.seed)]
    step = len(rows) // SIZES[-1]
    return judge, [row for row in rows[::step] if row not in tasks][: SIZES[-1]], tasks


def naive_loss(judge: Judge, shown: Example | None, task: Example) -> float:
    """The loss of one task's answer, by one pass over the whole conversation."""
    import torch

    ((prompt, answer),) = judge.pairs(shown, [task])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.inference_mode():
        return float(judge.model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)


def naive(judge: Judge, examples: Sequence[Example], tasks: Sequence[Example]) -> tuple[list[float], list[Golden]]:
    """The peer's golden scores, and the seconds it had taken after each example."""
    start, seconds, scores = time.perf_counter(), [], []
    zero = [naive_loss(judge, None, task) for task in tasks]
    for example in examples:
        gains = [before - naive_loss(judge, example, task) for before, task in zip(zero, tasks, strict=True)]
        scores.append(Golden(sum(gain > 0 for gain in gains) / len(gains), sum(gains) / len(gains), len(gains)))
        seconds.append(time.perf_counter() - start)
    return seconds, scores


def correlation(left: Sequence[float], right: Sequence[float]) -> str:
    """Spearman's; equal lists correlate fully, also where all values are the same."""
    from scipy.stats import spearmanr

    return "1.0000" if list(left) == list(right) else f"{spearmanr(left, right).statistic:.4f}"


def row_of(count: int, peer: tuple[list[float], list[Golden]], seconds: float, ours: list[Golden]) -> Any:
    """One row of the table."""
    expected = peer[1][:count]
    return (
        str(count * TASKS),
        f"{peer[0][count - 1]:.1f}",
        f"{seconds:.1f}",
        f"{peer[0][count - 1] / seconds:.1f}",
        f"{sum(a.score == b.score for a, b in zip(ours, expected, strict=True))} of {count}",
        correlation([golden.score for golden in ours], [golden.score for golden in expected]),
        correlation([golden.gain for golden in ours], [golden.gain for golden in expected]),
    )


def main() -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    judge, examples, tasks = prepare()
    table = Table(title=f"Golden scores on {len(tasks)} tasks, one thread")
    columns = ("pairs", "peer, s", "ours, s", "times faster", "same scores", "Spearman, scores", "of gains")
    for column in columns:
        table.add_column(column, justify="right")
    golden_scores(judge, examples[:1], tasks)  # what a first call compiles is nobody's cost
    naive_loss(judge, examples[0], tasks[0])
    peer = naive(judge, examples, tasks)
    for count in SIZES:
        start = time.perf_counter()
        ours = golden_scores(judge, examples[:count], tasks)
        table.add_row(*row_of(count, peer, time.perf_counter() - start, ours))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
