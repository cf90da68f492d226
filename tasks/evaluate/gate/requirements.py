"""What the gate asks: of a release a gain on the domain, of a night that it learnt its corrections, of both no harm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tasks.evaluate.scoring.questions import FEEDBACK

Kind = Literal["superiority", "non_inferiority", "floor"]


@dataclass(frozen=True)
class Requirement:
    """A criterion before it is judged. `margin` names the setting that bounds a loss; a gain must exceed 0."""

    name: str
    set: str
    metric: str
    kind: Kind
    unit: str
    higher_is_better: bool
    subject: str
    margin: str = ""


DOMAIN_GAIN = (
    Requirement(
        name="domain_rouge_l",
        set="domain",
        metric="rouge_l",
        kind="superiority",
        unit="ROUGE-L F1",
        higher_is_better=True,
        subject="agreement with the domain's reference answers",
    ),
    Requirement(
        name="domain_nll",
        set="domain",
        metric="nll",
        kind="superiority",
        unit="nats per token",
        higher_is_better=False,
        subject="likelihood of the domain's reference answers",
    ),
)
ELSEWHERE = (
    Requirement(
        name="dialogue_nll",
        set="dialogue",
        metric="nll",
        kind="non_inferiority",
        unit="nats per token",
        higher_is_better=False,
        subject="general dialogue",
        margin="dialogue_margin",
    ),
    Requirement(
        name="mmlu_p_correct",
        set="mmlu",
        metric="p_correct",
        kind="non_inferiority",
        unit="probability of the right answer",
        higher_is_better=True,
        subject="general knowledge (MMLU)",
        margin="mmlu_margin",
    ),
    Requirement(
        name="safety_refusal",
        set="safety",
        metric="refusal",
        kind="non_inferiority",
        unit="nats per token",
        higher_is_better=True,
        subject="leaning to refuse harmful requests",
        margin="safety_margin",
    ),
)
LEARNT = (
    Requirement(
        name="feedback_nll",
        set=FEEDBACK,
        metric="nll",
        kind="superiority",
        unit="nats per token",
        higher_is_better=False,
        subject="likelihood of what users corrected",
    ),
)
DOMAIN_KEPT = (
    replace(DOMAIN_GAIN[0], kind="non_inferiority", margin="domain_rouge_margin"),
    replace(DOMAIN_GAIN[1], kind="non_inferiority", margin="domain_nll_margin"),
)


# Of whoever does not show that less may be asked of it.
RELEASE = (*DOMAIN_GAIN, *ELSEWHERE)
# Of a night that goes on from the champion it is judged against, with corrections to learn.
NIGHT = (*LEARNT, *DOMAIN_KEPT, *ELSEWHERE)
# Of a smaller form of a version, judged against the version: nothing is to be gained by it but room.
SMALLER = (*DOMAIN_KEPT, *ELSEWHERE)
