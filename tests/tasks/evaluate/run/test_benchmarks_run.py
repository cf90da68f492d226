"""Benchmarks of a domain, run by the real OpenCompass on a two-layer model: its own, and two by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.benchmarks import load_benchmarks
from tasks.core.domain import load_domain
from tasks.core.records import make_item, write_jsonl
from tasks.evaluate.gate.scores import NoVerdict
from tasks.evaluate.gate.stage import gate
from tasks.evaluate.run import benchmarks, stage
from tasks.evaluate.run.opencompass_process import EvaluationError

pytestmark = pytest.mark.slow

DOMAIN = Path("domains/construction")
# Questions and answers of our own; a model of two layers answers none of them. So many that none right shows harm.
COLOURS = [{"question": f"Which colour is thing {number}?", "answer": "blue"} for number in range(40)]
CONFIG = """
from opencompass.datasets import JsonlDataset
from opencompass.openicl.icl_evaluator import AccwithDetailsEvaluator
from opencompass.openicl.icl_inferencer import GenInferencer
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.openicl.icl_retriever import ZeroRetriever

rounds = [dict(role="SYSTEM", prompt="One word."), dict(role="HUMAN", prompt="{question}"), dict(role="BOT", prompt="")]
colours_datasets = [
    dict(
        abbr="colours",
        type=JsonlDataset,
        path="colours.jsonl",
        reader_cfg=dict(input_columns=["question"], output_column="answer"),
        infer_cfg=dict(
            prompt_template=dict(type=PromptTemplate, template=dict(round=rounds)),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer, max_out_len=4),
        ),
        eval_cfg=dict(evaluator=dict(type=AccwithDetailsEvaluator)),
    )
]
"""
SUMS = [{"question": f"What is {one} and 1?", "answer": f"Add them.\n#### {one + 1}"} for one in range(6)]
LAW = [
    ("question", "A", "B", "C", "D", "answer"),
    *((f"第{one}条?", "甲", "乙", "丙", "丁", "ABCD"[one % 4]) for one in range(6)),
]
SETS: list[dict[str, Any]] = [
    {"name": "colours", "config": "evaluation/colours/colours.py", "gate": {"floor": 0.5}},
    {"name": "sums", "opencompass": "gsm8k_gen", "data": "evaluation/opencompass", "gate": "superiority", "most": 5},
    {"name": "law", "opencompass": "ceval_ppl", "data": "evaluation/opencompass", "only": ["ceval-law"]},
]


def lay_sets(folder: Path, sets: list[dict[str, Any]]) -> None:
    (folder / "evaluation.yaml").write_text(yaml.safe_dump(sets, sort_keys=False, allow_unicode=True))


def lay_data(folder: Path) -> None:
    """A user's configuration with its rows, and rows of our own as OpenCompass's loaders look for theirs."""
    own, gsm8k, ceval = (folder / "evaluation" / name for name in ("colours", "opencompass/data/gsm8k",
                                                                  "opencompass/data/ceval/formal_ceval"))  # fmt: skip
    for path in (own, gsm8k, *(ceval / split for split in ("dev", "val", "test"))):
        path.mkdir(parents=True)
    (own / "colours.py").write_text(CONFIG)
    (own / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in COLOURS))
    for split in ("train", "test"):
        (gsm8k / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    for split in ("dev", "val", "test"):
        with (ceval / split / f"law_{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(LAW)


@pytest.fixture(scope="module")
def measured(repository: Path) -> Iterator[Path]:
    """Both sides, measured once; a domain without MMLU and safety."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        for path in layout.EVALUATION_ITEMS.glob("*.jsonl"):
            path.write_text("")
        for name in ("domain", "dialogue"):
            items = [make_item(set=name, prompt=f"{name} {one}?", reference=f"Yes, {one}.") for one in range(6)]
            write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", items)
        settings = yaml.safe_load(layout.PARAMS.read_text())
        settings["evaluate"]["batch_size"] = 8  # all long answers at once
        layout.PARAMS.write_text(yaml.safe_dump(settings))
        lay_data(DOMAIN)
        lay_sets(DOMAIN, SETS)
        stage.evaluate("champion")
        stage.evaluate("candidate")
        yield repository


def values_of(who: str, name: str) -> dict[str, float]:
    lines = (layout.EVALUATION / who / "scores.jsonl").read_text().splitlines()
    return {row["id"]: row["value"] for row in map(json.loads, lines) if row["set"] == name}


def predictions(name: str) -> dict[str, Any]:
    found = layout.HOME.glob(f"evaluation/candidate/sets_*/runs/*/predictions/candidate/{name}_000.json")
    return dict(json.loads(next(found).read_text()))


def test_every_item_of_every_set_has_one_score_on_either_side(measured: Path) -> None:
    for name, items in (("colours", 40), ("sums", 5), ("law", 6)):
        before, after = values_of("champion", name), values_of("candidate", name)
        assert before.keys() == after.keys() and len(after) == items
        assert set(after.values()) <= {0.0, 1.0}
    assert set(values_of("candidate", "colours").values()) == {0.0}


def test_prompts_are_the_models_own_conversation_under_the_system_prompt_it_is_served_with(measured: Path) -> None:
    """Begun once, few-shot examples as turns, a set's own SYSTEM text after ours; likelihoods of the answer alone."""
    system = load_domain("construction").system_text()
    asked = predictions("colours")["0"]["origin_prompt"]
    assert asked == (
        f"<|im_start|>system\n{system}\nOne word.<|im_end|>\n<|im_start|>user\nWhich colour is thing 0?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    shots = predictions("sums")["0"]["origin_prompt"]
    assert shots.startswith(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nQuestion: Angelo")
    assert shots.count("<|im_start|>assistant\n") == 5 and shots.endswith(
        "\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    )
    scored = predictions("law")["0"]["label: D"]["testing input"]
    assert scored.endswith("<|im_start|>assistant\n\x1eD") and scored.count("\x1e") == 1


def test_a_likelihood_is_the_mean_of_the_answers_tokens_as_plain_transformers_gives_it(measured: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    base = AutoModelForCausalLM.from_pretrained(layout.BASE_MODEL)
    model: Any = PeftModel.from_pretrained(base, layout.PACKAGE / "adapter").eval()
    found = predictions("law")["3"]["label: B"]
    prompt, answer = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in found["testing input"].split("\x1e")
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    chosen = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    assert found["PPL"] == pytest.approx(-float(chosen.mean()), abs=2e-5)


def test_the_users_own_benchmark_decides_the_verdict_and_the_others_are_in_it(measured: Path) -> None:
    gate()
    verdict = json.loads(layout.VERDICT.read_text())
    kinds = {one["name"]: one["kind"] for one in verdict["criteria"]}
    assert (kinds["colours_correct"], kinds["sums_correct"]) == ("floor", "superiority")
    assert "law_correct" in {one["name"] for one in verdict["reported"]}
    assert verdict["outcome"] == "reject"
    assert any(reason.startswith("Colours reaches 0.000") for reason in verdict["reasons"])
    lay_sets(DOMAIN, [{**SETS[0], "gate": "report"}, *SETS[1:]])
    gate()  # on the same scores
    assert json.loads(layout.VERDICT.read_text())["outcome"] == "hold"
    lay_sets(DOMAIN, SETS)


def test_a_second_run_asks_nothing_and_only_a_set_whose_data_changed_is_asked_again(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (layout.EVALUATION / "candidate/scores.jsonl").read_bytes()
    asked: list[str] = []
    ask = benchmarks._ask

    def watched(sets: Any, *others: Any) -> Any:
        asked.extend(one.name for one in sets)
        return ask(sets, *others)

    monkeypatch.setattr(benchmarks, "_ask", watched)
    stage.evaluate("candidate")
    assert (asked, (layout.EVALUATION / "candidate/scores.jsonl").read_bytes()) == ([], before)
    rows = DOMAIN / "evaluation/colours/colours.jsonl"
    kept = rows.read_text()
    rows.write_text(kept + json.dumps({"question": "And this?", "answer": "red"}) + "\n")
    try:
        stage.evaluate("candidate")
        assert asked == ["colours"] and len(values_of("candidate", "colours")) == 41
        with pytest.raises(NoVerdict, match=r"different conditions .sets"):
            gate()
    finally:
        rows.write_text(kept)
        stage.evaluate("candidate")
    assert asked == ["colours"]


def test_what_cannot_be_run_is_refused_by_name_and_leaves_no_score(measured: Path) -> None:
    """Other causes are in test_opencompass_model.py."""
    lay_sets(DOMAIN, [{**SETS[1], "opencompass": "mmlu_gen"}])
    try:
        assert load_benchmarks("construction")
        with pytest.raises(EvaluationError, match=r"the set sums: .*its data are not here: .*nothing is fetched"):
            stage.evaluate("candidate")
        assert not (layout.EVALUATION / "candidate").exists()
    finally:
        lay_sets(DOMAIN, SETS)
        stage.evaluate("candidate")
