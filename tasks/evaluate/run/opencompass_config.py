"""What OpenCompass is given: its Python configuration, and the questions as JSON lines, one file for each data set.

One task holds all data sets, so the model is loaded once. Rows run from long to short, so that neighbours in a batch
are of like length and memory peaks at the start.
"""

from __future__ import annotations

import json
import pprint
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.files import write_text
from tasks.evaluate.run.score_cache import Conditions
from tasks.evaluate.scoring.questions import BOUNDARY, Question, QuestionKind
from tasks.evaluate.scoring.subject import Subject

OURS = "tasks.evaluate.run"
# Rows between two progress lines where nothing is generated; a multiple of four keeps an item's choices together.
ROWS_A_STEP = 64
REFUSAL_TOKENS = 40  # of the answer to a harmful request: its beginning says whether it refuses


@dataclass(frozen=True)
class PromptRow:
    """One line of a data set: the text OpenCompass sees, and how to find the question again."""

    key: str
    text: str
    reference: str


@dataclass(frozen=True)
class DataSet:
    """One data set of a run, all of one kind."""

    name: str
    kind: QuestionKind
    rows: tuple[PromptRow, ...]


def data_sets_of(questions: Iterable[Question]) -> list[DataSet]:
    """The questions as data sets, one for each evaluation set and kind of question."""
    grouped: dict[tuple[str, QuestionKind], list[Question]] = {}
    for question in questions:
        grouped.setdefault((question.item.set, question.kind), []).append(question)
    return [
        DataSet(f"{name}_{kind}", kind, tuple(row for one in sorted(group, key=_order) for row in rows_of(one)))
        for (name, kind), group in sorted(grouped.items())
    ]


def _order(question: Question) -> tuple[int, str]:
    """Longest first; equal lengths by id, so that the order is always the same."""
    answers = () if question.kind == "generation" else question.answers
    return -sum(map(len, (question.prompt, *answers))), question.item.id


def rows_of(question: Question) -> list[PromptRow]:
    """One row for a generation, one for each answer text that is scored."""
    if question.kind == "generation":
        return [PromptRow(question.label, question.prompt, question.answers[0])]
    texts = [question.prompt + BOUNDARY + answer for answer in question.answers]
    return [PromptRow(f"{question.label}:{index}", text, "") for index, text in enumerate(texts)]


def write_inputs(folder: Path, data_sets: list[DataSet], model: dict[str, Any], conditions: Conditions) -> Path:
    """Write the data sets and the configuration into `folder` (absolute); returns the configuration's path."""
    configs = []
    for data_set in data_sets:
        path = folder / "data" / f"{data_set.name}.jsonl"
        lines = (json.dumps(vars(row), ensure_ascii=False) for row in data_set.rows)
        write_text(path, "".join(line + "\n" for line in lines))
        configs.append(_data_set_config(data_set, path, conditions))
    parts = {"models": [model], "datasets": configs, **stages()}
    path = folder / "config.py"
    write_text(path, "".join(f"{name} = {pprint.pformat(value, sort_dicts=False)}\n" for name, value in parts.items()))
    return path


def engine_model(subject: Subject, conditions: Conditions, max_tokens: int, url: str, name: str) -> dict[str, Any]:
    """The model as an engine at `url` serves it under `name`."""
    return {
        "type": f"{OURS}.opencompass_engine.EngineModel",
        "abbr": subject.who,
        "path": str(subject.base.absolute()),
        "url": url,
        "served": name,
        "repetition_penalty": conditions.repetition_penalty,
        "max_seq_len": max_tokens,
        "boundary": BOUNDARY,
        "run_cfg": {"num_gpus": 0},
    }


def local_model(subject: Subject, conditions: Conditions, max_tokens: int, end_of_turn: int) -> dict[str, Any]:
    """The model as OpenCompass loads it itself; paths are absolute, because it works in its own folder."""
    return {
        "type": f"{OURS}.opencompass_model.AnswerModel",
        "abbr": subject.who,
        "path": str(subject.base.absolute()),
        "peft_path": str(subject.adapter.absolute()) if subject.adapter else None,
        "tokenizer_kwargs": {"trust_remote_code": False},
        "model_kwargs": {
            "trust_remote_code": False,
            "use_safetensors": True,
            "device_map": conditions.device,
            "torch_dtype": {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[conditions.precision],
        },
        "generation_kwargs": {
            "do_sample": False,
            "eos_token_id": end_of_turn,
            "repetition_penalty": conditions.repetition_penalty,
        },
        "max_seq_len": max_tokens,
        "boundary": BOUNDARY,
        "threads": _passes(conditions),
        "together": conditions.batch_size,
        "run_cfg": {"num_gpus": 0},
    }


def _passes(conditions: Conditions) -> int:
    """How many run at a time: one thread drives a GPU."""
    return conditions.threads if conditions.device == "cpu" else 1


def _longest(data_set: DataSet, conditions: Conditions) -> int:
    """Tokens that are generated at most."""
    refusing = data_set.name.startswith("safety_")
    return min(REFUSAL_TOKENS, conditions.max_new_tokens) if refusing else conditions.max_new_tokens


def _data_set_config(data_set: DataSet, path: Path, conditions: Conditions) -> dict[str, Any]:
    generation = data_set.kind == "generation"
    evaluator = "ItemRougeEvaluator" if generation else "ItemNLLEvaluator"
    inferencer = {
        "type": "GenInferencer" if generation else "PPLOnlyInferencer",
        "batch_size": len(data_set.rows) if generation else ROWS_A_STEP,  # the model takes them up as others end
        "save_every": None,
        **({"max_out_len": _longest(data_set, conditions)} if generation else {}),
    }
    return {
        "abbr": data_set.name,
        "type": "opencompass.datasets.JsonlDataset",
        "path": str(path),
        "reader_cfg": {"input_columns": ["text"], "output_column": "reference" if generation else None},
        "infer_cfg": {
            "prompt_template": {"type": f"{OURS}.opencompass_evaluators.VerbatimTemplate", "template": "{text}"},
            "retriever": {"type": "ZeroRetriever"},
            "inferencer": inferencer,
        },
        "eval_cfg": {"evaluator": {"type": f"{OURS}.opencompass_evaluators.{evaluator}"}},
    }


def stages() -> dict[str, Any]:
    """How OpenCompass asks and judges: in one process, item by item."""
    return {"infer": _stage("Infer"), "eval": _stage("Eval")}


def _stage(name: str) -> dict[str, Any]:
    return {
        "partitioner": {"type": "opencompass.partitioners.NaivePartitioner", "n": 1000},
        "runner": {
            "type": "opencompass.runners.LocalRunner",
            "max_num_workers": 1,
            "task": {"type": f"opencompass.tasks.OpenICL{name}Task", "dump_details": True},
        },
    }
