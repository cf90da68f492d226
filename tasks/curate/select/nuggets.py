"""Golden scores: how often an example, shown once before a task, makes the task's answer likelier than without it.

The source is Li et al. 2023 (arXiv 2312.10302, equations 2 to 5). With the mean log-likelihood of the answers of m
predefined tasks, zero-shot and after the example, the golden score is the share of tasks on which the latter is higher.

An example's tokens are passed through the model once for all tasks (likelihood.py). Where the processor multiplies
bfloat16 by itself, every pair is judged in it first, and those whose sign could be another in float32 again in that.
The paper takes up to a thousand tasks. Here they are few, the middles of clusters among the shortest examples: what
a task costs grows with its length.
Limits: a golden score has m + 1 values, so that many examples are equal; the mean gain (in nats) then ranks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.records import Example, Turn
from tasks.text.likelihood import Ids, answer_losses, load_model
from tasks.text.prompts import encode_answer, encode_text, render_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.core.domain import Domain
    from tasks.core.params import Params

# Nats a token. A gain in bfloat16 is off by 0.015 as a rule, by 0.045 at most in all that was measured; one nearer to 0
# than this is judged in float32.
DOUBT = 0.06
MOST_ROWS = 20_000  # of the rows that tasks are drawn from


@dataclass(frozen=True)
class Golden:
    """An example's golden score (0 to 1) over `tasks` tasks, and the mean gain in nats a token."""

    score: float
    gain: float
    tasks: int


@dataclass(frozen=True)
class Judge:
    """A model in float32, the same in bfloat16 where that is faster, and how text becomes their tokens."""

    model: Any
    quick: Any | None
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


def quick_copy(model: Any) -> Any | None:
    """The model in bfloat16 where the device multiplies it in hardware, else None."""
    import torch

    native = (
        torch.cuda.is_bf16_supported() if model.device.type == "cuda" else torch.cpu.get_capabilities().get("amx_bf16")
    )
    if not native:
        return None
    from copy import deepcopy

    return deepcopy(model).to(torch.bfloat16)


def golden_scores(
    judge: Judge, examples: Sequence[Example], tasks: Sequence[Example], threads: int = 1
) -> list[Golden]:
    """The golden score of each example. A task that is the example itself does not count.

    `threads` examples are judged at a time, each by one thread: a score does not depend on how many there are.
    """
    from rich.console import Console
    from rich.progress import track

    zero = _losses(judge.model, judge, None, tasks)
    quick_zero = _losses(judge.quick, judge, None, tasks) if judge.quick is not None else []

    def score(example: Example) -> Golden:
        numbers = [number for number, task in enumerate(tasks) if task.id != example.id]
        if judge.quick is None:
            gains = _gains(judge.model, judge, example, tasks, numbers, zero)
        else:
            gains = _screened(judge, example, tasks, numbers, zero, quick_zero)
        most = max(1, len(gains))  # an example that is alone has no task but itself, and a golden score of 0
        return Golden(sum(gain > 0 for gain in gains) / most, sum(gains) / most, len(gains))

    with ThreadPoolExecutor(threads) as pool:
        scored = pool.map(score, examples)
        return list(track(scored, "Golden scores", len(examples), console=Console(stderr=True), transient=True))


def _screened(
    judge: Judge, example: Example, tasks: Sequence[Example], numbers: list[int], zero: list[float], quick: list[float]
) -> list[float]:
    """Gains in bfloat16; the doubtful ones in float32, and all if one of these was off by more than the doubt."""
    gains = dict(zip(numbers, _gains(judge.quick, judge, example, tasks, numbers, quick), strict=True))
    doubtful = [number for number in numbers if abs(gains[number]) < DOUBT]
    exact = dict(zip(doubtful, _gains(judge.model, judge, example, tasks, doubtful, zero), strict=True))
    if any(abs(exact[number] - gains[number]) > DOUBT for number in doubtful):
        return _gains(judge.model, judge, example, tasks, numbers, zero)
    return list({**gains, **exact}.values())


def _gains(
    model: Any, judge: Judge, example: Example, tasks: Sequence[Example], numbers: list[int], zero: list[float]
) -> list[float]:
    if not numbers:
        return []
    losses = _losses(model, judge, example, [tasks[number] for number in numbers])
    return [zero[number] - loss for number, loss in zip(numbers, losses, strict=True)]


def _losses(model: Any, judge: Judge, shown: Example | None, tasks: Sequence[Example]) -> list[float]:
    return answer_losses(model, judge.pairs(shown, tasks), judge.batch_size)


def choose_tasks(features: NDArray[Any], lengths: NDArray[Any], count: int, seed: int) -> list[int]:
    """Rows that stand for the others: of each of `count` clusters (k-means) the member nearest to its centre.

    Only the shortest third of the rows is considered.

    Args:
        features: (n, d) unit vectors.
        lengths: (n,) lengths in any unit.
        count: tasks; fewer come back where the rows fall into fewer clusters.
        seed: of the clustering.
    """
    import numpy as np
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
    import numpy as np
    import torch

    torch.set_num_threads(1)  # a pass by one thread does not wait for another, and sums in one order
    model, tokenizer = load_model(layout.BASE_MODEL)
    settings = params.select.nuggets
    judge = Judge(model, quick_copy(model), tokenizer, domain.system_text(), settings.batch_size, settings.max_tokens)
    lengths = np.array([sum(map(len, pair)) for pair in judge.pairs(None, examples)])
    chosen = [examples[row] for row in choose_tasks(features, lengths, tasks, params.seed)]
    return golden_scores(judge, examples, chosen, settings.threads)
