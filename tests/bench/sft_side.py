"""One process of one side of bench_sft: trl's SFTTrainer set up by hand, or ours, on the same examples.

Started by `accelerate launch` as `python -m tests.bench.sft_side SIDE_FILE OUT_FILE`; SIDE_FILE holds a job of stage
sft, and `trl`: null for ours, else what is special about trl's configuration. OUT_FILE gets what was measured.
Processor time is measured beside wall time, because it hardly depends on what else the machine does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PrinterCallback, TrainerCallback

from tasks.core.files import write_json
from tasks.core.records import Example, read_own_jsonl
from tasks.train.run.methods import prepared
from tasks.train.run.worker import common_arguments, load_options, load_tokenizer, quiet
from tasks.train.sft.stage import SftJob
from tasks.train.tuning.batches import IGNORED, encode_rows

FIRST = 2  # steps that are not timed: the first ones prepare memory


class Clock(TrainerCallback):
    """Times each step, from the first begin to the last end."""

    def __init__(self) -> None:
        self.began = (0.0, 0.0)
        self.took = (0.0, 0.0)
        self.steps = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock starts when the first steps are over."""
        if state.global_step == FIRST:
            self.began = (time.perf_counter(), time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock stops."""
        if state.global_step > FIRST:
            self.took = (time.perf_counter() - self.began[0], time.process_time() - self.began[1])
            self.steps += 1


def arguments(job: SftJob, run: Path) -> dict[str, Any]:
    """What both sides are given: the job's settings, and nothing that costs time beside training."""
    return {**common_arguments(job, run), "save_strategy": "no", "report_to": [], "max_length": None}


def trl_side(job: SftJob, rows: list[dict[str, Any]], special: dict[str, Any], run: Path) -> Any:
    """trl's own trainer, with the attention and the configuration of this side."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    options = {**load_options(job), "attn_implementation": special["attention"]}
    model = prepared(AutoModelForCausalLM.from_pretrained(job.base_model, **options), job)
    given = {**arguments(job, run), **special["config"]}
    if not given.get("packing"):
        given["dataset_kwargs"] = {"skip_prepare_dataset": True}
    return SFTTrainer(
        model=model,
        args=SFTConfig(**given),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(job.base_model),
    )


def our_side(job: SftJob, run: Path) -> Any:
    """The trainer of stage sft."""
    from trl import SFTConfig

    from tasks.train.sft.worker import build_trainer

    given = {**arguments(job, run), "dataset_kwargs": {"skip_prepare_dataset": True}, "eval_steps": 1}
    return build_trainer(job, SFTConfig(**given))


def held_out(model: Any, rows: list[dict[str, Any]], packed: bool) -> float:
    """Mean over examples of the mean negative log-likelihood (nats) of their answer tokens."""
    from tasks.train.sft.one_row import in_one_row

    losses = []
    model.eval()
    with torch.no_grad():
        for row in rows:
            inputs = in_one_row([row]) if packed else {"input_ids": torch.tensor([row["input_ids"]])}
            inputs.pop("labels", None)
            targets = torch.tensor(row["labels"][1:])
            logits = model(**inputs, use_cache=False).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED).item())
    return sum(losses) / len(losses)


def matmul_rate() -> float:
    """Floating-point operations a second of this process in bf16, on 512 tokens and the model's largest layer,
    while the other processes do the same."""
    left, right = torch.randn(512, 576).bfloat16(), torch.randn(1536, 576).bfloat16()
    for _ in range(20):
        torch.nn.functional.linear(left, right)
    began, count = time.process_time(), 0
    while time.process_time() - began < 0.5:
        torch.nn.functional.linear(left, right)
        count += 1
    return 2.0 * 512 * 576 * 1536 * count / (time.process_time() - began)


def main() -> None:
    """Train this side and write what was measured."""
    side = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    job, out = SftJob.model_validate(side["job"]), Path(sys.argv[2])
    quiet()
    train, validation = (
        encode_rows(
            load_tokenizer(job.base_model), job.system, read_own_jsonl(job.data[name], Example), job.settings.max_tokens
        )
        for name in ("train", "validation")
    )
    run = out.parent
    trainer = trl_side(job, train, side["trl"], run) if side["trl"] else our_side(job, run)
    if trainer.args.world_size > 1:
        dist.barrier()  # the cores share what multiplies: all of them at once, as in training
    rate, clock = matmul_rate(), Clock()
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    packed = side["trl"] is None and job.settings.packing
    seen: list[Any] = [None] * trainer.args.world_size
    mine = {"wall": clock.took[0], "processor": clock.took[1], "matmul": rate}
    if trainer.args.world_size > 1:
        dist.all_gather_object(seen, mine)
    else:
        seen = [mine]
    loss = held_out(trainer.model, validation, packed)
    if trainer.is_world_process_zero():
        share = clock.steps / trainer.state.global_step
        tokens = sum(len(row["input_ids"]) for row in train)
        answers = sum(label != IGNORED for row in train for label in row["labels"])
        figures = {"tokens": tokens * share, "answer_share": answers / tokens, "processes": seen, "loss": loss}
        write_json(out, {**figures, "steps": trainer.state.global_step})
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
