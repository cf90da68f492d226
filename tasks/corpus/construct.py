"""Stage `construct`: instruction examples from every method that is switched on.

Human questions and answers, and what users corrected, are carried on as they are; methods that ask a teacher model
join here.
"""

from __future__ import annotations

from tasks import layout
from tasks.files import fresh_directory
from tasks.records import Example, Receipt, read_own_jsonl, write_jsonl
from tasks.stage import run_stage

STAGE = "construct"


def construct() -> str:
    """Write data/construct; returns what happened, in a sentence."""
    examples = read_own_jsonl(layout.INGEST / "examples.jsonl", Example)
    corrections = read_own_jsonl(layout.FEEDBACK / "examples.jsonl", Example)
    receipts = [Receipt(example_id=e.id, stage=STAGE, kept=True, reason="written by people") for e in examples]
    receipts += [Receipt(example_id=e.id, stage=STAGE, kept=True, reason="corrected by users") for e in corrections]
    with fresh_directory(layout.CONSTRUCT) as folder:
        write_jsonl(folder / "examples.jsonl", examples + corrections)
        write_jsonl(folder / "receipt.jsonl", receipts)
    return f"{len(examples)} examples written by people, {len(corrections)} corrections of users"


if __name__ == "__main__":
    run_stage(STAGE, construct)
