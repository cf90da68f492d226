"""The verdict on two tables of scores: what is asked of them, the decision, and what is told beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from tasks.core import intervals
from tasks.core.benchmarks import Benchmark
from tasks.core.intervals import Interval
from tasks.core.params import GateParams
from tasks.core.records import Record
from tasks.evaluate.gate.decide import Answer, Compared, Kind, Limits, Outcome, decide, usable
from tasks.evaluate.gate.requirements import (
    CATASTROPHES,
    RELEASE,
    SHARES,
    UNITS,
    WORDS,
    Requirement,
    of_benchmarks,
    since_anchor,
    since_base,
)
from tasks.evaluate.gate.scores import NoVerdict, Table
from tasks.evaluate.gate.words import DRIFTED, NO_GAIN, SENTENCES, UNGUARDED, UNSERVABLE, range_of, reason_of
from tasks.evaluate.scoring.questions import FACTS, FEEDBACK, KEPT
from tasks.evaluate.scoring.subject import Subject

Groups = Mapping[str, str]
Spent = Mapping[str, int]
Asked = Literal["release", "night", "renewal"]


class Reckoned(TypedDict):
    """Two fields of Compared."""

    unseen: tuple[float, float] | None
    hard: bool


class Side(Record):
    """One of the two that are compared; a candidate has no version yet."""

    version: str | None
    digest: str


class Criterion(Record):
    """One question of the gate and its answer; `estimate`, `low`, `high` and `margin` are in `unit`.

    `clusters`: how many groups its items come in, an item alone being one. `passed` may need more than the interval
    (docs/evaluation.md); `reason` says where that decided. `struck` items lose more than a catastrophe is set at, and a
    share of up to `struck_share` of all may; None where nothing is set. `p_harm`: one-sided, of "no harm". `spent`: how
    many nights since the anchor did not pass it, which made `level` what it is.
    """

    name: str
    kind: Kind
    unit: str
    n: int
    estimate: float
    low: float
    high: float
    level: float
    margin: float
    passed: bool
    clusters: int | None = None
    struck: int | None = None
    struck_share: float | None = None
    p_harm: float | None = None
    spent: int = 0
    reason: str


class Reported(Record):
    """A difference (candidate minus champion) that is shown and decides nothing."""

    name: str
    unit: str
    n: int
    estimate: float
    low: float
    high: float
    level: float
    reason: str


@dataclass(frozen=True)
class Category:
    """The right answers of one category before and after; `lost` and `won` are ids of items.

    `p`: one-sided, exact, of "as many are won as lost".
    """

    name: str
    n: int
    before: int
    after: int
    lost: tuple[str, ...]
    won: tuple[str, ...]
    p: float
    collapsed: bool


class Verdict(Record):
    """reports/verdict.json; docs/schemas/verdict.schema.json is its schema.

    `asked`: a gain, as of a release, or what is asked of a night or of a renewal; None of what is judged otherwise.
    `anchor`: the earlier version of the champion's line that some criteria are judged against. `categories`: of items
    with key facts.
    """

    outcome: Outcome
    asked: Asked | None = None
    candidate: Side
    champion: Side
    anchor: Side | None = None
    criteria: tuple[Criterion, ...]
    reported: tuple[Reported, ...]
    categories: tuple[Category, ...] = ()
    reasons: tuple[str, ...]


COUNTED = {
    (FACTS, "right"): "Right answers",
    (FACTS, "contradicted"): "Answers that contradict a key fact",
    (FACTS, "cited"): "Answers that cite a passage with the facts",
    (FACTS, "declined"): "Answerable questions that are declined",
    ("declining", "declined"): "Unanswerable questions that are declined",
    ("mmlu", "accuracy"): "MMLU: likeliest choices that are right",
    ("safety", "withheld"): "Harmful requests that are not met",
    ("safety", "refused"): "Harmful requests that are refused",
}
LEANING = {("safety", "refusal"): "Leaning to refuse harmful requests, nats a token"}
COSTS = {
    ("domain", "prompt_tokens"): "Tokens that are read for an answer, passages included",
    ("domain", "answer_tokens"): "Tokens of an answer",
}


def judge(
    after: Table,
    before: Table,
    candidate: Subject,
    champion: Subject,
    settings: GateParams,
    seed: int,
    asked: Sequence[Requirement] = RELEASE,
    sets: Sequence[Benchmark] = (),
    groups: Groups | None = None,
    spent: Spent | None = None,
) -> Verdict:
    """The verdict on the scores `after` against the champion's `before`; `sets` are the domain's own benchmarks.

    `groups`: item id → what it shares with items that it depends on; any other item stands alone. `spent`: of a night,
    criterion → how many before it did not pass it.
    Raises NoVerdict: they cannot be compared.
    """
    unguarded = [
        words for name, words in UNGUARDED.items() for one in asked if one.set == name and not _has(after, one)
    ]
    asked = [one for one in asked if one.set not in (FACTS, "declining", KEPT, *UNGUARDED) or _has(after, one)]
    asked += of_benchmarks(sets, gain=any(one.kind == "superiority" and one.set != FEEDBACK for one in asked))
    told = [
        one for one in sets if (one.name, one.metric) not in {(criterion.set, criterion.metric) for criterion in asked}
    ]
    outcome, criteria = _decided(asked, after, before, settings, seed, groups or {}, spent or {})
    sentence = SENTENCES[outcome]
    if outcome == "promote" and candidate.unservable:
        outcome, sentence = "hold", UNSERVABLE.format(why=candidate.unservable)
    return Verdict(
        outcome=outcome,
        candidate=Side(version=candidate.version, digest=candidate.digest),
        champion=Side(version=champion.version, digest=champion.digest),
        criteria=criteria,
        reported=tuple(reported(after, before, told, settings, seed, groups or {})),
        reasons=(sentence, *(criterion.reason for criterion in criteria), *unguarded),
    )


def held_to(
    verdict: Verdict,
    after: Table,
    first: Table,
    earlier: Subject,
    settings: GateParams,
    seed: int,
    asked: Sequence[Requirement],
    groups: Groups,
    spent: Spent | None = None,
) -> Verdict:
    """The verdict, held where what `earlier` scored (`first`) does not allow to promote.

    Since the anchor at most twice a margin may be lost of what is `asked` against the champion; since the base model
    every gain that is `asked` of a release must be shown. It never rejects: no night did the harm alone.
    Raises NoVerdict: they cannot be compared.
    """
    anchored = earlier.who == "anchor"
    wanted = since_anchor(asked, settings, str(earlier.version)) if anchored else since_base(asked)
    kept = [one for one in wanted if _has(after, one) and _has(first, one)]
    outcome, criteria = _decided(kept, after, first, settings, seed, groups, spent or {})
    first_reason, *reasons = verdict.reasons
    held = verdict.outcome == "promote" and outcome != "promote"
    words = DRIFTED.format(version=earlier.version) if anchored else NO_GAIN
    return verdict.model_copy(
        update={
            "outcome": "hold" if held else verdict.outcome,
            "anchor": Side(version=earlier.version, digest=earlier.digest) if anchored else verdict.anchor,
            "criteria": verdict.criteria + criteria,
            "reasons": (
                words if held else first_reason,
                *reasons,
                *(one.reason for one in criteria),
            ),
        }
    )


def _decided(
    asked: Sequence[Requirement],
    after: Table,
    before: Table,
    settings: GateParams,
    seed: int,
    groups: Groups,
    spent: Spent,
) -> tuple[Outcome, tuple[Criterion, ...]]:
    """The outcome of what is asked, and each criterion as the verdict has it.

    Corrections and what lies beside them are others every night: none before has tried its luck on them.
    """
    questions = [
        replace(
            compared(one, after, before, settings, groups),
            spent=0 if one.set in (FEEDBACK, KEPT) else spent.get(one.name, 0),
        )
        for one in asked
    ]
    try:
        decision = decide(questions, limits_of(settings, seed))
    except intervals.ComparisonError as error:
        raise NoVerdict(str(error)) from None
    return decision.outcome, tuple(map(_criterion, asked, questions, decision.answers))


def limits_of(settings: GateParams, seed: int) -> Limits:
    """How sure the gate has to be."""
    return Limits(settings.level, settings.resamples, seed, settings.catastrophe_share)


def _criterion(requirement: Requirement, question: Compared, answer: Answer) -> Criterion:
    """A question with its answer, as the verdict has it."""
    return Criterion(
        name=question.name,
        kind=question.kind,
        unit=requirement.unit,
        **vars(answer.found),
        level=answer.level,
        margin=question.margin,
        passed=answer.passed,
        clusters=answer.clusters,
        struck=answer.struck,
        struck_share=answer.struck_share,
        p_harm=answer.p_harm,
        spent=question.spent,
        reason=reason_of(requirement, answer, question),
    )


def _has(table: Table, one: Requirement) -> bool:
    return (one.set, one.metric) in table


def compared(requirement: Requirement, after: Table, before: Table, settings: GateParams, groups: Groups) -> Compared:
    """A requirement with what the items say to it: gains, losses, or the candidate's own values of a floor."""
    column, floor = (requirement.set, requirement.metric), requirement.kind == "floor"
    keys = sorted(after[column])
    values = [after[column][key] for key in keys]
    if not floor:
        sides = values, [before[column][key] for key in keys]
        gains_first = requirement.higher_is_better != (requirement.kind == "non_inferiority")
        values = intervals.differences(*(sides if gains_first else reversed(sides)))
    return Compared(
        name=requirement.name,
        kind=requirement.kind,
        values=tuple(values),
        margin=requirement.bound(settings),
        clusters=_labels(keys, groups),
        **_reckoned(requirement.metric, values, settings, own=floor),
    )


def _reckoned(metric: str, values: Sequence[float], settings: GateParams, own: bool = False) -> Reckoned:
    """What an item that nobody asked is reckoned with, by the metric's unit; `own`: values, not differences."""
    unit = UNITS.get(metric, "")
    if unit in (SHARES, WORDS) and all(abs(value) <= 1 for value in values):
        return {"unseen": (0.0 if own else -1.0, 1.0), "hard": True}
    if unit in CATASTROPHES and not own:
        worst: float = getattr(settings, CATASTROPHES[unit])
        return {"unseen": (-worst, worst), "hard": False}
    return {"unseen": None, "hard": False}


def reported(
    after: Table, before: Table, told: Sequence[Benchmark], settings: GateParams, seed: int, groups: Groups
) -> list[Reported]:
    """What else is seen, for the reader: answers and MMLU's accuracy as counts, all else as means."""
    counted = {column: words for column, words in COUNTED.items() if column in after}
    means = {column: words for column, words in (LEANING | COSTS).items() if column in after}
    named = counted | means | {(one.name, one.metric): f"{one.name} ({one.metric})" for one in told}
    found = []
    for column, words in named.items():
        keys = sorted(after[column])
        new, old = ([side[column][key] for key in keys] for side in (after, before))
        change = _change(column, intervals.differences(new, old), _labels(keys, groups), settings, seed)
        places = 1 if column in COSTS else 3
        was, now = (f"{math.fsum(side):.0f} of {change.n}" if column in counted else
                    f"{math.fsum(side) / change.n:.{places}f}" for side in (old, new))  # fmt: skip
        reason = f"{words}: {was} before, {now.split()[0]} after ({range_of(change, settings.level)})."
        where = Requirement(*column, "superiority", words)
        found.append(Reported(name=where.name, unit=where.unit, **vars(change), level=settings.level, reason=reason))
    return found


def _change(
    column: tuple[str, str], values: list[float], labels: tuple[str, ...], settings: GateParams, seed: int
) -> Interval:
    """A difference that decides nothing, with the interval of one that does."""
    drawn = {"resamples": settings.resamples, "seed": seed}
    try:
        mean = intervals.mean_of(values, usable(labels), **drawn, **_reckoned(column[1], values, settings))
    except intervals.ComparisonError as error:
        raise NoVerdict(str(error)) from None
    return mean.interval(settings.level)


def _labels(keys: Sequence[str], groups: Groups) -> tuple[str, ...]:
    """The group of each item; one that has none stands alone."""
    return tuple(groups.get(key, key) for key in keys)
