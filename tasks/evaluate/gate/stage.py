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
from tasks.core.benchmarks import Benchmark, load_benchmarks
from tasks.core.files import write_json, write_text
from tasks.core.params import GateParams, load_params
from tasks.core.records import EvaluationItem
from tasks.core.stage import run_stage, write_metrics
from tasks.evaluate.gate.categories import blocked_by_categories
from tasks.evaluate.gate.requirements import LEARNT, NIGHT, RELEASE, RENEWAL, Requirement, of_benchmarks
from tasks.evaluate.gate.scores import (
    Table,
    check_conditions,
    check_sets,
    groups_of,
    ids_of,
    read_conditions,
    read_scores,
)
from tasks.evaluate.gate.verdict import COSTS, Asked, held_to, judge
from tasks.evaluate.gate.words import RENEWALS, RENEWED, REWORDED
from tasks.evaluate.scoring.questions import FEEDBACK, KEPT, read_items
from tasks.evaluate.scoring.subject import Who, load_subject

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
    by, asked, spent, told = asked_of(FEEDBACK in expected)
    groups, told = groups_of(items), [*told, reworded(items)] if LEARNT in asked else told
    verdict = judge(after, before, candidate, champion, params.gate, params.seed, asked, sets, groups, spent)
    verdict = verdict.model_copy(update={"asked": by, "reasons": (*verdict.reasons, *told)})
    standing = {name: ids for name, ids in expected.items() if name not in (FEEDBACK, KEPT)}
    for who, wanted in beside(by, asked, sets).items():
        earlier = load_subject(who)
        check_conditions(conditions, read_conditions(who), candidate, earlier)
        first = read_scores(who, standing, sets, digests)
        verdict = held_to(verdict, after, first, earlier, params.gate, params.seed, wanted, groups, spent)
    verdict = blocked_by_categories(verdict, items, after, before, params.gate)
    write_text(PLOT, score_table(after, before, params.gate, params.seed))
    passed = sum(criterion.passed for criterion in verdict.criteria)
    write_metrics(STAGE, {"outcome": verdict.outcome, "passed": passed, "criteria": len(verdict.criteria)})
    write_json(layout.VERDICT, verdict.model_dump(mode="json"))
    return f"{verdict.outcome}. " + " ".join(verdict.reasons)


def beside(by: Asked, asked: Sequence[Requirement], sets: Sequence[Benchmark]) -> dict[Who, list[Requirement]]:
    """What is asked against others than the champion: the base model, for a renewal, and the anchor of the line."""
    wanted: dict[Who, list[Requirement]] = {}
    if by == "renewal":
        wanted["base"] = [*RELEASE, *of_benchmarks(sets, gain=True)]
    if layout.ANCHOR.is_dir():
        wanted["anchor"] = [*asked, *of_benchmarks(sets, gain=False)]
    return wanted


def reworded(items: Sequence[EvaluationItem]) -> str:
    """How many corrections were asked in other words, in a sentence."""
    corrections = [item for item in items if item.set == FEEDBACK]
    return REWORDED.format(reworded=sum(bool(item.paraphrases) for item in corrections), n=len(corrections))


def asked_of(corrections: bool) -> tuple[Asked, Sequence[Requirement], dict[str, int], list[str]]:
    """As what the candidate is judged, and by what; how often nights have not passed a criterion; what to tell of it.

    A night with `corrections` asks where data/champion and data/start say that it went on from the champion it is
    judged by. It is a renewal where the champion's line has drifted and it began at the base model; so is whatever did
    not go on from a champion that knows what was forgotten, a night or not. In doubt it is a release.
    """
    paths = (layout.CHAMPION / "champion.json", layout.START / "start.json")
    try:
        champion, start = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        night, spent, began = champion["night"] is not None, dict(champion["spent"]), start["digest"]
        if night and corrections and began == champion["digest"]:
            return "night", NIGHT, spent, []
        why, must = champion["renewal"], {"forgotten": began != champion["digest"], "drifted": night and began is None}
        if must.get(why) and (corrections or not night):
            return "renewal", NIGHT if night else RENEWAL, spent, [RENEWED.format(why=RENEWALS[why])]
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return "release", RELEASE, {}, []


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
