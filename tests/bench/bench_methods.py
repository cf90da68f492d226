"""A table of the methods on the default domain: held-out quality, what is trained, memory, speed.

Each method sees the same examples in the same order, once, under the launch `cpu` in bf16, with a learning rate usual
for it (RATES). Then the frozen domain items are scored: the mean negative log-likelihood of the reference answer, in
nats a token, by one process in fp32, and its difference from LoRA's, item by item.

    python tests/bench/bench_methods.py            the table of what is measured so far
    python tests/bench/bench_methods.py --run 1    does that many steps that are still missing: some minutes each

Run it where the stages up to `mix` have been run. Everything is kept under .flywheel/methods; a step that was killed
goes on from its checkpoint. Intervals are over the items, for one training each: another seed or rate moves them, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_json
from tasks.core.intervals import mean_interval, paired_interval
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, Example, read_own_jsonl, write_jsonl
from tasks.core.stage import hush
from tasks.core.training_params import METHODS

HOME = layout.HOME / "methods"
EXAMPLES = 320
# Usual ones: of the methods' papers and peft's examples, not searched for here. In the order in which they are
# measured. QLoRA is not among them: DeepSpeed trains it on GPUs only.
RATES = {
    "base": 0.0,
    "lora": 2e-4,
    "p_tuning_v2": 1e-2,
    "full": 2e-5,
    "ia3": 5e-3,
    "dora": 2e-4,
    "pissa": 2e-4,
    "rslora": 2e-4,
    "osf": 2e-5,
    "p_tuning": 1e-3,
    "prompt_tuning": 3e-2,
}


def train_method(method: str) -> None:
    """Train in a copy of the repository made of links; put what it leaves and what it took into HOME/<method>."""
    from tasks.train.entry.training import execute, run_folder
    from tasks.train.linked_copy import inside, link_copy
    from tasks.train.run.handover import write_trained
    from tasks.train.sft.stage import describe

    changes = {
        "method": method,
        "precision": "bf16",
        "epochs": 1,
        "learning_rate": RATES[method],
        "save_every": 20,
        "packing": not METHODS[method].virtual,
    }
    home = (HOME / method).absolute()
    folder = link_copy(
        Path.cwd(), HOME / "aside" / method, {f"sft.{name}": value for name, value in changes.items()}, False
    )
    with inside(folder):
        params = load_params()
        domain = load_domain(params.domain)
        examples = read_own_jsonl(layout.MIX / "train.jsonl", Example)
        write_jsonl(Path("train.jsonl"), random.Random(params.seed).sample(examples, EXAMPLES))
        write_jsonl(Path("validation.jsonl"), [])
        data = {name: Path(f"{name}.jsonl") for name in ("train", "validation")}
        job = describe(params, domain).model_copy(update={"data": data, "start": None, "start_digest": None})
        write_trained(execute(job, run_folder(job)), home, domain.base_model.name)
        shutil.copyfile(layout.MEASURED / "sft.json", home / "measured.json")
    shutil.rmtree(folder)


def score_method(method: str) -> None:
    """Write the loss of each domain item's reference into HOME/<method>/nll.json."""
    import torch
    from transformers import AutoTokenizer

    params = load_params()
    domain = load_domain(params.domain)
    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    model = load(method)
    items = read_own_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", EvaluationItem)
    losses = {}
    for item in items:
        ids, labels = encoded(tokenizer, domain.system_text(), item)
        with torch.no_grad():
            mask = torch.ones_like(ids)
            losses[item.id] = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.item()
    write_json(HOME / method / "nll.json", losses)


def encoded(tokenizer: Any, system: str, item: EvaluationItem) -> tuple[Any, Any]:
    """Token ids of question and reference, and labels for the reference; one row each."""
    import torch

    from tasks.text.prompts import encode_answer, encode_text, render_prompt

    prompt = encode_text(tokenizer, render_prompt(tokenizer, system, item.prompt))
    answer = encode_answer(tokenizer, item.reference)
    return torch.tensor([prompt + answer]), torch.tensor([[-100] * len(prompt) + answer])


def load(method: str) -> Any:
    """What a method left, in fp32, over the unchanged base model."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = HOME / method / "model"
    source: Path = whole if whole.is_dir() else layout.BASE_MODEL
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    adapter = HOME / method / "adapter"
    return (PeftModel.from_pretrained(model, adapter) if adapter.is_dir() else model).eval()


def missing() -> Iterator[tuple[str, Any]]:
    """The steps that have not been done, in order."""
    for method in RATES:
        if method != "base" and not (HOME / method / "measured.json").exists():
            yield f"train {method}", lambda method=method: train_method(method)
        if not (HOME / method / "nll.json").exists():
            yield f"score {method}", lambda method=method: score_method(method)


def values(method: str) -> list[float]:
    """A method's losses, in order of item."""
    losses = json.loads((HOME / method / "nll.json").read_text(encoding="utf-8"))
    return [losses[identity] for identity in sorted(losses)]


def report() -> Table:
    """Each method's row."""
    table = Table(
        title=f"{EXAMPLES} examples seen once; NLL of held-out domain references, nats a token, 95% intervals"
    )
    for column in ("method", "NLL", "against LoRA", "trained", "share", "peak GiB", "tokens/s"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method in (method for method in RATES if (HOME / method / "nll.json").exists()):
        found = mean_interval(values(method), level=0.95, resamples=10_000, seed=0)
        cells = [method, f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]", difference(method)]
        table.add_row(*cells, *(costs(method) if method != "base" else ("", "", "", "")))
    return table


def difference(method: str) -> str:
    """The mean paired difference from LoRA, with its interval; below 0 is better."""
    if method == "lora" or not (HOME / "lora" / "nll.json").exists():
        return ""
    found = paired_interval(values(method), values("lora"), level=0.95, resamples=10_000, seed=0)
    return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def costs(method: str) -> tuple[str, str, str, str]:
    """Trained parameters, their share of the base model's, memory of both processes, tokens a second of both."""
    measured = json.loads((HOME / method / "measured.json").read_text(encoding="utf-8"))
    base = 134_515_008  # parameters of SmolLM2-135M
    trained = measured["trainable_parameters"]
    speed = measured["tokens"] / measured["training_seconds"]
    return f"{trained:,}", f"{trained / base:.2%}", f"{measured['peak_bytes'] / 2**30:.2f}", f"{speed:.0f}"


def main() -> None:
    """Do the steps that were asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, default=0, metavar="STEPS")
    steps = parser.parse_args().run
    os.environ.update(layout.OFFLINE)
    hush()
    console = Console(width=130)
    for name, step in list(missing())[:steps]:
        console.print(name)
        step()
    left = [name for name, _ in missing()]
    console.print(report())
    if left:
        console.print(f"{len(left)} steps are missing, next: {left[0]}; --run 1 does it")


if __name__ == "__main__":
    main()
