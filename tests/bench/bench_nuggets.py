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

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import Example
from tasks.core.tables import read_records
from tasks.curate.select.nuggets import Golden, Judge, choose_tasks, golden_scores
from tasks.curate.select.stage import EXAMPLES, read_pool
from tasks.text.likelihood import load_model
from tests.bench.table import show, timed

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


def main() -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    judge, examples, tasks = prepare()
    golden_scores(judge, examples[:1], tasks)  # what a first call compiles is nobody's cost
    naive_loss(judge, examples[0], tasks[0])
    taken, scores = naive(judge, examples, tasks)

    def row_of(count: int) -> tuple[str, ...]:
        seconds, ours = timed(lambda: golden_scores(judge, examples[:count], tasks))
        expected, peer = scores[:count], taken[count - 1]
        same = sum(a.score == b.score for a, b in zip(ours, expected, strict=True))
        alike = (correlation([getattr(one, name) for one in ours], [getattr(one, name) for one in expected])
                 for name in ("score", "gain"))  # fmt: skip
        speeds = f"{peer:.1f}", f"{seconds:.1f}", f"{peer / seconds:.1f}"
        return str(count * TASKS), *speeds, f"{same} of {count}", *alike

    columns = "pairs | peer, s | ours, s | times faster | same scores | Spearman, scores | of gains"
    show(f"Golden scores on {len(tasks)} tasks, one thread", columns, map(row_of, SIZES))


if __name__ == "__main__":
    main()
