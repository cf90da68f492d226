"""What OpenCompass is given: its Python configuration, and the questions as JSON lines, one file for each data set.

One task holds all data sets, so the model is loaded once. Rows run from long to short: neighbours in a batch are
of like length, the time left is not underestimated, and memory peaks at the start.
"""

from __future__ import annotations

import json
import pprint
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.files import write_text
from tasks.evaluate.scoring.questions import BOUNDARY, Measure, Question

OURS = "tasks.evaluate.run.opencompass_model"
# Rows between two progress lines where nothing is generated; a multiple of four keeps an item's choices together.
ROWS_A_STEP = 64


@dataclass(frozen=True)
class Row:
    """One line of a data set: the text OpenCompass sees, and how to find the question again."""

    key: str
    text: str
    reference: str


@dataclass(frozen=True)
class DataSet:
    """One data set of a run, all of one measure."""

    name: str
    measure: Measure
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ModelSettings:
    """Where the model is and how it is run; paths are absolute, because OpenCompass works in its own folder."""

    who: str
    base: Path
    adapter: Path | None
    precision: str
    device: str
    threads: int
    batch_size: int
    max_new_tokens: int
    repetition_penalty: float
    max_tokens: int
    end_of_turn: int
    # Address of an engine and the model's name there; empty where OpenCompass loads the model itself.
    engine: str = ""
    served: str = ""


def data_sets_of(questions: Iterable[Question]) -> list[DataSet]:
    """The questions as data sets, one for each evaluation set and measure."""
    grouped: dict[tuple[str, Measure], list[Question]] = {}
    for question in questions:
        grouped.setdefault((question.item.set, question.measure), []).append(question)
    return [
        DataSet(f"{name}_{measure}", measure, tuple(row for question in _ordered(group) for row in rows_of(question)))
        for (name, measure), group in sorted(grouped.items())
    ]


def _ordered(questions: list[Question]) -> list[Question]:
    """Longest first; equal lengths by id, so that the order is always the same."""

    def length(question: Question) -> int:
        answers = 0 if question.measure == "generation" else sum(map(len, question.answers))
        return len(question.prompt) + answers

    return sorted(questions, key=lambda question: (-length(question), question.item.id))


def rows_of(question: Question) -> list[Row]:
    """One row for a generation, one for each answer text that is scored."""
    if question.measure == "generation":
        return [Row(question.label, question.prompt, question.answers[0])]
    texts = [question.prompt + BOUNDARY + answer for answer in question.answers]
    return [Row(f"{question.label}:{index}", text, "") for index, text in enumerate(texts)]


def write_inputs(folder: Path, data_sets: list[DataSet], settings: ModelSettings) -> Path:
    """Write the data sets and the configuration into `folder` (absolute); returns the configuration's path."""
    configs = []
    for data_set in data_sets:
        path = folder / "data" / f"{data_set.name}.jsonl"
        lines = (json.dumps(vars(row), ensure_ascii=False) for row in data_set.rows)
        write_text(path, "".join(line + "\n" for line in lines))
        configs.append(_data_set_config(data_set, path, settings))
    parts = {"models": [_model_config(settings)], "datasets": configs, "infer": _stage("Infer"), "eval": _stage("Eval")}
    path = folder / "config.py"
    write_text(path, "".join(f"{name} = {pprint.pformat(value, sort_dicts=False)}\n" for name, value in parts.items()))
    return path


def _model_config(settings: ModelSettings) -> dict[str, Any]:
    return _engine_config(settings) if settings.engine else _local_config(settings)


def _engine_config(settings: ModelSettings) -> dict[str, Any]:
    return {
        "type": "tasks.evaluate.run.opencompass_engine.EngineModel",
        "abbr": settings.who,
        "path": str(settings.base),
        "url": settings.engine,
        "served": settings.served,
        "repetition_penalty": settings.repetition_penalty,
        "max_seq_len": settings.max_tokens,
        "boundary": BOUNDARY,
        "run_cfg": {"num_gpus": 0},
    }


def _local_config(settings: ModelSettings) -> dict[str, Any]:
    return {
        "type": f"{OURS}.AnswerModel",
        "abbr": settings.who,
        "path": str(settings.base),
        "peft_path": str(settings.adapter) if settings.adapter else None,
        "tokenizer_kwargs": {"trust_remote_code": False},
        "model_kwargs": {
            "trust_remote_code": False,
            "use_safetensors": True,
            "device_map": settings.device,
            "torch_dtype": {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[settings.precision],
        },
        "generation_kwargs": {
            "do_sample": False,
            "eos_token_id": settings.end_of_turn,
            "repetition_penalty": settings.repetition_penalty,
        },
        "max_seq_len": settings.max_tokens,
        "boundary": BOUNDARY,
        "threads": settings.threads if settings.device == "cpu" else 1,
        "run_cfg": {"num_gpus": 0},
    }


def _data_set_config(data_set: DataSet, path: Path, settings: ModelSettings) -> dict[str, Any]:
    generation = data_set.measure == "generation"
    if generation:
        together = settings.batch_size * (settings.threads if settings.device == "cpu" else 1)
        # Equal batches, so that the last one is not a small one that costs as many steps.
        batches = -(-len(data_set.rows) // together)
        batch_size = -(-len(data_set.rows) // batches)
        inferencer = {"type": "GenInferencer", "max_out_len": settings.max_new_tokens}
        evaluator = f"{OURS}.ItemRougeEvaluator"
    else:
        batch_size = ROWS_A_STEP
        inferencer = {"type": "PPLOnlyInferencer"}
        evaluator = f"{OURS}.ItemNLLEvaluator"
    return {
        "abbr": data_set.name,
        "type": "opencompass.datasets.JsonlDataset",
        "path": str(path),
        "reader_cfg": {"input_columns": ["text"], "output_column": "reference" if generation else None},
        "infer_cfg": {
            "prompt_template": {"type": f"{OURS}.VerbatimTemplate", "template": "{text}"},
            "retriever": {"type": "ZeroRetriever"},
            "inferencer": {**inferencer, "batch_size": batch_size, "save_every": None},
        },
        "eval_cfg": {"evaluator": {"type": evaluator}},
    }


def _stage(name: str) -> dict[str, Any]:
    return {
        "partitioner": {"type": "opencompass.partitioners.NaivePartitioner", "n": 1000},
        "runner": {
            "type": "opencompass.runners.LocalRunner",
            "max_num_workers": 1,
            "task": {"type": f"opencompass.tasks.OpenICL{name}Task", "dump_details": True},
        },
    }
