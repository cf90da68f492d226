"""Tokens a second of supervised fine-tuning: ours against trl's SFTTrainer, each as well set up as this CPU allows.

Same model, LoRA, examples, precision (bf16), processes and DeepSpeed file; no checkpoints, no logging elsewhere. Each
side passes once over the same examples and is then asked for its loss on the held-out ones. Padding does not count.

    python tests/bench/bench_sft.py             the table of what is measured so far
    python tests/bench/bench_sft.py --run 1     measures that many sides that are still missing: a minute or two each
    python tests/bench/bench_sft.py --again     forgets what was measured

Figures are kept under .flywheel/speed, a file a side. Rates are per second of processor time (of the busiest process),
which other work on the machine hardly changes, and per second of wall time, which it does. `of matmul` is the share of
the rate at which the same process multiplies bf16 matrices of this model's largest layer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import digest_of, write_json
from tasks.core.params import load_params
from tasks.core.records import Example, read_own_jsonl, write_jsonl
from tasks.train.run.job import launch_files
from tasks.train.run.launch import CONFIGS, environment, read_launch
from tasks.train.sft.stage import SftJob
from tests.bench.table import options, show

HOME = layout.HOME / "speed"
EXAMPLES, HELD_OUT = 128, 24
BATCH = 8
PADDED = {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "group_by_length"}
PACKED = {"per_device_train_batch_size": 1, "packing": True, "max_length": 512}
# Ours: the settings that differ; trl's: attention and configuration.
OURS: dict[str, dict[str, Any]] = {"ours, padded": {"packing": False}, "ours, packed": {"packing": True}}
TRL: dict[str, dict[str, Any]] = {
    "trl, by length, eager": {"attention": "eager", "config": PADDED},
    "trl, by length, sdpa": {"attention": "sdpa", "config": PADDED},
    "trl, packed, eager": {"attention": "eager", "config": PACKED},
    "trl, padding-free, eager": {"attention": "eager", "config": {**PADDED, "padding_free": True}},
}
SIDES = ("ours, packed", "trl, by length, eager", "trl, packed, eager", "ours, padded", *list(TRL)[1::2])
# Weights of the base model in matrices, in its head, and trained by LoRA of rank 16 on all projections.
MATRICES, HEAD, TRAINED = 106_168_320, 28_311_552, 4_884_480


def job_of(settings: dict[str, Any]) -> SftJob:
    """Stage sft's job on the first examples of the default domain, for one epoch."""
    params = load_params()
    launch = read_launch("cpu")
    for name, count in (("train", EXAMPLES), ("validation", HELD_OUT)):
        rows = read_own_jsonl(layout.MIX / f"{name}.jsonl", Example)[:count]
        write_jsonl(HOME / f"{name}.jsonl", rows)
    sft = {"precision": "bf16", "epochs": 1, "batch_size": BATCH, "gradient_accumulation": 1, "method": "lora"}
    return SftJob(
        stage="sft",
        base_model=layout.BASE_MODEL,
        base_digest="",
        data={name: HOME / f"{name}.jsonl" for name in ("train", "validation")},
        system=load_domain(params.domain).system_text(),
        seed=params.seed,
        processes=launch["num_processes"],
        settings=params.sft.model_copy(update={**sft, **settings}),
        method=params.methods.lora.model_dump(),
        launch_files=launch_files("cpu", launch, CONFIGS),
    )


def place(name: str) -> Path:
    """Where a side's figures are kept."""
    return HOME / f"{digest_of(name)[:12]}.json"


def measure(name: str) -> None:
    """Run one side to its end."""
    job = job_of(OURS.get(name, {}))
    described, run = HOME / "side.json", HOME / "run"
    write_json(described, {"job": job.model_dump(mode="json"), "trl": TRL.get(name)})
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "cpu.yaml")]
    command = [*launcher, "-m", "tests.bench.sft_side", str(described), str(run / "figures.json")]
    path = os.pathsep.join([str(Path.cwd()), *sys.path])
    subprocess.run(command, check=True, env={**environment(read_launch("cpu")), "PYTHONPATH": path})
    (run / "figures.json").replace(place(name))


def operations(answer_share: float) -> float:
    """Floating-point operations for a token: matrices there and back, adapters also for their own gradients, the head
    where an answer is."""
    return 4.0 * MATRICES + 6.0 * TRAINED + 4.0 * HEAD * answer_share


def rates(figures: dict[str, Any]) -> tuple[float, float, float]:
    """Tokens a second of processor and of wall time, and the share of the matmul rate."""
    processes = figures["processes"]
    processor, wall = (figures["tokens"] / max(one[key] for one in processes) for key in ("processor", "wall"))
    possible = sum(one["matmul"] for one in processes)
    return processor, wall, processor * operations(figures["answer_share"]) / possible


def rows_of(measured: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row of the table for each side; ratios are to the best of trl's."""
    best = max((rates(measured[name])[0] for name in measured if name in TRL), default=float("nan"))
    rows: list[tuple[str, ...]] = []
    for name, figures in measured.items():
        processor, wall, share = rates(figures)
        told = (f"{processor:.0f}", f"{processor / best:.2f}", f"{wall:.0f}", f"{share:.0%}", f"{figures['loss']:.4f}")
        rows.append((name, *told, str(figures["steps"])))
    return rows


def main() -> None:
    """Measure what is asked for, then print the table."""
    asked = options(__doc__, run=0, again=False)
    if asked.again:
        shutil.rmtree(HOME, ignore_errors=True)
    for name in [name for name in SIDES if not place(name).is_file()][: asked.run]:
        measure(name)
    columns = ("side", "processor time", "against trl's best", "wall time", "of matmul", "held-out loss", "steps")
    measured = {name: json.loads(place(name).read_text()) for name in SIDES if place(name).is_file()}
    show("Fine-tuning: tokens a second, two processes of one thread, bf16", columns, rows_of(measured))


if __name__ == "__main__":
    main()
