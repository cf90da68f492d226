"""Stage `construct`: instruction examples from every method that is switched on.

What people wrote and users corrected is carried on; Self-Instruct, Self-QA and Self-KV follow. Given the teacher's
replies (.flywheel/cache/teacher), all of it is a function of files and settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.files import fresh_directory, write_json
from tasks.core.params import ConstructParams, Params, load_params
from tasks.core.records import Document, Dropped, Example, Receipt, Seed, Triple, read_own_jsonl, write_jsonl
from tasks.core.stage import run_stage
from tasks.core.tables import TableWriter, read_batches, read_records, records_of, schema_of, table_of, table_writer
from tasks.corpus.construct.method import STAGE, Method
from tasks.corpus.construct.self_instruct import SelfInstruct
from tasks.corpus.construct.self_kv import SelfKv, load_templates
from tasks.corpus.construct.self_qa import SelfQa, chunk
from tasks.corpus.reading.forgotten import REASON, Forgotten, read_forgotten
from tasks.corpus.teacher.teacher import Teacher, open_teacher

DOCUMENTS_AT_ONCE = 64
CARRIED = {layout.INGEST: "written by people", layout.FEEDBACK: "corrected by users"}


def methods_on(settings: ConstructParams, domain: Domain) -> set[str]:
    """The methods that are on and that the domain has sources for."""
    wanted = {
        "self_instruct": (settings.self_instruct.examples, domain.seeds),
        "self_qa": (settings.self_qa.chunks, domain.documents),
        "self_kv": (settings.self_kv.examples, domain.triples),
    }
    return {name for name, needed in wanted.items() if all(needed)}


def methods(params: Params, domain: Domain, teacher: Teacher | None) -> Iterator[Method]:
    """The methods that are on, one after the other, each with what it made."""
    settings, on = params.construct_, methods_on(params.construct_, domain)
    shared: dict[str, Any] = {"params": params, "language": domain.language, "teacher": teacher}
    if "self_instruct" in on:
        instruct = SelfInstruct(**shared, title=domain.title)
        tables = (
            table for folder in CARRIED for table in read_batches(folder / "examples.parquet", columns=["instruction"])
        )
        known = (text for table in tables for text in table["instruction"].to_pylist())
        instruct.build(read_own_jsonl(layout.INGEST / "seeds.jsonl", Seed), known)
        yield instruct
    if "self_qa" in on:
        # Not AutoTokenizer: that loads torch, ten seconds for nothing where tokens are only counted.
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(layout.BASE_MODEL)
        asks = SelfQa(**shared)
        cut = partial(chunk, tokenizer=tokenizer, tokens=settings.chunk.tokens, overlap=settings.chunk.overlap)
        batches = read_batches(layout.INGEST / "documents.parquet", DOCUMENTS_AT_ONCE)
        asks.build(asks.passages((one for table in batches for one in records_of(table, Document)), cut))
        yield asks
    if "self_kv" in on:
        states = SelfKv(**shared)
        triples = read_records(layout.INGEST / "triples.parquet", Triple)
        for number, source in enumerate(domain.triples):
            # What one graph lacks, the next ones give.
            wanted = -(-(settings.self_kv.examples - len(states.examples)) // (len(domain.triples) - number))
            own = (triple for triple in triples if triple.file.startswith(f"{source.name}/"))
            states.build(own, load_templates(domain.folder / source.templates, domain.language), wanted)
        yield states


def construct() -> str:
    """Write data/construct; returns what happened, in a sentence."""
    params = load_params()
    domain = load_domain(params.domain)
    with fresh_directory(layout.CONSTRUCT) as folder, ExitStack() as opened:
        examples = opened.enter_context(table_writer(folder / "examples.parquet", schema_of(Example)))
        receipts = opened.enter_context(table_writer(folder / "receipt.parquet", schema_of(Receipt)))
        out = Output(examples, receipts, read_forgotten())
        for source, reason in CARRIED.items():
            out.carry(source / "examples.parquet", reason)
        asking = methods_on(params.construct_, domain) - (
            set() if params.construct_.self_kv.paraphrase else {"self_kv"}
        )
        teacher = opened.enter_context(open_teacher(params)) if asking else None
        for method in methods(params, domain, teacher):
            out.add(method)
        write_jsonl(folder / "quarantine.jsonl", out.dropped)
        write_json(folder / "summary.json", out.summary)
        if teacher is not None:
            print(f"teacher: {teacher}", file=sys.stderr, flush=True)
    return "; ".join(out.notes)


@dataclass
class Output:
    """What the stage writes, as it goes."""

    examples: TableWriter
    receipts: TableWriter
    forgotten: Forgotten
    dropped: list[Dropped] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def carry(self, path: Path, reason: str) -> None:
        """Examples that are there already, unchanged, a batch at a time."""
        before = self.examples.rows
        for table in read_batches(path):
            self.examples.write(table)
            identities = table.column("id").to_pylist()
            receipts = [Receipt(example_id=identity, stage=STAGE, kept=True, reason=reason) for identity in identities]
            self.receipts.write(table_of(receipts, Receipt))
        self.notes.append(f"{self.examples.rows - before} {reason}")

    def add(self, made: Method) -> None:
        """What a method made, but for examples that were forgotten."""
        gone = {i for i in [*(one.id for one in made.examples), *(one.id for one in made.dropped)] if self.forgotten(i)}
        self.examples.write(table_of([one for one in made.examples if one.id not in gone], Example))
        receipts = [Receipt(example_id=i, stage=STAGE, kept=False, reason=REASON) for i in sorted(gone)]
        receipts += [one for one in made.receipts if one.example_id not in gone]
        self.receipts.write(table_of(receipts, Receipt))
        self.dropped += [one for one in made.dropped if one.id not in gone]
        self.summary[made.origin] = made.summary()
        self.notes.append(made.sentence())


if __name__ == "__main__":
    run_stage(STAGE, construct)
