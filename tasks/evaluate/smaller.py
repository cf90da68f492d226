"""The gate for a smaller form of a version: quantised or distilled, evaluated and judged against the version itself.

The same OpenCompass run, items, intervals and margins as a release. Since nothing is to be gained on the domain, the
domain is asked for no harm, as it is of a night. What the version scored is mostly in the score cache already.
Runs outside the graph: `flywheel smaller` calls it, and its verdict lies beside the smaller package.
"""

from __future__ import annotations

from pathlib import Path

from tasks.core.files import verify_manifest, write_json
from tasks.core.params import load_params
from tasks.evaluate.gate.requirements import SMALLER
from tasks.evaluate.gate.stage import Table, Verdict, ids_of, judge, table_of
from tasks.evaluate.run.stage import load_tokenizer, responses_to, write_evaluation
from tasks.evaluate.scoring.items import read_items
from tasks.evaluate.scoring.questions import questions_of
from tasks.evaluate.scoring.subject import Subject, load_subject


def judge_smaller(weights: Path, digest: str, folder: Path) -> Verdict:
    """Evaluate models/package and its smaller form, and write the verdict and the smaller form's scores to `folder`.

    Raises SubjectError: models/package is missing or not whole; EvaluationError: OpenCompass failed; NoVerdict: no
    verdict is possible.

    Args:
        weights: the smaller form as safetensors with tokenizer and manifest.
        digest: of its package.
    """
    params = load_params()
    version = load_subject("candidate")
    smaller = Subject("candidate", None, digest, weights, verify_manifest(weights), system=version.system)
    items = read_items()
    questions = questions_of(items, load_tokenizer(smaller.base), smaller.system or "")
    tables: dict[str, Table] = {}
    for name, subject in (("version", version), ("smaller", smaller)):
        responses, _ = responses_to(questions, subject, params.evaluate)
        results = list(zip(questions, responses, strict=True))
        scores = write_evaluation(folder / "evaluation" / name, subject, params.evaluate, results)
        tables[name] = table_of(scores, ids_of(items), f"the {name} form", "ask again")
    verdict = judge(tables["smaller"], tables["version"], smaller, version, params.gate, params.seed, SMALLER)
    write_json(folder / "verdict.json", verdict.model_dump(mode="json"))
    return verdict
