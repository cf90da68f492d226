"""Stage `gate`: is the candidate better where it should be, and no worse elsewhere than its margins allow?

Every criterion is a mean over items, candidate against champion on the same item, with a two-sided interval:

    superiority      the gain; passes when the whole interval lies above 0
    non_inferiority  the loss; passes when the whole interval lies at or below the margin
    floor            the candidate's own mean; passes when the whole interval lies at or above the margin

promote: all pass, no category of questions lost its right answers, and an engine of ours can serve the candidate.
reject: harm is shown. hold: neither. What is asked of a release and of a night is in requirements.py, how it is decided
in decide.py. The gate fails closed: scores that are missing, too many, doubled, not finite, of other models than those
at hand, or evaluated under unequal conditions stop it, and no verdict is left behind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.core import intervals, layout
from tasks.core.benchmarks import load_benchmarks
from tasks.core.files import write_json, write_text
from tasks.core.params import GateParams, load_params
from tasks.core.records import EvaluationItem
from tasks.core.stage import run_stage, write_metrics
from tasks.evaluate.gate.categories import blocked_by_categories
from tasks.evaluate.gate.requirements import NIGHT, RELEASE, of_benchmarks
from tasks.evaluate.gate.scores import (
    Table,
    check_conditions,
    check_sets,
    groups_of,
    ids_of,
    read_conditions,
    read_scores,
)
from tasks.evaluate.gate.verdict import COSTS, held_to, judge
from tasks.evaluate.gate.words import REWORDED
from tasks.evaluate.scoring.questions import FEEDBACK, KEPT, read_items
from tasks.evaluate.scoring.subject import load_subject

STAGE = "gate"
METRICS_FILE = layout.METRICS / "gate.json"
PLOT = layout.PLOTS / "scores.csv"


def gate() -> str:
    """Judge the candidate and write the verdict; returns the outcome, in a sentence."""
    for path in (layout.VERDICT, METRICS_FILE, PLOT):
        path.unlink(missing_ok=True)
    params = load_params()
    candidate, champion = load_subject("candidate"), load_subject("champion")
    items = read_items(corrections=True)
    expected = ids_of(items)
    conditions = read_conditions("candidate")
    check_conditions(conditions, read_conditions("champion"), candidate, champion)
    sets = load_benchmarks(params.domain)
    check_sets(conditions, {one.name: one.definition(layout.DOMAINS / params.domain) for one in sets})
    digests = {one.name: conditions["sets"][one.name]["items"] for one in sets}
    after, before = (read_scores(who, expected, sets, digests) for who in ("candidate", "champion"))
    spent = spent_before() if FEEDBACK in expected else None
    by_night, groups = spent is not None, groups_of(items)
    asked = NIGHT if by_night else RELEASE
    verdict = judge(after, before, candidate, champion, params.gate, params.seed, asked, sets, groups, spent)
    asked_by, told = ("night", (reworded(items),)) if by_night else ("release", ())
    verdict = verdict.model_copy(update={"asked": asked_by, "reasons": (*verdict.reasons, *told)})
    if layout.ANCHOR.is_dir():
        anchor = load_subject("anchor")
        check_conditions(conditions, read_conditions("anchor"), candidate, anchor)
        standing = {name: ids for name, ids in expected.items() if name not in (FEEDBACK, KEPT)}
        first = read_scores("anchor", standing, sets, digests)
        kept = [*asked, *of_benchmarks(sets, gain=False)]
        verdict = held_to(verdict, after, first, anchor, params.gate, params.seed, kept, groups, spent)
    verdict = blocked_by_categories(verdict, items, after, before, params.gate)
    write_text(PLOT, score_table(after, before, params.gate, params.seed))
    passed = sum(criterion.passed for criterion in verdict.criteria)
    write_metrics(STAGE, {"outcome": verdict.outcome, "passed": passed, "criteria": len(verdict.criteria)})
    write_json(layout.VERDICT, verdict.model_dump(mode="json"))
    return f"{verdict.outcome}. " + " ".join(verdict.reasons)


def reworded(items: Sequence[EvaluationItem]) -> str:
    """How many corrections were asked in other words, in a sentence."""
    corrections = [item for item in items if item.set == FEEDBACK]
    return REWORDED.format(reworded=sum(bool(item.paraphrases) for item in corrections), n=len(corrections))


def spent_before() -> dict[str, int] | None:
    """Criterion → how many nights before this one did not pass it since the anchor; None where no night asks.

    A night asks where data/champion and data/start say that it went on from the champion it is judged by.
    """
    paths = (layout.CHAMPION / "champion.json", layout.START / "start.json")
    try:
        champion, start = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        asks = champion["night"] is not None and champion["digest"] == start["digest"]
        return dict(champion["spent"]) if asks else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def score_table(after: Table, before: Table, settings: GateParams, seed: int) -> str:
    """Means of both sides with intervals, as CSV: set, metric, who, value, low, high; tokens are of another scale."""
    lines = ["set,metric,who,value,low,high"]
    for column in sorted(after.keys() - COSTS.keys()):
        for who, table in (("champion", before), ("candidate", after)):
            values = [table[column][key] for key in sorted(table[column])]
            found = intervals.mean_interval(values, level=settings.level, resamples=settings.resamples, seed=seed)
            lines.append(",".join(map(str, (*column, who, found.estimate, found.low, found.high))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(STAGE, gate)
