"""How often the gate passes what it should not: one-sided error at the boundary, for shapes that differences may have.

Run by `make bench`.

Each row draws n differences whose true mean is exactly the boundary: a gain of 0, or a loss of exactly the margin.
Whatever passes then is an error; the level of 0.95 leaves 2.5% on each side. What is asked is the gate's own criterion.
Shapes, with mean 0 before the boundary is added:

    normal     standard normal
    t          Student's t with 3 degrees of freedom: a few items change far more than the others
    lognormal  exp(normal) less its mean: mostly small losses, a few large ones
    ties       9 items of 10 do not change; the others change by a normal around ten times the boundary
    rare       2 items of 100 lose 1, the others nothing, the margin is 0.02; there is no gain to ask about
    clusters   five items at a time share half their variance, such as questions of one subject
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tasks.core.params import GateParams
from tasks.evaluate.gate.requirements import DOMAIN_GAIN, ELSEWHERE
from tasks.evaluate.gate.stage import answer
from tests.bench.table import options, show

TRIALS, RESAMPLES, MARGIN = 4000, 1000, 0.1
RARE = 0.02  # the share of items that lose 1, and the margin
MARGINS = ("domain_rouge_margin", "domain_nll_margin", "dialogue_margin", "mmlu_margin", "safety_margin")
Draw = Callable[[np.random.Generator, int, float], Any]  # so many differences whose mean is the boundary


def centred(draw: Callable[[np.random.Generator, int], Any]) -> Draw:
    """Differences of mean 0, moved to the boundary."""
    return lambda generator, n, boundary: draw(generator, n) + boundary


def ties(generator: np.random.Generator, n: int, boundary: float) -> Any:
    """One item in ten changes."""
    return np.where(generator.random(n) < 0.1, generator.normal(10 * boundary, 1, n), 0.0)


def rare(generator: np.random.Generator, n: int, boundary: float) -> Any:
    """A share of items that is the boundary loses 1."""
    return (generator.random(n) < boundary).astype(float)


def clusters(generator: np.random.Generator, n: int) -> Any:
    """Five at a time share half their variance."""
    return (np.repeat(generator.normal(size=n // 5), 5) + generator.normal(size=n)) / np.sqrt(2)


NORMAL = centred(lambda generator, n: generator.normal(size=n))
SHAPES: list[tuple[str, Draw, int]] = [
    *(("normal", NORMAL, n) for n in (5, 6, 10, 100)),
    ("t", centred(lambda generator, n: generator.standard_t(3, n)), 100),
    ("lognormal", centred(lambda generator, n: generator.lognormal(size=n) - np.exp(0.5)), 100),
    *(("ties", ties, n) for n in (10, 100)),
    *(("rare", rare, n) for n in (60, 100)),
    ("clusters", centred(clusters), 100),
]


def passes(values: Any, margin: float | None) -> bool:
    """Whether the gate takes them for a gain; or, with a `margin`, for a loss within it."""
    settings = GateParams(level=0.95, resamples=RESAMPLES, **dict.fromkeys(MARGINS, margin or MARGIN))
    requirement = DOMAIN_GAIN[0] if margin is None else ELSEWHERE[0]
    column = (requirement.set, requirement.metric)
    after = {column: {f"{index:03d}": float(value) for index, value in enumerate(values)}}
    before = {column: dict.fromkeys(after[column], 0.0)}
    return answer(requirement, after, before, settings, 1).passed


def error(draw: Draw, n: int, margin: float | None, trials: int) -> str:
    """The share of trials that pass, in percent."""
    generator = np.random.default_rng(7)
    passed = sum(passes(np.round(draw(generator, n, margin or 0.0), 6), margin) for _ in range(trials))
    return f"{100 * passed / trials:.1f}"


def main() -> None:
    """Print the table."""
    rows, trials = [], options(__doc__, trials=TRIALS).trials
    for name, draw, n in SHAPES:
        margin = RARE if name == "rare" else MARGIN
        gain = "–" if name == "rare" else error(draw, n, None, trials)
        rows.append((name, n, gain, error(draw, n, margin, trials)))
    show(f"% of {trials} draws that pass", ("shape", "n", "false gain", "false within margin"), rows)


if __name__ == "__main__":
    main()
