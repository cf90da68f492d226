"""What the gate says to a person: an outcome, and a criterion's answer, in a sentence."""

from __future__ import annotations

from tasks.core.intervals import Interval
from tasks.evaluate.gate.decide import Answer, Compared, Outcome
from tasks.evaluate.gate.requirements import Requirement

UNSERVABLE = "The candidate passes every criterion, and is held: it cannot be served ({why})."
DRIFTED = (
    "No night lost much, but what all have lost since version {version}, the last that showed its gain, may be more "
    "than twice a margin: after a night held so the next begins at the base model, as a renewal (docs/evaluation.md)."
)
NO_GAIN = "It does the champion no harm, and is held: it has not shown a release's whole gain over the base model."
RENEWALS = {
    "forgotten": "the champion knows what was forgotten, so training began where that was not known",
    "drifted": "the last night was held for what its line has lost, so training began at the base model",
}
RENEWED = "A renewal: {why}. Asked is no harm against the champion, and a release's gain over the base model."
COLLAPSED = (
    "The candidate is better in all, and is held: it has lost the right answers of a whole category. See which "
    "questions on the card, or with `flywheel compare`."
)
REWORDED = "{reworded} of {n} corrections were asked in words never trained on, the others as they were given."
UNGUARDED = {
    "mmlu": "General knowledge is not guarded: domain.yaml has no `mmlu:`.",
    "safety": "Refusing harmful requests is not guarded: domain.yaml has no `safety:`.",
}
SENTENCES: dict[Outcome, str] = {
    "promote": "The candidate is better where it has to be, and within every margin elsewhere.",
    "hold": "The items at hand do not show that the candidate is good enough, nor that it does harm.",
    "reject": "The candidate is shown to do harm.",
}


# Where the whole interval is on the wrong side, and Holm's method over all criteria does not call it harm.
BY_CHANCE = "among so many criteria one may come out so by chance"


def reason_of(requirement: Requirement, answer: Answer, question: Compared) -> str:
    """The criterion's result for a person, with what would settle it, and which nights made its level what it is."""
    subject = requirement.subject[0].upper() + requirement.subject[1:]
    said = {"superiority": _gain, "non_inferiority": _loss, "floor": _floor}[requirement.kind]
    span = range_of(answer.found, answer.level)
    nights = "1 night" if question.spent == 1 else f"{question.spent} nights"
    spent = (
        f"Judged at level {answer.level:.6g}, as {nights} since the line's last release did not pass it; a release "
        "sets that back."
    )
    sentence = f"{subject} {said(answer, requirement.unit, span, question.margin)}."
    return " ".join(filter(None, (sentence, answer.settling, spent if question.spent else "")))


def _gain(answer: Answer, unit: str, span: str, margin: float) -> str:
    found = answer.found
    gain = f"improves by {found.estimate:.3f} {unit} ({span})"
    if found.estimate < 0:
        gain = f"worsens by {-found.estimate:.3f} {unit} (gain: {span})"
    if found.low > margin:
        return f"{gain}: {answer.short or 'a gain is shown'}"
    if answer.harm:
        return f"{gain}: a loss is shown"
    return f"{gain}: " + (BY_CHANCE if found.high < margin else f"the interval holds {margin:g}, so no gain is shown")


def _loss(answer: Answer, unit: str, span: str, margin: float) -> str:
    found = answer.found
    loss = f"loses {found.estimate:.3f} {unit} ({span})"
    if found.estimate < 0:
        loss = f"gains {-found.estimate:.3f} {unit} (loss: {span})"
    if found.high <= margin:
        return f"{loss}: {answer.short or f'within the {margin:g} allowed'}"
    if found.low > margin:
        chance = "" if answer.harm else f", but {BY_CHANCE}"
        return f"{loss}: more than the {margin:g} allowed, by the whole interval{chance}"
    return f"{loss}: the interval goes beyond the {margin:g} allowed"


def _floor(answer: Answer, unit: str, span: str, margin: float) -> str:
    found = answer.found
    reached = f"reaches {found.estimate:.3f} {unit} ({span})"
    if found.low >= margin:
        return f"{reached}: {answer.short or f'at or above the {margin:g} asked'}"
    beyond = "the interval goes below it"
    if found.high < margin:
        beyond = "below it with the whole interval" + ("" if answer.harm else f", but {BY_CHANCE}")
    return f"{reached}, and {margin:g} is asked: {beyond}"


def range_of(found: Interval, level: float) -> str:
    """An interval in brackets, with the items it is of."""
    return f"{100 * level:.4g}% interval {found.low:+.3f} to {found.high:+.3f}, {found.n} items"
