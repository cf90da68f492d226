"""Stage `select`: which of the deduplicated examples are trained on. The method `all` takes every one."""

from __future__ import annotations

from tasks import layout
from tasks.files import fresh_directory, write_json
from tasks.params import load_params
from tasks.records import Example, Receipt, read_own_jsonl, write_jsonl
from tasks.stage import run_stage

STAGE = "select"


def select() -> str:
    """Select from data/dedup into data/select; returns what happened, in a sentence."""
    method = load_params().select.method
    examples = read_own_jsonl(layout.DEDUP / "examples.jsonl", Example)
    receipts = [Receipt(example_id=e.id, stage=STAGE, kept=True, reason=f"method {method}") for e in examples]
    with fresh_directory(layout.SELECT) as folder:
        write_jsonl(folder / "examples.jsonl", examples)
        write_jsonl(folder / "receipt.jsonl", receipts)
    write_json(layout.METRICS / "select.json", {"rows": len(examples), "kept": len(examples)})
    return f"{len(examples)} examples, all of them"


if __name__ == "__main__":
    run_stage(STAGE, select)
