"""The gate for a version that learned documents, against the one before: only what its passages can change is asked.

Both answer with the same weights, greedily, so a question whose prompt is the same has the same answer: its scores are
those that are kept with the version before. Right answers and declining may lose no more than their margins. Runs
outside the graph, for `flywheel learn`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_json, write_text
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, Score, read_own_jsonl
from tasks.evaluate.gate.categories import blocked_by_categories
from tasks.evaluate.gate.requirements import of_learned
from tasks.evaluate.gate.scores import Table, groups_of, ids_of, table_of
from tasks.evaluate.gate.verdict import Verdict, judge
from tasks.evaluate.run.stage import load_tokenizer, passages_for, responses_to, room_of, write_evaluation
from tasks.evaluate.scoring.questions import FACTS, Question, check_fits, means_of, questions_of, read_items, scores_of
from tasks.evaluate.scoring.subject import Subject
from tasks.text.passages import domain_words

SHOWN = ((FACTS, "right"), ("declining", "declined"))  # a person is told which questions lost these


@dataclass(frozen=True)
class Judgement:
    """The verdict; how many items find other passages, and how many responses had to be asked for."""

    verdict: Verdict
    changed: int
    asked: int


def judge_learned(before: Subject, after: Subject, kept: Path, reports: Path) -> Judgement:
    """Judge a package against the version whose weights it has, and whose evaluation is `kept`.

    Its own evaluation and the verdict are written to `reports` as stages do.
    Raises EvaluationError, NoVerdict: OpenCompass failed, or nothing can be judged.
    """
    params, items = load_params(), read_items()
    theirs, ours = (_questions(one, items) for one in (before, after))
    scores = read_own_jsonl(kept / "scores.jsonl", Score)
    known = {score.id for score in scores}
    # An item that was drawn since that evaluation is asked of both.
    other = {
        new.item.id
        for old, new in zip(theirs, ours, strict=True)
        if old.prompt != new.prompt or new.item.id not in known
    }
    print(f"{len(other)} of {len(items)} evaluation items find other passages", flush=True)
    old, new = ([one for one in side if one.item.id in other] for side in (theirs, ours))
    check_fits(new, load_tokenizer(after.base), room_of(after, params), params.evaluate.max_new_tokens)
    # One after the other, since OpenCompass tells questions apart by their items; the first are mostly known.
    (first, count), (second, more) = (responses_to(side, after, params.evaluate) for side in (old, new))
    rest = [score for score in scores if score.id in {item.id for item in items} - other]
    scored = [score for pair in zip(old, first, strict=True) for score in scores_of(*pair)]
    folder = reports / layout.EVALUATION.name / "candidate"
    results = list(zip(new, second, strict=True))
    tables = [
        table_of([*rest, *found], ids_of(items), f"the evaluation of the {one.who}", "run a whole release")
        for one, found in ((before, scored), (after, write_evaluation(folder, after, params.evaluate, results)))
    ]
    verdict = _verdict(tables, before, after, items, other)
    _take_over(kept, folder, {score.id for score in rest})
    means = means_of(read_own_jsonl(folder / "scores.jsonl", Score))
    write_json(reports / layout.METRICS.name / "evaluate_candidate.json", means)
    write_json(reports / layout.VERDICT.name, verdict.model_dump(mode="json"))
    return Judgement(verdict, len(other), count + more)


def _questions(subject: Subject, items: Sequence[EvaluationItem]) -> list[Question]:
    words = domain_words(load_domain(load_params().domain))
    tokenizer, found = load_tokenizer(subject.base), passages_for(subject, items)
    return questions_of(items, tokenizer, subject.system or "", words, found)


def _verdict(
    tables: Sequence[Table], before: Subject, after: Subject, items: Sequence[EvaluationItem], ids: set[str]
) -> Verdict:
    """The verdict on what was asked, with the questions that lost; where no question was, nothing can be worse."""
    params, (old, new) = load_params(), tables
    criteria = [
        one for one in of_learned(has_facts=SHOWN[0] in new) if not ids.isdisjoint(new.get((one.set, one.metric), ()))
    ]
    verdict = judge(new, old, after, before, params.gate, params.seed, criteria, groups=groups_of(items))
    verdict = blocked_by_categories(verdict, items, new, old, params.gate)
    worse = [
        f"Worse: {item.prompt}"
        for item in items
        if item.id in ids and any(new[at].get(item.id, 0.0) < old[at].get(item.id, 0.0) for at in SHOWN if at in new)
    ]
    return verdict.model_copy(update={"reasons": (*verdict.reasons, *worse)})


def _take_over(kept: Path, folder: Path, ids: set[str]) -> None:
    """Add the kept scores and answers of these items, behind those that were asked now."""
    for name in ("scores.jsonl", "answers.jsonl"):
        lines = (kept / name).read_text(encoding="utf-8").splitlines(keepends=True)
        rest = [line for line in lines if json.loads(line)["id"] in ids]
        write_text(folder / name, (folder / name).read_text(encoding="utf-8") + "".join(rest))
