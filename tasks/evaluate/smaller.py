"""The gate for a smaller form of a version, against the version: the run, items, intervals and margins of a release.

Since nothing is to be gained on the domain, it is asked for no harm. Runs outside the graph, for `flywheel smaller`.
"""

from __future__ import annotations

from pathlib import Path

from tasks.core.domain import load_domain
from tasks.core.files import verify_manifest, write_json
from tasks.core.params import load_params
from tasks.evaluate.gate.categories import blocked_by_categories
from tasks.evaluate.gate.requirements import SMALLER
from tasks.evaluate.gate.scores import Table, groups_of, ids_of, table_of
from tasks.evaluate.gate.verdict import Verdict, judge
from tasks.evaluate.run.stage import load_tokenizer, passages_for, responses_to, write_evaluation
from tasks.evaluate.scoring.questions import questions_of, read_items
from tasks.evaluate.scoring.subject import Subject, load_subject
from tasks.text.passages import domain_words


def judge_smaller(weights: Path, digest: str, folder: Path) -> Verdict:
    """Evaluate models/package and its smaller form (safetensors; the digest of its package); verdict to `folder`.

    Raises SubjectError, EvaluationError, NoVerdict: models/package is not whole, OpenCompass failed, nothing to judge.
    """
    params = load_params()
    version = load_subject("candidate")
    smaller = Subject("candidate", None, digest, weights, verify_manifest(weights), system=version.system)
    items = read_items()
    words, found = domain_words(load_domain(params.domain)), passages_for(version, items)
    questions = questions_of(items, load_tokenizer(smaller.base), smaller.system or "", words, found)
    tables: dict[str, Table] = {}
    for name, subject in (("version", version), ("smaller", smaller)):
        responses, _ = responses_to(questions, subject, params.evaluate)
        results = list(zip(questions, responses, strict=True))
        scores = write_evaluation(folder / "evaluation" / name, subject, params.evaluate, results)
        tables[name] = table_of(scores, ids_of(items), f"the {name} form", "ask again")
    sides = (tables["smaller"], tables["version"], smaller, version)
    verdict = judge(*sides, params.gate, params.seed, SMALLER, groups=groups_of(items))
    verdict = blocked_by_categories(verdict, items, tables["smaller"], tables["version"], params.gate)
    write_json(folder / "verdict.json", verdict.model_dump(mode="json"))
    return verdict
