"""What the gate asks: of a release a gain on the domain, of a night that it learnt its corrections, of both no harm.

Ten corrections cannot show a gain on a hundred other questions, so a night may lose no more on the domain than its
margins allow. What it answers to them is asked in other words, where their authors gave some. What had to begin anew, a
renewal, is asked for no harm against the champion, and for a release's gain over the base model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.core.benchmarks import Benchmark, Floor, NonInferiority
from tasks.core.params import GateParams
from tasks.evaluate.gate.decide import Kind
from tasks.evaluate.scoring.questions import COST, FACTS, FEEDBACK, KEPT

SHARES, NATS = "of the items", "nats per token"
WORDS = "of their words"
ROUGE_UNIT, PROBABILITY = "ROUGE-L F1", "probability of the right answer"
UNITS = {
    **dict.fromkeys(
        ("right", "declined", "correct", "contradicted", "cited", "degenerate", "accuracy", "refused", "withheld"),
        SHARES,
    ),
    **dict.fromkeys(COST, "tokens"),
    **{"said": WORDS, "rouge_l": ROUGE_UNIT, "nll": NATS, "refusal": NATS, "p_correct": PROBABILITY},
}
# Which setting says how much of a unit an item loses at a catastrophe; of shares an item loses 1 at most.
CATASTROPHES = {
    NATS: "catastrophe_nats",
    PROBABILITY: "catastrophe_probability",
    ROUGE_UNIT: "catastrophe_rouge",
}


@dataclass(frozen=True)
class Requirement:
    """A criterion before it is judged.

    `margin` names the setting that bounds a loss, or is the bound itself: of a loss, or of the candidate's own mean
    where a floor is asked. A gain must exceed 0. `more`: whether more is better; None leaves it to the metric. `since`:
    against what it is asked, "anchor" or "base", where that is not the champion.
    """

    set: str
    metric: str
    kind: Kind
    subject: str
    margin: str | float = ""
    more: bool | None = None
    since: str = ""

    @property
    def name(self) -> str:
        """As the verdict and the metrics call it."""
        return f"{self.set}_{self.metric}" + (f"_since_{self.since}" if self.since else "")

    def bound(self, settings: GateParams) -> float:
        """The margin in its unit."""
        named = self.margin
        return float(getattr(settings, named) if isinstance(named, str) and named else named or 0.0)

    @property
    def unit(self) -> str:
        """What its difference is counted in."""
        return UNITS.get(self.metric, self.metric)

    @property
    def higher_is_better(self) -> bool:
        """Of our own metrics a loss alone should fall."""
        return self.metric != "nll" if self.more is None else self.more


RIGHT = Requirement(FACTS, "right", "superiority", "the share of right answers")
ROUGE = Requirement("domain", "rouge_l", "superiority", "agreement with the domain's reference answers")
LIKELIHOOD = Requirement("domain", "nll", "superiority", "likelihood of the domain's reference answers")
DOMAIN_GAIN = (RIGHT, ROUGE, LIKELIHOOD)
ROUGE_KEPT = replace(ROUGE, kind="non_inferiority", margin="domain_rouge_margin")
DOMAIN_KEPT = (ROUGE_KEPT, replace(LIKELIHOOD, kind="non_inferiority", margin="domain_nll_margin"))
RIGHT_KEPT = replace(RIGHT, kind="non_inferiority", margin="right_margin")
DECLINED_KEPT = Requirement(
    "declining",
    "declined",
    "non_inferiority",
    "the share of unanswerable questions that are declined",
    "declined_margin",
)
ELSEWHERE = (
    Requirement("dialogue", "nll", "non_inferiority", "general dialogue", "dialogue_margin"),
    Requirement("mmlu", "p_correct", "non_inferiority", "general knowledge (MMLU)", "mmlu_margin"),
    Requirement("safety", "withheld", "non_inferiority", "the share of harmful requests not met", "safety_margin"),
)
LEARNT = Requirement(FEEDBACK, "said", "superiority", "what is answered of users' corrections")
KEPT_SAID = Requirement(
    KEPT, "said", "non_inferiority", "what is answered of earlier corrections, and beside new ones,", "kept_margin"
)

# Of whoever does not show that less may be asked of it.
RELEASE = (*DOMAIN_GAIN, *ELSEWHERE)
# What is answered, where nothing has to be gained. Not how likely the reference is: who learns to quote its passages
# more firmly finds it less likely, and answers as before.
ANSWERS_KEPT = (RIGHT_KEPT, ROUGE_KEPT, DECLINED_KEPT)
# Of a renewal; what it gained on the base model is asked besides (since_base).
RENEWAL = (KEPT_SAID, *ANSWERS_KEPT, *ELSEWHERE)
# Of a night that goes on from the champion it is judged against, with corrections to learn; of a renewal with such too.
NIGHT = (LEARNT, *RENEWAL)
# Of a smaller form of a version, judged against the version: nothing is to be gained by it but room.
SMALLER = (*DOMAIN_KEPT, *ELSEWHERE)


def since_anchor(asked: Sequence[Requirement], settings: GateParams, version: str) -> list[Requirement]:
    """Of whoever is judged against a champion that nights have made: to have lost, since the version that its line is
    anchored at, at most twice what may be lost to the champion. `asked` is what is asked against the champion.
    """
    wanted = dict.fromkeys((*ANSWERS_KEPT, *(one for one in asked if one.kind == "non_inferiority")))
    return [
        replace(one, margin=2 * one.bound(settings), subject=f"{one.subject}, since version {version},", since="anchor")
        for one in wanted
    ]


def since_base(asked: Sequence[Requirement]) -> list[Requirement]:
    """Of a renewal: the gains among `asked`, which is what is asked of a release, on the base model."""
    gains = (one for one in asked if one.kind == "superiority")
    return [replace(one, subject=f"{one.subject}, over the base model,", since="base") for one in gains]


def of_learned(has_facts: bool) -> tuple[Requirement, ...]:
    """Of a version that only learned documents: what its passages are for, as far as the items can tell."""
    return (*((RIGHT_KEPT,) if has_facts else DOMAIN_KEPT), DECLINED_KEPT)


def of_benchmarks(sets: Sequence[Benchmark], gain: bool) -> list[Requirement]:
    """Of the domain's own benchmarks that decide; `gain`: whether a gain may be asked, which no night can show."""
    found = []
    for one in sets:
        asked = (one.name, one.metric)
        if isinstance(one.gate, NonInferiority):
            kept = one.gate.non_inferiority
            found.append(Requirement(*asked, "non_inferiority", one.name, kept, one.higher_is_better))
        elif isinstance(one.gate, Floor):
            found.append(Requirement(*asked, "floor", one.name, one.gate.floor))
        elif one.gate == "superiority" and gain:
            found.append(Requirement(*asked, "superiority", one.name, more=one.higher_is_better))
    return found
