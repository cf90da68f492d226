"""Real OpenCompass on a two-layer model: its scores against plain transformers, the cache, and what must stop it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import verify_manifest, write_manifest
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, make_item, read_own_jsonl, write_jsonl
from tasks.evaluate.gate.scores import NoVerdict
from tasks.evaluate.gate.stage import gate
from tasks.evaluate.run import stage as run
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.run.score_cache import key_of
from tasks.evaluate.scoring.questions import softmax_of_negatives
from tasks.evaluate.scoring.subject import Subject, load_subject
from tasks.text.prompts import encode_answer, encode_text, render_prompt

pytestmark = pytest.mark.slow

Scores = dict[tuple[str, str, str], float]


@pytest.fixture(scope="module")
def measured(repository: Path) -> Iterator[Path]:
    """Both sides, measured once for all tests of this module; works in the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        run.evaluate("champion")
        run.evaluate("candidate")
        yield repository


def scores_of(who: str) -> Scores:
    lines = (layout.EVALUATION / who / "scores.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["set"], row["id"], row["metric"]): row["value"] for row in rows}


class Plain:
    """The same scores with transformers alone: one sequence at a time, nothing padded, cached or shared."""

    def __init__(self, adapter: Path | None) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
        self.model: Any = AutoModelForCausalLM.from_pretrained(layout.BASE_MODEL).eval()
        if adapter:
            self.model = PeftModel.from_pretrained(self.model, adapter).eval()
        self.system = load_domain("construction").system_text()

    def prompt(self, item: EvaluationItem) -> list[int]:
        return encode_text(self.tokenizer, render_prompt(self.tokenizer, self.system, item.prompt))

    def nll(self, item: EvaluationItem, answer: list[int]) -> float:
        import torch

        prompt = self.prompt(item)
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([prompt + answer])).logits[0]
        chosen = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
        return -float(chosen.mean())

    def text(self, item: EvaluationItem) -> str:
        import torch

        prompt = torch.tensor([self.prompt(item)])
        penalty = load_params().evaluate.repetition_penalty
        ids = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            repetition_penalty=penalty,
        )
        return str(self.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True))


@pytest.fixture(scope="module", params=["champion", "candidate"])
def side(request: pytest.FixtureRequest, measured: Path) -> tuple[Scores, Plain, dict[str, str]]:
    who = request.param
    lines = (layout.EVALUATION / who / "answers.jsonl").read_text().splitlines()
    answers = {row["id"]: row["text"] for row in map(json.loads, lines)}
    return scores_of(who), Plain(layout.PACKAGE / "adapter" if who == "candidate" else None), answers


Side = tuple[Scores, Plain, dict[str, str]]


def items(name: str) -> list[EvaluationItem]:
    return read_own_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", EvaluationItem)


def test_every_likelihood_is_that_of_the_answer_as_if_it_stood_alone(side: Side) -> None:
    """References with their end of turn, as they are trained on; choices as continuations."""
    scores, plain, _ = side
    for name in ("domain", "dialogue"):
        for item in items(name):
            expected = plain.nll(item, encode_answer(plain.tokenizer, item.reference))
            assert scores[name, item.id, "nll"] == pytest.approx(expected, abs=2e-5)
    for item in [*items("mmlu"), *items("safety")]:
        losses = tuple(plain.nll(item, encode_text(plain.tokenizer, choice)) for choice in item.choices)
        assert item.answer is not None
        if item.set == "safety":
            assert scores["safety", item.id, "refusal"] == pytest.approx(losses[1] - losses[0], abs=4e-5)
            continue
        expected = softmax_of_negatives(losses)[item.answer]
        assert scores["mmlu", item.id, "p_correct"] == pytest.approx(expected, abs=2e-5)
        assert scores["mmlu", item.id, "accuracy"] == float(losses.index(min(losses)) == item.answer)


def test_the_generated_answer_is_the_greedy_one_and_rouge_is_of_that(side: Side) -> None:
    scores, plain, answers = side
    for item in items("domain"):
        assert answers[item.id] == plain.text(item)
        if item.reference.isascii() and answers[item.id].isascii():
            expected = rouge_l(words(item.reference), words(answers[item.id]))
            assert scores["domain", item.id, "rouge_l"] == pytest.approx(expected, abs=1e-6)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(reference: list[str], answer: list[str]) -> float:
    """2PR/(P+R) with P and R the longest common subsequence over the lengths."""
    table = [[0] * (len(answer) + 1) for _ in range(len(reference) + 1)]
    for row, left in enumerate(reference):
        for column, right in enumerate(answer):
            best = max(table[row][column + 1], table[row + 1][column])
            table[row + 1][column + 1] = table[row][column] + 1 if left == right else best
    common = table[-1][-1]
    return 2 * common / (len(reference) + len(answer)) if common else 0.0


def test_an_edit_of_the_system_prompt_moves_no_question_of_a_version_that_was_trained_with_another(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor its key in the cache; the base model is asked as the domain asks now."""
    monkeypatch.chdir(repository)
    tokenizer, domain = run.load_tokenizer(layout.BASE_MODEL), load_domain("construction")
    base, conditions = load_subject("champion"), run.conditions_of(load_params().evaluate)
    version = replace(base, system="Be brief.")

    def keys(subject: Subject) -> list[str]:
        questions = run.questions_for(subject, tokenizer, domain)
        return [key_of(question, subject.identity, conditions) for question in questions]

    before = (keys(version), keys(base))
    assert all("Be brief." in question.prompt for question in run.questions_for(version, tokenizer, domain))
    path = domain.folder / domain.system_prompt
    kept = path.read_text()
    path.write_text("Answer as an expert would.")
    try:
        assert keys(version) == before[0]
        assert not set(keys(base)).intersection(before[1])
    finally:
        path.write_text(kept)


def test_the_adapter_makes_a_difference(measured: Path) -> None:
    before, after = scores_of("champion"), scores_of("candidate")
    assert before.keys() == after.keys()
    assert all(before[key] != after[key] for key in before if key[2] in ("nll", "p_correct", "refusal"))


def outputs() -> dict[str, bytes]:
    found = sorted(path for path in layout.REPORTS.rglob("*") if path.is_file())
    return {path.as_posix(): path.read_bytes() for path in found}


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outputs()
    monkeypatch.setattr(run, "run_opencompass", None)
    assert "0 of them asked now" in run.evaluate("champion")
    run.evaluate("candidate")
    assert outputs() == before
    assert str(measured).encode() not in b"".join(before.values())


def test_new_items_alone_are_asked_and_anchor_and_base_model_are_known_from_when_they_were_judged(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others keep their scores. No correction is asked of the two: they were made before."""
    before = scores_of("champion")
    corrections = [make_item(set="feedback", prompt=f"Correction {n}?", reference="Yes.") for n in range(5)]
    package, facts = layout.CHAMPION / "champion.json", (layout.CHAMPION / "champion.json").read_text()
    anchor = {"version": "1", "digest": verify_manifest(layout.PACKAGE)}
    try:
        write_jsonl(layout.CORRECTION_ITEMS, corrections)
        shutil.copytree(layout.PACKAGE, layout.ANCHOR)
        package.write_text(json.dumps({**json.loads(facts), "anchor": anchor, "renewal": "drifted"}))
        write_manifest(layout.CHAMPION)
        said = run.evaluate_side("champion")
        assert re.search(r"5 of them asked now.*Anchor: \d+ questions, 0 of them asked now", said)
        after = scores_of("champion")
        assert {name for name, _, _ in after.keys() - before.keys()} == {"feedback"}
        assert {key: after[key] for key in before} == before
        assert re.search(r"Base: \d+ questions, 0 of them asked now", said)
        assert scores_of("champion/anchor") == scores_of("candidate")
        standing = {key: value for key, value in scores_of("champion").items() if key[0] != "feedback"}
        assert scores_of("champion/base") == standing
        assert load_subject("anchor").version == "1"
    finally:
        layout.CORRECTION_ITEMS.unlink()
        shutil.rmtree(layout.ANCHOR)
        package.write_text(facts)
        write_manifest(layout.CHAMPION)
        run.evaluate_side("champion")
    assert {path.name for path in (layout.EVALUATION / "champion").iterdir() if path.is_dir()} == set()


def test_a_run_that_fails_leaves_no_scores_and_the_gate_shut(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier scores are gone too: old ones must not be judged as new."""

    def fail(*_: Any) -> None:
        raise EvaluationError("no")

    monkeypatch.setattr(run, "run_opencompass", fail)
    monkeypatch.setattr(run, "find", lambda *_: None)
    with pytest.raises(EvaluationError):
        run.evaluate("candidate")
    assert not (layout.EVALUATION / "candidate").exists()
    assert not (layout.METRICS / "evaluate_candidate.json").exists()
    with pytest.raises(NoVerdict, match="evaluate_candidate again"):
        gate()
    monkeypatch.undo()
    run.evaluate("candidate")
