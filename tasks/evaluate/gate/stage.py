"""Stage `gate`: is the candidate better where it should be, and no worse elsewhere than its margins allow?

Every criterion is a mean over items, candidate against champion on the same item, with a two-sided interval:

    superiority      the gain; passes when the whole interval lies above 0
    non_inferiority  the loss; passes when the whole interval lies at or below the margin
    floor            the candidate's own mean; passes when the whole interval lies at or above the margin

Below EXACT_BELOW items an exact sign-flip test has to agree before either passes. promote: all pass, and an engine of
ours can serve the candidate. reject: harm is shown by a whole interval. hold: neither. What is asked of a release and
of a night is in requirements.py. The gate fails closed: scores that are missing, too many, doubled, not finite, of
other models than those at hand, or evaluated under unequal conditions stop it, and no verdict is left behind.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Literal

from tasks.core import intervals, layout
from tasks.core.benchmarks import Benchmark, load_benchmarks
from tasks.core.files import write_json, write_text
from tasks.core.intervals import Interval
from tasks.core.params import GateParams, load_params
from tasks.core.records import Record
from tasks.core.stage import run_stage, write_metrics
from tasks.evaluate.gate.requirements import NIGHT, RELEASE, Kind, Requirement, of_benchmarks
from tasks.evaluate.gate.scores import (
    NoVerdict,
    Table,
    Values,
    check_conditions,
    check_sets,
    ids_of,
    read_conditions,
    read_scores,
)
from tasks.evaluate.scoring.questions import FACTS, FEEDBACK, read_items
from tasks.evaluate.scoring.subject import Subject, load_subject

STAGE = "gate"
METRICS_FILE = layout.METRICS / "gate.json"
PLOT = layout.PLOTS / "scores.csv"

Outcome = Literal["promote", "hold", "reject"]


class Side(Record):
    """One of the two that are compared; a candidate has no version yet."""

    version: str | None
    digest: str


class Criterion(Record):
    """One question of the gate and its answer; `estimate`, `low`, `high` and `margin` are in `unit`.

    Below 40 items, `passed` needs an exact sign-flip test beside the interval; `reason` says where it decided.
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


class Verdict(Record):
    """reports/verdict.json; docs/schemas/verdict.schema.json is its schema."""

    outcome: Outcome
    candidate: Side
    champion: Side
    criteria: tuple[Criterion, ...]
    reported: tuple[Reported, ...]
    reasons: tuple[str, ...]


def gate() -> str:
    """Judge the candidate and write the verdict; returns the outcome, in a sentence."""
    for path in (layout.VERDICT, METRICS_FILE, PLOT):
        path.unlink(missing_ok=True)
    params = load_params()
    candidate, champion = load_subject("candidate"), load_subject("champion")
    expected = ids_of(read_items(corrections=True))
    conditions = read_conditions("candidate")
    check_conditions(conditions, read_conditions("champion"), candidate, champion)
    sets = load_benchmarks(params.domain)
    check_sets(conditions, {one.name: one.definition(layout.DOMAINS / params.domain) for one in sets})
    digests = {one.name: conditions["sets"][one.name]["items"] for one in sets}
    after, before = (read_scores(who, expected, sets, digests) for who in ("candidate", "champion"))
    asked = NIGHT if FEEDBACK in expected and asked_by_a_night() else RELEASE
    verdict = judge(after, before, candidate, champion, params.gate, params.seed, asked, sets)
    write_text(PLOT, score_table(after, before, params.gate, params.seed))
    passed = sum(criterion.passed for criterion in verdict.criteria)
    write_metrics(STAGE, {"outcome": verdict.outcome, "passed": passed, "criteria": len(verdict.criteria)})
    write_json(layout.VERDICT, verdict.model_dump(mode="json"))
    return f"{verdict.outcome}. " + " ".join(verdict.reasons)


def asked_by_a_night() -> bool:
    """Whether a night asks, and data/champion and data/start say that it went on from the champion it is judged by."""
    paths = (layout.CHAMPION / "champion.json", layout.START / "start.json")
    try:
        champion, start = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        return champion["night"] is not None and champion["digest"] == start["digest"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def judge(
    after: Table,
    before: Table,
    candidate: Subject,
    champion: Subject,
    settings: GateParams,
    seed: int,
    asked: Sequence[Requirement] = RELEASE,
    sets: Sequence[Benchmark] = (),
) -> Verdict:
    """The verdict on the scores `after` against the champion's `before`; `sets` are the domain's own benchmarks.

    Raises NoVerdict: they cannot be compared.
    """
    unguarded = [
        words for name, words in UNGUARDED.items() for one in asked if one.set == name and not _has(after, one)
    ]
    asked = [one for one in asked if one.set not in (FACTS, *UNGUARDED) or _has(after, one)]
    asked += of_benchmarks(sets, gain=any(one.kind == "superiority" and one.set != FEEDBACK for one in asked))
    told = [
        one for one in sets if (one.name, one.metric) not in {(criterion.set, criterion.metric) for criterion in asked}
    ]
    criteria = tuple(answer(requirement, after, before, settings, seed) for requirement in asked)
    outcome: Outcome = "reject" if any(map(shows_harm, criteria)) else "hold"
    if all(criterion.passed for criterion in criteria):
        outcome = "promote"
    sentence = SENTENCES[outcome]
    if outcome == "promote" and candidate.unservable:
        outcome, sentence = "hold", UNSERVABLE.format(why=candidate.unservable)
    return Verdict(
        outcome=outcome,
        candidate=Side(version=candidate.version, digest=candidate.digest),
        champion=Side(version=champion.version, digest=champion.digest),
        criteria=criteria,
        reported=(
            *answers(after, before, settings, seed),
            *accuracy(after, before, settings, seed),
            *(benchmark(one, after, before, settings, seed) for one in told),
        ),
        reasons=(sentence, *(criterion.reason for criterion in criteria), *unguarded),
    )


def _has(table: Table, one: Requirement) -> bool:
    return (one.set, one.metric) in table


ANSWERS = {
    (FACTS, "right"): "Right answers",
    (FACTS, "contradicted"): "Answers that contradict a key fact",
    (FACTS, "cited"): "Answers that cite a passage with the facts",
    (FACTS, "declined"): "Answerable questions that are declined",
    ("declining", "declined"): "Unanswerable questions that are declined",
}
UNSERVABLE = "The candidate passes every criterion, and is held: it cannot be served ({why})."
UNGUARDED = {
    "mmlu": "General knowledge is not guarded: domain.yaml has no `mmlu:`.",
    "safety": "Refusing harmful requests is not guarded: domain.yaml has no `safety:`.",
}
SENTENCES: dict[Outcome, str] = {
    "promote": "The candidate is better where it has to be, and within every margin elsewhere.",
    "hold": "The items at hand do not show that the candidate is good enough, nor that it does harm.",
    "reject": "The candidate is shown to do harm.",
}


def answer(requirement: Requirement, after: Table, before: Table, settings: GateParams, seed: int) -> Criterion:
    """One criterion, judged: a gain where superiority is asked, a loss where non-inferiority is, else the value."""
    column = (requirement.set, requirement.metric)
    loss = requirement.kind == "non_inferiority"
    sides = _sides(after[column], before[column], requirement.higher_is_better != loss)
    if requirement.kind == "floor":
        sides = (sides[0], [0.0] * len(sides[0]))
    found = _difference(*sides, settings, seed)
    named = requirement.margin
    margin: float = getattr(settings, named) if isinstance(named, str) and named else float(named or 0.0)
    within = {"superiority": found.low > margin, "non_inferiority": found.high <= margin, "floor": found.low >= margin}
    to_spare = [margin - change if loss else change - margin for change in intervals.differences(*sides)]
    p = intervals.sign_flip_p(to_spare) if found.n < intervals.EXACT_BELOW else 0.0
    passed = within[requirement.kind] and p <= (1 - settings.level) / 2
    too_few = "" if passed else f"too few items to show it (exact sign-flip test: p = {p:.3f})"
    criterion = Criterion(
        name=requirement.name,
        kind=requirement.kind,
        unit=requirement.unit,
        **vars(found),
        level=settings.level,
        margin=margin,
        passed=passed,
        reason=reason_of(requirement, found, settings.level, margin, too_few),
    )
    if passed or shows_harm(criterion):
        return criterion
    return criterion.model_copy(update={"reason": f"{criterion.reason} {settling(to_spare, settings.level)}"})


def settling(to_spare: Sequence[float], level: float) -> str:
    """What would settle a criterion that neither passes nor shows harm.

    `to_spare` is each item's distance from the bound; more items help only where its mean is on the right side.
    """
    spare = math.fsum(to_spare) / len(to_spare)
    if spare <= 0:
        return "More items like these would not let it pass; a better candidate would."
    needed = max(intervals.items_needed(to_spare, spare, level), len(to_spare) + 1)
    return f"With about {needed:,} items it would be settled, were the difference and its spread as these show them."


def answers(after: Table, before: Table, settings: GateParams, seed: int) -> list[Reported]:
    """What else is seen of the answers, as shares of the items, for the reader."""
    found = []
    for (name, metric), words in ANSWERS.items():
        if (name, metric) in after:
            sides = _sides(after[name, metric], before[name, metric], True)
            change = _difference(*sides, settings, seed)
            shares = [math.fsum(side) for side in sides]
            reason = (
                f"{words}: {shares[1]:.0f} of {change.n} before, {shares[0]:.0f} after "
                f"({_range(change, settings.level)})."
            )
            where = f"{name}_{metric}"
            found.append(
                Reported(name=where, unit="share of items", **vars(change), level=settings.level, reason=reason)
            )
    return found


def accuracy(after: Table, before: Table, settings: GateParams, seed: int) -> list[Reported]:
    """MMLU accuracy, for the reader: a few hundred items settle nothing finer than six points."""
    column = ("mmlu", "accuracy")
    if column not in after:
        return []
    found = _difference(*_sides(after[column], before[column], True), settings, seed)
    reason = (
        f"MMLU accuracy changed by {found.estimate:+.3f} ({_range(found, settings.level)}); reported only, "
        f"because {found.n} items cannot settle a small change."
    )
    return [Reported(name="mmlu_accuracy", unit="share of items", **vars(found), level=settings.level, reason=reason)]


def benchmark(one: Benchmark, after: Table, before: Table, settings: GateParams, seed: int) -> Reported:
    """A benchmark that decides nothing, for the reader."""
    sides = _sides(after[one.name, one.metric], before[one.name, one.metric], True)
    found = _difference(*sides, settings, seed)
    new, old = (math.fsum(side) / found.n for side in sides)
    span = _range(found, settings.level)
    reason = f"{one.name} ({one.metric}): {old:.3f} before, {new:.3f} after ({span}); reported only."
    unit = Requirement(one.name, one.metric, "superiority", one.name).unit
    return Reported(name=f"{one.name}_{one.metric}", unit=unit, **vars(found), level=settings.level, reason=reason)


def _sides(after: Values, before: Values, candidate_first: bool) -> tuple[list[float], list[float]]:
    """What is subtracted from what: both sides in the order of their items' ids, the candidate first or second."""
    first, second = (after, before) if candidate_first else (before, after)
    return [first[key] for key in sorted(after)], [second[key] for key in sorted(after)]


def _difference(minuend: list[float], subtrahend: list[float], settings: GateParams, seed: int) -> Interval:
    """The mean of minuend − subtrahend with its interval."""
    level, resamples = settings.level, settings.resamples
    try:
        return intervals.paired_interval(minuend, subtrahend, level=level, resamples=resamples, seed=seed)
    except intervals.ComparisonError as error:
        raise NoVerdict(str(error)) from None


def shows_harm(criterion: Criterion) -> bool:
    """The whole interval lies on the wrong side: below no gain at all or the floor, or beyond the loss allowed."""
    if criterion.kind == "non_inferiority":
        return criterion.low > criterion.margin
    return criterion.high < criterion.margin


def reason_of(requirement: Requirement, found: Interval, level: float, margin: float, too_few: str) -> str:
    """The criterion's result as a sentence for a person; `too_few` says why an interval that would pass does not."""
    span = _range(found, level)
    subject = requirement.subject[0].upper() + requirement.subject[1:]
    if requirement.kind == "floor":
        reached = f"{subject} reaches {found.estimate:.3f} {requirement.unit} ({span})"
        if found.low >= margin:
            return f"{reached}: {too_few or f'at or above the {margin:g} asked'}."
        beyond = "below it with the whole interval" if found.high < margin else "the interval goes below it"
        return f"{reached}, and {margin:g} is asked: {beyond}."
    if requirement.kind == "superiority":
        gain = f"{subject} improves by {found.estimate:.3f} {requirement.unit} ({span})"
        if found.estimate < 0:
            gain = f"{subject} worsens by {-found.estimate:.3f} {requirement.unit} (gain: {span})"
        if found.low > 0:
            return f"{gain}: {too_few or 'a gain is shown'}."
        return f"{gain}: a loss is shown." if found.high < 0 else f"{gain}: the interval holds 0, so no gain is shown."
    loss = f"{subject} loses {found.estimate:.3f} {requirement.unit} ({span})"
    if found.estimate < 0:
        loss = f"{subject} gains {-found.estimate:.3f} {requirement.unit} (loss: {span})"
    if found.high <= margin:
        return f"{loss}: {too_few or f'within the {margin:g} allowed'}."
    if found.low > margin:
        return f"{loss}: more than the {margin:g} allowed, by the whole interval."
    return f"{loss}: the interval goes beyond the {margin:g} allowed."


def _range(found: Interval, level: float) -> str:
    return f"{level:.0%} interval {found.low:+.3f} to {found.high:+.3f}, {found.n} items"


def score_table(after: Table, before: Table, settings: GateParams, seed: int) -> str:
    """Means of both sides with intervals, as CSV: set, metric, who, value, low, high."""
    lines = ["set,metric,who,value,low,high"]
    for column in sorted(after):
        for who, table in (("champion", before), ("candidate", after)):
            values = [table[column][key] for key in sorted(table[column])]
            found = intervals.mean_interval(values, level=settings.level, resamples=settings.resamples, seed=seed)
            lines.append(",".join(map(str, (*column, who, found.estimate, found.low, found.high))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(STAGE, gate)
