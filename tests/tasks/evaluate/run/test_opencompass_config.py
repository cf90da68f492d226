"""What OpenCompass is given."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.records import make_item
from tasks.evaluate.run.opencompass_config import data_sets_of, local_model, write_inputs
from tasks.evaluate.run.score_cache import Conditions
from tasks.evaluate.scoring.questions import BOUNDARY, Question
from tasks.evaluate.scoring.subject import Subject

SUBJECT = Subject("candidate", None, "d" * 64, Path("/base"), "b" * 64, Path("/adapter"))
CONDITIONS = Conditions("opencompass/huggingface", "fp32", "cpu", 4, 32, 1.1, threads=2, lock="", source="")


def generation(prompt: str) -> Question:
    item = make_item(set="domain", prompt=prompt, reference="Yes.")
    return Question(item, "generation", prompt, ("Yes.",), (2,))


def choice(prompt: str, *answers: str) -> Question:
    item = make_item(set="mmlu", prompt=prompt, choices=answers, answer=0)
    return Question(item, "choices", prompt, answers, (1,) * len(answers))


def written(
    folder: Path, *questions: Question, subject: Subject = SUBJECT, conditions: Conditions = CONDITIONS
) -> dict[str, Any]:
    model = local_model(subject, conditions, 2048, end_of_turn=2)
    return runpy.run_path(str(write_inputs(folder, data_sets_of(questions), model, conditions)))


def test_a_choice_item_is_one_row_for_each_choice_side_by_side_and_long_items_come_first() -> None:
    short, long = choice("Who?", "a", "b"), choice("Who was it then?", "c", "d")
    (data_set,) = data_sets_of([short, long])
    assert data_set.name == "mmlu_choices"
    assert [row.text for row in data_set.rows] == [
        f"Who was it then?{BOUNDARY}c",
        f"Who was it then?{BOUNDARY}d",
        f"Who?{BOUNDARY}a",
        f"Who?{BOUNDARY}b",
    ]
    assert [row.key for row in data_set.rows[:2]] == [f"choices:{long.item.id}:0", f"choices:{long.item.id}:1"]


def test_the_order_of_questions_does_not_change_what_is_sent() -> None:
    questions = [choice("Who?", "a", "b"), choice("Why?", "a", "b"), generation("How?")]
    assert data_sets_of(questions) == data_sets_of(questions[::-1])


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "torch.float32"), ("bf16", "torch.bfloat16")])
def test_precision_adapter_and_end_of_turn_reach_the_model_and_no_remote_code_or_pickle_does(
    tmp_path: Path, precision: str, dtype: str
) -> None:
    (model,) = written(tmp_path, generation("How?"), conditions=replace(CONDITIONS, precision=precision))["models"]
    assert model["model_kwargs"] == {
        "trust_remote_code": False,
        "use_safetensors": True,
        "device_map": "cpu",
        "torch_dtype": dtype,
    }
    assert model["tokenizer_kwargs"]["trust_remote_code"] is False
    assert (model["path"], model["peft_path"]) == ("/base", "/adapter")
    assert model["generation_kwargs"] == {"do_sample": False, "eos_token_id": 2, "repetition_penalty": 1.1}
    (bare,) = written(tmp_path, generation("How?"), subject=replace(SUBJECT, adapter=None))["models"]
    assert bare["peft_path"] is None


def test_all_prompts_reach_the_model_at_once_and_it_is_told_how_many_to_answer_together(tmp_path: Path) -> None:
    """So that the next one starts where an answer ends."""
    config = written(tmp_path, *(generation(f"How {index}?") for index in range(17)))
    assert config["datasets"][0]["infer_cfg"]["inferencer"]["batch_size"] == 17
    assert (config["models"][0]["together"], config["models"][0]["threads"]) == (4, 2)


def test_braces_reach_opencompass_as_they_are_and_it_fills_none_of_them(tmp_path: Path) -> None:
    """OpenCompass's own template would replace the names of its columns; test_opencompass_model asks ours."""
    text = "Print {idx} of {reference}, {subdivision} and {0}.\n深さは?\u2028"
    config = written(tmp_path, generation(text), choice(text, "{key}", "{text}"))
    for data_set in config["datasets"]:
        rows = [json.loads(line) for line in Path(data_set["path"]).read_text().split("\n")[:-1]]
        assert all(row["text"].startswith(text) for row in rows)
        assert data_set["infer_cfg"]["prompt_template"]["type"].endswith("opencompass_evaluators.VerbatimTemplate")
