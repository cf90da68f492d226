"""Golden scores: how often an example, shown once before a task, makes the task's answer likelier than without it.

Li et al. 2023 (arXiv 2312.10302, equations 2 to 5): the share of m predefined tasks on which it does. Here the tasks
are few, the middles of clusters among the shortest examples. Limit: a score has m + 1 values; the mean gain (nats)
ranks equal ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core import layout
from tasks.core.records import Example, Turn
from tasks.text.likelihood import Ids, answer_losses, load_model
from tasks.text.prompts import encode_answer, encode_text, render_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.core.domain import Domain
    from tasks.core.params import Params

MOST_ROWS = 20_000  # of the rows that tasks are drawn from


@dataclass(frozen=True)
class Golden:
    """An example's golden score (0 to 1) over `tasks` tasks, and the mean gain in nats a token."""

    score: float
    gain: float
    tasks: int


@dataclass(frozen=True)
class Judge:
    """A model, and how text becomes its tokens."""

    model: Any
    tokenizer: Any
    system: str
    batch_size: int
    max_tokens: int  # of an example shown once; longer answers are cut

    def pairs(self, shown: Example | None, tasks: Sequence[Example]) -> list[tuple[Ids, Ids]]:
        """Prompt and answer of each task, after `shown` as an earlier turn of the conversation."""
        history = (Turn(user=shown.prompt, assistant=self._cut(shown)),) if shown else ()
        return [
            (
                encode_text(
                    self.tokenizer, render_prompt(self.tokenizer, task.system or self.system, task.prompt, history)
                ),
                encode_answer(self.tokenizer, task.output),
            )
            for task in tasks
        ]

    def _cut(self, shown: Example) -> str:
        room = max(1, self.max_tokens - len(encode_text(self.tokenizer, shown.prompt)))
        offsets = self.tokenizer(shown.output, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return shown.output if len(offsets) <= room else shown.output[: offsets[room - 1][1]]


def golden_scores(
    judge: Judge, examples: Sequence[Example], tasks: Sequence[Example], threads: int = 1
) -> list[Golden]:
    """The golden score of each example. A task that is the example itself does not count.

    `threads` examples are judged at a time, each by one thread: a score does not depend on how many there are.
    """
    from rich.console import Console
    from rich.progress import track

    def losses(shown: Example | None, asked: Sequence[Example]) -> list[float]:
        """The mean negative log-likelihood of each task's answer after `shown`, in nats a token."""
        return answer_losses(judge.model, judge.pairs(shown, asked), judge.batch_size)

    zero = dict(zip((task.id for task in tasks), losses(None, tasks), strict=True))

    def score(example: Example) -> Golden:
        others = [task for task in tasks if task.id != example.id]
        after = losses(example, others) if others else []
        gains = [zero[task.id] - loss for task, loss in zip(others, after, strict=True)]
        most = max(1, len(gains))  # an example that is alone has no task but itself, and a golden score of 0
        return Golden(sum(gain > 0 for gain in gains) / most, sum(gains) / most, len(gains))

    with ThreadPoolExecutor(threads) as pool:
        scored = pool.map(score, examples)
        return list(track(scored, "Golden scores", len(examples), console=Console(stderr=True), transient=True))


def choose_tasks(features: NDArray[Any], lengths: NDArray[Any], count: int, seed: int) -> list[int]:
    """Rows that stand for the others: of each of `count` clusters (k-means) the member nearest to its centre.

    `features` are unit vectors (n, d), `lengths` (n,) of any unit: only the shortest third is considered. Fewer come
    back where the rows fall into fewer clusters.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    short = np.flatnonzero(lengths <= np.quantile(lengths, 1 / 3))
    short = short[:: -(-len(short) // MOST_ROWS)]
    with threadpool_limits(1):  # more threads add in any order, and the last bits change
        clusters = KMeans(min(count, len(short)), n_init=3, random_state=seed).fit(features[short])
        distances = clusters.transform(features[short])
    nearest = {int(short[distances[:, cluster].argmin()]) for cluster in range(distances.shape[1])}
    return sorted(nearest)


def score_examples(
    examples: Sequence[Example], features: NDArray[Any], tasks: int, params: Params, domain: Domain
) -> list[Golden]:
    """The golden scores of examples by the base model, on tasks chosen from among them; `features` are unit vectors."""
    import torch

    torch.set_num_threads(1)  # a pass by one thread does not wait for another, and sums in one order
    model, tokenizer = load_model(layout.BASE_MODEL)
    settings = params.select.nuggets
    judge = Judge(model, tokenizer, domain.system_text(), settings.batch_size, settings.max_tokens)
    lengths = np.array([sum(map(len, pair)) for pair in judge.pairs(None, examples)])
    chosen = [examples[row] for row in choose_tasks(features, lengths, tasks, params.seed)]
    return golden_scores(judge, examples, chosen, settings.threads)
