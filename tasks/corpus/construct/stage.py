"""Stage `construct`: instruction examples from every method that is switched on.

Questions and answers by people, and what users corrected, are carried on as they are, batch by batch. Then come
Self-Instruct from the seeds, Self-QA from the documents and Self-KV from the triples; each runs where it is on in
params.yaml and the domain has the sources for it. Whatever a teacher wrote that cannot be used is in quarantine.jsonl
with its reason, every candidate has a receipt, and summary.json has the counts. Given the teacher's replies, which are
kept in .flywheel/cache/teacher, all of it is a function of files and settings.
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
from tasks.corpus.construct.chunks import chunk
from tasks.corpus.construct.kv_templates import load_templates
from tasks.corpus.construct.method import STAGE, Method
from tasks.corpus.construct.self_instruct import SelfInstruct
from tasks.corpus.construct.self_kv import SelfKv
from tasks.corpus.construct.self_qa import SelfQa
from tasks.corpus.teacher.teacher import Teacher, open_teacher

DOCUMENTS_AT_ONCE = 64
CARRIED = {layout.INGEST: "written by people", layout.FEEDBACK: "corrected by users"}


def methods(params: Params, domain: Domain, teacher: Teacher | None) -> Iterator[Method]:
    """The methods that are on, one after the other, each with what it made."""
    settings = params.construct_
    shared: dict[str, Any] = {"params": params, "language": domain.language, "teacher": teacher}
    if uses_seeds(settings, domain):
        instruct = SelfInstruct(**shared, title=domain.title)
        known = (text for folder in CARRIED for text in instructions(folder / "examples.parquet"))
        instruct.build(read_own_jsonl(layout.INGEST / "seeds.jsonl", Seed), known)
        yield instruct
    if uses_documents(settings, domain):
        # Not AutoTokenizer: that loads torch, ten seconds for nothing where tokens are only counted.
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(layout.BASE_MODEL)
        asks = SelfQa(**shared)
        cut = partial(chunk, tokenizer=tokenizer, tokens=settings.chunk.tokens, overlap=settings.chunk.overlap)
        asks.build(asks.passages(documents(layout.INGEST / "documents.parquet"), cut))
        yield asks
    if settings.self_kv.examples and domain.triples:
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
        out = Output(examples, receipts)
        for source, reason in CARRIED.items():
            out.carry(source / "examples.parquet", reason)
        teacher = opened.enter_context(open_teacher(params)) if needs_teacher(params.construct_, domain) else None
        for method in methods(params, domain, teacher):
            out.add(method)
        write_jsonl(folder / "quarantine.jsonl", out.dropped)
        write_json(folder / "summary.json", out.summary)
        if teacher is not None:
            print(f"teacher: {teacher}", file=sys.stderr, flush=True)
    return "; ".join(out.said)


@dataclass
class Output:
    """What the stage writes, as it goes."""

    examples: TableWriter
    receipts: TableWriter
    dropped: list[Dropped] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def carry(self, path: Path, reason: str) -> None:
        """Examples that are there already, unchanged, a batch at a time."""
        before = self.examples.rows
        for table in read_batches(path):
            self.examples.write(table)
            identities = table.column("id").to_pylist()
            receipts = [Receipt(example_id=identity, stage=STAGE, kept=True, reason=reason) for identity in identities]
            self.receipts.write(table_of(receipts, Receipt))
        self.said.append(f"{self.examples.rows - before} {reason}")

    def add(self, made: Method) -> None:
        """What a method made."""
        self.examples.write(table_of(made.examples, Example))
        self.receipts.write(table_of(made.receipts, Receipt))
        self.dropped += made.dropped
        self.summary[made.origin] = made.summary()
        self.said.append(made.sentence())


def uses_seeds(settings: ConstructParams, domain: Domain) -> bool:
    """Whether Self-Instruct runs."""
    return bool(settings.self_instruct.examples and domain.seeds)


def uses_documents(settings: ConstructParams, domain: Domain) -> bool:
    """Whether Self-QA runs."""
    return bool(settings.self_qa.chunks and domain.documents)


def needs_teacher(settings: ConstructParams, domain: Domain) -> bool:
    """Whether any method asks a teacher."""
    rewords = bool(settings.self_kv.paraphrase and settings.self_kv.examples and domain.triples)
    return uses_seeds(settings, domain) or uses_documents(settings, domain) or rewords


def documents(path: Path) -> Iterator[Document]:
    """The documents that ingest wrote, few in memory at a time."""
    for table in read_batches(path, DOCUMENTS_AT_ONCE):
        yield from records_of(table, Document)


def instructions(path: Path) -> Iterator[str]:
    """The instructions of examples that are there already."""
    for table in read_batches(path, columns=["instruction"]):
        yield from table.column("instruction").to_pylist()


if __name__ == "__main__":
    run_stage(STAGE, construct)
