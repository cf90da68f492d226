"""How the cores of this machine are best used for training: processes, threads of each, sequences a step.

Every layout trains the first layers of the base model for a few steps, all its processes at once, each on batches as
stage sft packs them. What it says belongs into `num_processes` of infra/accelerate/cpu.yaml and `sft.batch_size`.
Limits: without DeepSpeed, so the exchange of gradients is left out: it grows with the processes.

    python tests/bench/bench_layout.py [--precision bf16]

Wall time counts here, as that is what a layout is about: run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.core import layout
from tasks.core.stage import hush

LAYERS, STEPS, TOKENS = 4, 6, 72  # the mean length of the default domain's examples
SEQUENCES = (4, 8, 16)


def layouts(cores: int) -> Iterator[tuple[int, int]]:
    """Processes and threads that use every core once."""
    for processes in range(1, cores + 1):
        if cores % processes == 0:
            yield processes, cores // processes


def model_of(precision: str) -> Any:
    """The base model's first layers with LoRA on all projections, as stage sft trains it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tasks.train.sft.one_row import use_one_row_attention

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(layout.BASE_MODEL, num_hidden_layers=LAYERS, dtype=dtype)
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    use_one_row_attention(model, TOKENS)
    return model


def work(precision: str, sequences: int, begin: float) -> None:
    """One process of a layout: wait for the others, train, print seconds a step."""
    import torch

    from tasks.train.sft.one_row import in_one_row

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = model_of(precision)
    ids = list(range(5, 5 + TOKENS))
    batch = in_one_row([{"input_ids": ids, "labels": ids} for _ in range(sequences)])
    del batch["labels"]
    answers = torch.arange(0, sequences * TOKENS, 2)  # half of the tokens are an answer's
    time.sleep(max(0.0, begin - time.time()))
    for step in range(STEPS + 1):
        if step == 1:  # the first prepares memory
            began = time.perf_counter()
        logits = model(**batch, use_cache=False, logits_to_keep=answers).logits
        logits.float().log_softmax(-1)[..., 7].sum().backward()
    print((time.perf_counter() - began) / STEPS)


def measure(processes: int, threads: int, sequences: int, precision: str) -> float:
    """Tokens a second of all processes of a layout together."""
    begin = str(time.time() + 25)
    command = [sys.executable, __file__, "--work", str(sequences), begin, "--precision", precision]
    path = os.pathsep.join(sys.path)
    environment = layout.child_environment(OMP_NUM_THREADS=str(threads), PYTHONPATH=path)
    children = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(processes)]
    said = [child.communicate()[0] for child in children]
    return sum(sequences * TOKENS / float(text.split()[-1]) for text in said)


def main() -> None:
    """Print the table, or be a process of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    hush()
    if asked.work:
        work(asked.precision, int(asked.work[0]), float(asked.work[1]))
        return
    cores = len(os.sched_getaffinity(0))
    table = Table(title=f"Training on {cores} cores, {asked.precision}: tokens a second of {LAYERS} layers")
    for column in ("processes", "threads", *(f"{count} sequences" for count in SEQUENCES)):
        table.add_column(column, justify="right")
    for processes, threads in layouts(cores):
        rates = [measure(processes, threads, count, asked.precision) for count in SEQUENCES]
        table.add_row(str(processes), str(threads), *(f"{rate:.0f}" for rate in rates))
    Console().print(table)


if __name__ == "__main__":
    main()
