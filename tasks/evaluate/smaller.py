"""The gate for a smaller form of a version: quantised or distilled, measured and judged against the version itself.

The same OpenCompass run, items, intervals and margins as a release. Since nothing is to be gained on the domain, the
domain is asked for no harm, as it is of a night. What the version scored is mostly in the score cache already.
Runs outside the graph: `flywheel smaller` calls it, and its verdict lies beside the smaller package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tasks.core.files import verify_manifest, write_json
from tasks.core.params import load_params
from tasks.evaluate.gate.requirements import SMALLER
from tasks.evaluate.gate.stage import Table, Verdict, judge, table_of
from tasks.evaluate.run.stage import conditions_of, load_tokenizer, measure, read_items, write_evaluation
from tasks.evaluate.scoring.questions import questions_of, scores_of
from tasks.evaluate.scoring.subject import Subject, load_subject


def smaller_subject(weights: Path, digest: str) -> Subject:
    """A smaller form: the folder with its weights (a manifest in it), and its package's digest."""
    return Subject("candidate", None, digest, weights, verify_manifest(weights), None, None)


def judge_smaller(weights: Path, digest: str, folder: Path) -> Verdict:
    """Measure models/package and its smaller form, and write the verdict and the smaller form's scores to `folder`.

    Args:
        weights: the smaller form as safetensors with tokenizer and manifest.
        digest: of its package.

    Raises:
        SubjectError: models/package is missing or not whole.
        EvaluationError: OpenCompass failed.
        GateBlocked: no verdict is possible.
    """
    params = load_params()
    version = load_subject("candidate")
    smaller = replace(smaller_subject(weights, digest), system=version.system)
    items = read_items()
    questions = questions_of(items, load_tokenizer(smaller.base), smaller.system or "")
    conditions = conditions_of(params.evaluate)
    end_of_turn = load_tokenizer(version.base).eos_token_id
    expected = {str(name): frozenset(i.id for i in items if i.set == name) for name in {i.set for i in items}}
    tables: list[Table] = []
    for subject in (version, smaller):
        outcomes, _ = measure(questions, subject, conditions, params.evaluate, end_of_turn)
        results = list(zip(questions, outcomes, strict=True))
        scores = [score for question, outcome in results for score in scores_of(question, outcome)]
        tables.append(
            table_of(scores, expected, f"the {'version' if subject is version else 'smaller form'}", "ask again")
        )
    write_evaluation(folder / "evaluation", folder / "metrics.json", smaller, conditions, results)
    verdict = judge(tables[1], tables[0], smaller, version, params.gate, params.seed, SMALLER)
    write_json(folder / "verdict.json", verdict.model_dump(mode="json"))
    return verdict
