"""How the cost of judging rows and of joining receipts grows with their number, and what memory they take.

Run by `make bench`. Rows are templated questions with evidence, judged by the suite of Self-KV in batches; receipts are
five steps an example, joined slice by slice. Each size runs in a process of its own, for its own peak of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

from tasks.core import layout
from tasks.core.records import Example, Receipt, make_example
from tasks.core.tables import schema_of, table_writer, write_records
from tests.bench.table import show

STAGES = ("ingest", "construct", "validate", "dedup", "mix")
ROOT = Path(__file__).resolve().parents[2]


def examples(count: int) -> Iterator[Example]:
    """Templated examples, no two alike."""
    for number in range(count):
        place, height = f"Town {number}", f"{100 + number % 100} centimetres"
        yield make_example(
            instruction=f"How high may a fence along the street be in {place}?",
            output=f"A fence along the street may be at most {height} high in {place}.",
            language="en",
            origin="self_kv",
            source=(f"heights.csv:{number + 1}",),
            evidence=f"{place} | highest fence | {height}",
        )


def judge(count: int) -> float:
    """ExampleJudge `count` rows, in this process; returns seconds, without the import of Great Expectations."""
    from transformers import AutoTokenizer

    from tasks.core.domain import load_domain
    from tasks.core.params import load_params
    from tasks.curate.quality.suite import Checker, parameters
    from tasks.curate.validate.stage import ExampleJudge, judge_file

    tokenizer = AutoTokenizer.from_pretrained(ROOT / layout.BASE_MODEL)
    with chdir(ROOT):
        params, domain = load_params(), load_domain("construction")
    judge = ExampleJudge(Checker(parameters(params, domain, tokenizer.all_special_tokens)), tokenizer, "")
    judge.batch(list(examples(10)), "")
    write_records(Path("rows.parquet"), examples(count), Example)
    Path("out").mkdir()
    with table_writer(Path("out/receipt.parquet"), schema_of(Receipt)) as receipts:
        start = time.perf_counter()
        judge_file(Path("rows.parquet"), "", judge, Path("out"), receipts)
        return time.perf_counter() - start


def join(count: int) -> float:
    """Join the receipts of `count` examples, in this process; returns seconds."""
    from tasks.curate.receipt.stage import TABLES, write_receipt

    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    for stage in STAGES:
        steps = (Receipt(example_id=i, stage=stage, kept=True, reason="passes", detail="x" * 40) for i in ids)
        write_records(Path(stage) / "receipt.parquet", steps, Receipt)
    for path in TABLES:
        write_records(path, [], Example)
    rows = (e.model_copy(update={"id": i}) for e, i in zip(examples(count), ids, strict=True))
    write_records(TABLES[0], rows, Example)
    layout.EVALUATION_ITEMS.mkdir(parents=True)
    for name in ("domain", "dialogue"):
        (layout.EVALUATION_ITEMS / f"{name}.jsonl").write_text("")
    Path("train.jsonl").write_text("".join(json.dumps({"id": i}) + "\n" for i in ids))
    start = time.perf_counter()
    write_receipt(Path("receipt.parquet"), tuple(map(Path, STAGES)), Path("train.jsonl"))
    return time.perf_counter() - start


WORK = {"judge": judge, "join": join}


def measured(work: str, count: int) -> tuple[float, float]:
    """Seconds and peak GiB of one size, in a process and folder of their own."""
    command = [sys.executable, str(Path(__file__).absolute()), "--child", work, "--rows", str(count)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), float(peak)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000, help="judged at the smallest size; receipts are 40 times it")
    parser.add_argument("--child", choices=sorted(WORK))
    given = parser.parse_args()
    if given.child:
        seconds = WORK[given.child](given.rows)
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    rows = []
    for work, smallest in (("judge", given.rows), ("join", 40 * given.rows)):
        for count in (smallest, 2 * smallest, 4 * smallest):
            seconds, peak = measured(work, count)
            rows.append((work, f"{count:,}", f"{seconds:.1f}", f"{count / seconds:,.0f}", f"{peak:.2f}"))
    show("Judging rows, joining receipts", "work | rows | seconds | rows a second | peak memory, GiB", rows)


if __name__ == "__main__":
    main()
