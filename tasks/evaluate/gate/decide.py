"""The decision of the gate on paired differences: no file, no model, no state. What holds of it: docs/evaluation.md.

A criterion passes where the whole interval of the mean (tasks/core/intervals.py) is on the right side of its bound, a
sign-flip test over few clusters agrees, and, of a loss, few enough items lose more than a catastrophe is set at. Harm
is shown where its p-value is small enough by Holm's method (1979) over all criteria: each may err, and one rejects.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.core.intervals import EXACT_BELOW, Interval, Mean, items_needed, mean_of, share_below, sign_flip_p
from tasks.core.records import DECIMALS

Kind = Literal["superiority", "non_inferiority", "floor"]
Outcome = Literal["promote", "hold", "reject"]

# Fewer clusters say too little of the ones that were not drawn: neither a pass nor harm is shown by them.
FEWEST_CLUSTERS = 8
# A night may err by what one side of an interval leaves until one has not passed, and by a SHARE of it after each of
# the first four that did not: twice as much in all. Then nothing passes.
SHARE, TRIES = 4, 5


@dataclass(frozen=True)
class Limits:
    """How sure the gate has to be; `share` is how many items, of all, may lose more than a catastrophe is set at."""

    level: float
    resamples: int
    seed: int
    share: float = 1.0

    @property
    def alpha(self) -> float:
        """What one side of an interval leaves."""
        return (1 - self.level) / 2

    def after(self, spent: int) -> Limits:
        """The limits of a question that `spent` nights of a line have not passed, with as many draws beyond the bound.

        The r-th night that may not pass has r - 1 before it that did not, or one has passed wrongly already: so all
        together err by no more than the sum over `spent`, whatever they have in common.
        """
        if not spent:
            return self
        return replace(self, level=1 - (1 - self.level) / SHARE, resamples=self.resamples * SHARE)


@dataclass(frozen=True)
class Compared:
    """One question of the gate: gains where superiority is asked, losses where non-inferiority is, else the values.

    `clusters`: a label an item, () where all differ. `unseen` and `hard`: see intervals.mean_of; of a loss, an item
    beyond `unseen` is a catastrophe. All in the unit of the metric. `spent`: see Limits.after.
    """

    name: str
    kind: Kind
    values: tuple[float, ...]
    margin: float = 0.0
    clusters: tuple[str, ...] = ()
    unseen: tuple[float, float] | None = None
    hard: bool = False
    spent: int = 0

    @property
    def loss(self) -> bool:
        """Whether more is worse."""
        return self.kind == "non_inferiority"

    @property
    def to_spare(self) -> list[float]:
        """Each item's distance from the bound: above 0 on the right side."""
        return [self.margin - value if self.loss else value - self.margin for value in self.values]


@dataclass(frozen=True)
class Answer:
    """What the items say to one question, at this level.

    `struck` items lose more than a catastrophe is set at, so that `struck_share` of all may; None where nothing is set.
    `p_harm` is the one-sided p of "no harm". `short`: why what its interval shows is not enough. `settling`: what would
    settle it, where it neither passes nor shows harm.
    """

    name: str
    level: float
    found: Interval
    clusters: int
    struck: int | None
    struck_share: float | None
    p_harm: float
    passed: bool
    harm: bool = False
    short: str = ""
    settling: str = ""


@dataclass(frozen=True)
class Decision:
    """The outcome, with the answer to each question in their order."""

    outcome: Outcome
    answers: tuple[Answer, ...]


def decide(questions: Sequence[Compared], limits: Limits) -> Decision:
    """Promote where all pass, reject where harm is shown, else hold; equal input gives equal output.

    Raises ComparisonError: the items of a question are too few, or a value is not finite.
    """
    answers = [_answer(question, limits) for question in questions]
    shown = holm([answer.p_harm for answer in answers], limits.alpha)
    answers = [
        replace(answer, harm=harm, settling="" if harm or answer.passed else answer.settling)
        for answer, harm in zip(answers, shown, strict=True)
    ]
    outcome: Outcome = "reject" if any(shown) else "hold"
    if all(answer.passed for answer in answers):
        outcome = "promote"
    return Decision(outcome, tuple(answers))


def usable(clusters: tuple[str, ...]) -> tuple[str, ...]:
    """The labels, or () where so few of them differ that they say too little of others."""
    return clusters if len(set(clusters)) >= min(FEWEST_CLUSTERS, len(clusters)) else ()


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which of several hypotheses are rejected, so that a true one is with a chance of at most `alpha` (Holm 1979)."""
    rejected = [False] * len(p_values)
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - place):
            break
        rejected[index] = True
    return rejected


def _answer(question: Compared, limits: Limits) -> Answer:
    """What one question's items say; harm is left to Holm."""
    clusters = usable(question.clusters)
    few = clusters != question.clusters
    own = limits.after(question.spent)
    drawn = {"resamples": own.resamples, "seed": own.seed}
    mean = mean_of(question.values, clusters, **drawn, unseen=question.unseen, hard=question.hard)
    found = mean.interval(own.level)
    struck, share = _struck(question, own.level)
    spare = _sums(question.to_spare, clusters)
    exact, within, short = mean.clusters < EXACT_BELOW, _within(question, found), ""
    if within and few:
        short = f"but items of {len(set(question.clusters))} groups alone say too little of others"
    elif within and question.spent >= TRIES:
        short = "but nights have spent what they may err by"
    elif within and exact and (p := _exact_p(spare, question.hard)) > own.alpha:
        short = f"too few items to show it (exact sign-flip test: p = {p:.3f})"
    elif within and share is not None and share > limits.share:
        short = f"but {struck} items lose more than a catastrophe is set at, so that {share:.1%} of all may"
    p_harm = mean.p_above(question.margin) if question.loss else mean.p_below(question.margin)
    if exact and p_harm <= limits.alpha:
        p_harm = max(p_harm, _exact_p([-value for value in spare], question.hard))
    return Answer(
        name=question.name,
        level=own.level,
        found=found,
        clusters=mean.clusters,
        struck=struck,
        struck_share=share,
        p_harm=1.0 if few else round(p_harm, DECIMALS),
        passed=within and not short,
        short=short,
        settling=_settling(question, mean, struck, own) if question.spent < TRIES else "",
    )


def _exact_p(values: Sequence[float], hard: bool) -> float:
    """sign_flip_p; but shares that are all alike count as what they are, n signs of 2**n.

    Elsewhere too few that are alike say nothing of others, which may lie anywhere; a share has its bounds.
    """
    alike = hard and min(values) == max(values) > 0
    return 0.5 ** len(values) if alike else sign_flip_p(values)


def _within(question: Compared, found: Interval) -> bool:
    """Whether the whole interval is on the right side; a gain of exactly the bound is none."""
    if question.loss:
        return found.high <= question.margin
    return found.low > question.margin if question.kind == "superiority" else found.low >= question.margin


def _struck(question: Compared, level: float) -> tuple[int | None, float | None]:
    """How many items lose more than a catastrophe is set at, and how large their share of all may be."""
    if not question.loss or question.unseen is None or question.hard:
        return None, None
    worst = question.unseen[1]
    struck = sum(value > worst for value in question.values)
    return struck, round(share_below(struck, len(question.values), level), DECIMALS)


def _sums(values: Sequence[float], clusters: Sequence[str]) -> list[float]:
    """The sum of each cluster."""
    if not clusters:
        return list(values)
    sums: dict[str, float] = {}
    for value, name in zip(values, clusters, strict=True):
        sums[name] = sums.get(name, 0.0) + value
    return list(sums.values())


def _settling(question: Compared, mean: Mean, struck: int | None, limits: Limits) -> str:
    """What would settle a question that neither passes nor shows harm.

    More items like these help only where their mean is on the right side, and few enough are struck: as many as their
    spread needs, as show that none loses what `unseen` reckons with, and as bound the share that is struck.
    """
    spare, n = math.fsum(question.to_spare) / mean.n, mean.n
    if spare <= 0 or (struck or 0) / n >= limits.share:
        return "More items like these would not let it pass; a better candidate would."
    lone = statistics.stdev(question.values) / math.sqrt(n)
    inflation = (mean.error / lone) ** 2 if lone else 1.0
    needed = max(items_needed(question.to_spare, spare, limits.level, inflation), n + 1)
    if question.unseen is not None:
        away = abs(question.unseen[1 if question.loss else 0] - mean.estimate)
        if away > spare:
            needed = max(needed, math.ceil(math.log(limits.alpha) / math.log1p(-spare / away)))
    if struck is not None:
        while share_below(round(struck * needed / n), needed, limits.level) > limits.share:
            needed += max(1, needed // 10)
    return f"With about {needed:,} items it would be settled, were the difference and its spread as these show them."
