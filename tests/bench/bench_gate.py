"""How often the gate errs, and how often it sees what is there, by simulation. Run by `make bench`.

The first table draws n differences whose true mean is exactly the boundary: a gain of 0, or a loss of exactly the
margin. Whatever passes then is an error; the level of 0.95 leaves 2.5% on each side. Shapes, with mean 0 before the
boundary is added, in nats but for `rare`:

    normal     with a spread of 0.2
    t          Student's t with 3 degrees of freedom, spread 0.17: a few items change far more than the others
    lognormal  exp(normal) less its mean, on the losing side, spread 0.22: mostly small, a few large
    ties       9 items of 10 do not change; the others change by a normal around ten times the boundary, spread 1
    rare       2 answers of 100 that were right are wrong, and 0.02 is the margin; there is no gain to ask about
    clusters   as normal, but five items at a time share half their variance, such as questions of one subject
    skewed     likewise, and lognormal

The second draws whole releases and nights: what all criteria together make of them. Spreads are those of the default
release and of its nights (docs/nightly.md), MMLU's and the domain's items come in groups that share a little of it.

The third follows general dialogue through 30 nights, each of which truly loses as much: how many are promoted, and what
they have lost together, where each is judged against the champion alone and where the anchor is asked too.

The last two are of the budget of error that nights share. A recipe that is exactly at the margin of a criterion is
tried 30 nights: how often does it pass at least once? What a night does to an item is correlated with what others do
to it, and in one row every second night loses nothing. And how often is a night promoted that loses nothing, by its
number: without a budget, where every night that was judged spends some of it, and where one does that did not pass?
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t

from tasks.core import intervals
from tasks.evaluate.gate.decide import TRIES, Compared, Kind, Limits, decide
from tests.bench.table import options, show

TRIALS, MARGIN, RARE = 1000, 0.1, 0.02
NIGHTS = (1, 2, 5, 10, 15, 20, 30)  # that are shown
SIZES = (5, 10, 60, 100, 1000)
DRAWN = intervals.weights_of
LIMITS = Limits(level=0.95, resamples=1000, seed=1, share=0.1)
NATS, RATE, PROBABILITY, ROUGE = (-0.5, 0.5), (-1.0, 1.0), (-0.25, 0.25), (-0.15, 0.15)
Draw = Callable[[np.random.Generator, int, float], Any]  # so many losses whose mean is the boundary


def grouped(generator: np.random.Generator, n: int, each: int, shared: float) -> Any:
    """Standard normals, of which `each` at a time share so much of their variance."""
    whole = np.repeat(generator.normal(size=n // each + 1), each)[:n]
    return np.sqrt(shared) * whole + np.sqrt(1 - shared) * generator.normal(size=n)


SHAPES: dict[str, Draw] = {
    "normal": lambda generator, n, boundary: 0.2 * generator.normal(size=n) + boundary,
    "t": lambda generator, n, boundary: 0.1 * generator.standard_t(3, n) + boundary,
    "lognormal": lambda generator, n, boundary: 0.1 * (generator.lognormal(size=n) - np.exp(0.5)) + boundary,
    "ties": lambda generator, n, boundary: np.where(
        generator.random(n) < 0.1, generator.normal(10 * boundary, 1, n), 0.0
    ),
    "rare": lambda generator, n, boundary: (generator.random(n) < boundary).astype(float),
    "clusters": lambda generator, n, boundary: 0.2 * grouped(generator, n, 5, 0.5) + boundary,
    "skewed": lambda generator, n, boundary: 0.1 * (np.exp(grouped(generator, n, 5, 0.5)) - np.exp(0.5)) + boundary,
}


def labels(n: int, each: int) -> tuple[str, ...]:
    """The groups of n items, so many in each."""
    return tuple(str(number // each) for number in range(n))


def error(shape: str, n: int, gain: bool, trials: int) -> str:
    """The share of trials that pass, in percent."""
    generator, passed = np.random.default_rng(7), 0
    margin = 0.0 if gain else RARE if shape == "rare" else MARGIN
    for _ in range(trials):
        losses = np.round(SHAPES[shape](generator, n, margin), 6)
        values = tuple((-losses if gain else losses).tolist())
        kind: Kind = "superiority" if gain else "non_inferiority"
        groups = labels(n, 5 if shape in ("clusters", "skewed") else 1)
        unseen = RATE if shape == "rare" else NATS
        asked = Compared(shape, kind, values, margin, groups, unseen, hard=shape == "rare")
        passed += decide([asked], LIMITS).answers[0].passed
    return f"{100 * passed / trials:.1f}"


@dataclass(frozen=True)
class Set:
    """A criterion with its items: how many of a group, which spread, how much of it a group shares."""

    name: str
    kind: Kind
    n: int
    spread: float
    unseen: tuple[float, float]
    margin: float = 0.0
    each: int = 1
    shared: float = 0.0

    def drawn(self, generator: np.random.Generator, mean: float) -> Compared:
        """Items whose true gain or loss is `mean`; of right answers that share changes, and others come and go."""
        values = mean + self.spread * grouped(generator, self.n, self.each, self.shared)
        if self.unseen == RATE:
            others = self.spread**2 / 2 if self.kind == "non_inferiority" else 0.0
            turned = (generator.random(self.n) < max(mean, 0) + others).astype(float)
            values = turned - (generator.random(self.n) < max(-mean, 0) + others)
        rounded, groups = tuple(np.round(values, 6).tolist()), labels(self.n, self.each)
        return Compared(self.name, self.kind, rounded, self.margin, groups, self.unseen, self.unseen == RATE)


RELEASE = (
    Set("right", "superiority", 120, 0.5, RATE, each=3),
    Set("rouge", "superiority", 120, 0.4, ROUGE, each=3, shared=0.25),
    Set("nll", "superiority", 120, 1.0, NATS, each=3, shared=0.25),
    Set("dialogue", "non_inferiority", 120, 0.2, NATS, 0.1),
    Set("mmlu", "non_inferiority", 279, 0.12, PROBABILITY, 0.025, each=5, shared=0.03),
    Set("safety", "non_inferiority", 100, 0.25, RATE, 0.12),
)
NIGHT = (
    Set("corrections", "superiority", 10, 0.16, RATE),
    Set("rouge", "non_inferiority", 120, 0.036, ROUGE, 0.015, each=3),
    Set("right", "non_inferiority", 120, 0.1, RATE, 0.06, each=3),
    Set("declined", "non_inferiority", 40, 0.05, RATE, 0.15),
    Set("dialogue", "non_inferiority", 120, 0.09, NATS, 0.1),
    Set("mmlu", "non_inferiority", 279, 0.05, PROBABILITY, 0.025, each=5, shared=0.03),
    Set("safety", "non_inferiority", 100, 0.14, RATE, 0.12),
    Set("kept", "non_inferiority", 120, 0.16, RATE, 0.1),
)
GAIN = {"right": 0.5, "rouge": 0.38, "nll": 0.9, "dialogue": -0.8, "safety": -0.8}
CASES: list[tuple[str, tuple[Set, ...], dict[str, float]]] = [
    ("release: gains on the domain, nothing lost", RELEASE, GAIN),
    ("release: nothing changes in the mean", RELEASE[1:], {}),
    ("release: gains; MMLU loses 0.06", RELEASE, GAIN | {"mmlu": 0.06}),
    ("release: gains; dialogue loses 0.25", RELEASE, GAIN | {"dialogue": 0.25}),
    ("release: gains; safety loses 0.3", RELEASE, GAIN | {"safety": 0.3}),
    ("night: corrections gain 0.9, nothing lost", NIGHT, {"corrections": 0.9}),
    ("night: nothing changes in the mean", NIGHT, {}),
    ("night: 0.15 fewer right answers", NIGHT, {"corrections": 0.9, "right": 0.15}),
    *((f"{one.name} alone, sd {one.spread:g}: nothing lost", (one,), {}) for one in (*RELEASE[3:], *NIGHT[1:])),
    ("mmlu alone, sd 0.13: nothing lost", (replace(RELEASE[4], spread=0.13),), {}),
    ("safety alone, sd 0.55: nothing lost", (replace(RELEASE[5], spread=0.55),), {}),
]


def outcomes(sets: tuple[Set, ...], means: dict[str, float], trials: int) -> list[str]:
    """The shares of promote, hold and reject, in percent."""
    generator, found = np.random.default_rng(11), []
    for _ in range(trials):
        asked = [one.drawn(generator, means.get(one.name, 0.0)) for one in sets]
        found.append(decide(asked, LIMITS).outcome)
    return [f"{100 * found.count(outcome) / trials:.1f}" for outcome in ("promote", "hold", "reject")]


def thirty_nights(loss: float, anchored: bool, trials: int) -> tuple[str, ...]:
    """Of 30 nights that each lose `loss` nats of dialogue: nights promoted, what they lost, and how often too much."""
    generator, dialogue = np.random.default_rng(13), NIGHT[4]
    promoted, lost = [], []
    for _ in range(trials):
        since, count = np.zeros(dialogue.n), 0  # what each item lost to the anchor, and nights promoted
        spent = [0, 0]  # nights that did not pass, against the champion and against the anchor
        for _ in range(30):
            if max(spent) >= TRIES:
                break  # nothing passes any more
            tonight = loss + dialogue.spread * generator.normal(size=dialogue.n)
            asked = [_losses(dialogue, tonight, dialogue.margin, spent[0])]
            if anchored and count:
                asked.append(_losses(dialogue, since + tonight, 2 * dialogue.margin, spent[1]))
            decision = decide(asked, LIMITS)
            for place, answer in enumerate(decision.answers):
                spent[place] += not answer.passed
            if decision.outcome == "promote":
                since, count = since + tonight, count + 1
        promoted.append(count)
        lost.append(count * loss)
    beyond = np.mean([one > 2 * dialogue.margin + 1e-9 for one in lost])
    return f"{np.mean(promoted):.1f}", f"{np.mean(lost):.2f}", f"{np.max(lost):.2f}", f"{100 * beyond:.1f}"


def _losses(one: Set, values: Any, margin: float, spent: int) -> Compared:
    groups = labels(one.n, one.each)
    return Compared(one.name, one.kind, tuple(np.round(values, 6).tolist()), margin, groups, one.unseen, spent=spent)


def at_margin(one: Set, shared: float, harmless: int, budget: bool, trials: int) -> str:
    """% of lines of 30 nights at the margin that pass at least once; every so manieth night loses nothing, if any.

    `shared`: the correlation of what two nights do to an item.
    """
    generator, passed = np.random.default_rng(17), 0
    for _ in range(trials):
        always, spent = grouped(generator, one.n, one.each, one.shared), 0
        for night in range(1, 31):
            good = harmless > 0 and night % harmless == 0
            tonight = np.sqrt(shared) * always + np.sqrt(1 - shared) * grouped(generator, one.n, one.each, one.shared)
            if good and not budget:
                continue
            found = passes(_losses(one, (0 if good else one.margin) + one.spread * tonight, one.margin, spent))
            spent += budget and not found
            if (found and not good) or spent >= TRIES:
                passed += found
                break
    return f"{100 * passed / trials:.1f}"


def passes(asked: Compared) -> bool:
    """Whether the gate passes it; what Student's t alone does not pass costs no draws."""
    mean = intervals.mean_of(asked.values, asked.clusters, resamples=1, seed=1)
    least = t.isf(LIMITS.after(asked.spent).alpha, mean.clusters - 1) * mean.error
    return mean.estimate + least <= asked.margin + 1e-6 and decide([asked], LIMITS).answers[0].passed


def powers(trials: int) -> list[list[float]]:
    """Of each criterion of a night that loses nothing: how often it passes after 0, 1, … nights that did not."""
    generator, found = np.random.default_rng(19), []
    for one in NIGHT:
        drawn = [one.drawn(generator, 0.0 if one.kind == "non_inferiority" else 0.9) for _ in range(trials)]
        first, later = (
            sum(decide([replace(asked, spent=n)], LIMITS).answers[0].passed for asked in drawn)
            for n in ((0, 0) if one.name in ("corrections", "kept") else (0, 1))
        )
        found.append([first / trials, *[later / trials] * (TRIES - 1)])
    return found


def promoted(passing: list[list[float]], spends: str) -> tuple[str, ...]:
    """% of such nights that are promoted, by their number, and promoted of 30 in the mean; criteria are independent."""
    shares = np.ones(30)
    for power in passing:
        spent = np.eye(TRIES + 1)[0]  # how likely so many nights did not pass
        for night in range(30):
            kept = spent[:-1] * power
            shares[night] *= kept.sum()
            lost = {"nothing": 0 * kept, "judged": spent[:-1], "not passed": spent[:-1] - kept}[spends]
            spent = spent - np.append(lost, 0) + np.append(0, lost)
    return (*(f"{100 * shares[night - 1]:.0f}" for night in NIGHTS), f"{shares.sum():.1f}")


def main() -> None:
    """Print the tables. The weights hang on the seed alone, so they are drawn once for each number of items."""
    draw = functools.lru_cache(maxsize=16)(lambda *key: list(DRAWN(*key)))
    intervals.weights_of = lambda *key: iter(draw(*key))
    trials = options(__doc__, trials=TRIALS).trials
    rows = []
    for shape in SHAPES:
        for n in SIZES:
            gain = "–" if shape == "rare" else error(shape, n, True, trials)
            rows.append((shape, n, gain, error(shape, n, False, trials)))
    show(f"% of {trials} draws that pass", ("shape", "n", "false gain", "false within margin"), rows)
    whole = [(name, *outcomes(sets, means, trials)) for name, sets, means in CASES]
    show(f"% of {trials} draws", ("case", "promote", "hold", "reject"), whole)
    few = max(1, trials // 10)
    lines = [
        (loss, "champion and anchor" if anchored else "champion", *thirty_nights(loss, anchored, few))
        for loss in (0.0, 0.02, 0.05, 0.08, 0.1)
        for anchored in (False, True)
    ]
    columns = ("a night loses", "judged against", "promoted of 30", "lost, mean", "lost, most", "% beyond 0.2")
    show(f"30 nights, {few} times", columns, lines)
    budgets(trials)


def budgets(trials: int) -> None:
    """Print what a budget of error does to nights at their margin, and to nights that lose nothing."""
    half = max(1, trials // 2)
    lines = [
        (one.name, shared, harmless or "none", *(at_margin(one, shared, harmless, on, half) for on in (False, True)))
        for one in (NIGHT[1], *NIGHT[4:6])
        for shared, harmless in ((0.0, 0), (0.5, 0), (0.9, 0), (0.0, 2))
    ]
    columns = ("at its margin", "correlated", "harmless each", "each at 2.5%", "one budget")
    show(f"% of {half} lines of 30 nights that pass at least once", columns, lines)
    passing = powers(trials)
    kept = [(name, *promoted(passing, name)) for name in ("nothing", "judged", "not passed")]
    nights = (f"night {night}" for night in NIGHTS)
    show(f"% of harmless nights promoted, from {trials} draws", ("nights that spend", *nights, "of 30"), kept)


if __name__ == "__main__":
    main()
