"""Stage `construct`: instruction examples from every method that is switched on.

Questions and answers by people, and what users corrected, are carried on as they are, batch by batch. Then come
Self-Instruct from the seeds, Self-QA from the documents and Self-KV from the triples; each runs where it is on in
params.yaml and the domain has the sources for it. Whatever a teacher wrote that cannot be used is in quarantine.jsonl
with its reason, every candidate has a receipt, and summary.json has the counts. Given the teacher's replies, which are
kept in .flywheel/cache/teacher, all of it is a function of files and settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, TripleSource, load_domain
from tasks.core.files import fresh_directory, write_json
from tasks.core.params import ConstructParams, Params, load_params
from tasks.core.records import Document, Dropped, Example, Receipt, Seed, Triple, read_own_jsonl, write_jsonl
from tasks.core.stage import run_stage
from tasks.core.tables import TableWriter, read_batches, read_records, records_of, schema_of, table_of, table_writer
from tasks.corpus.construct.result import STAGE, Made
from tasks.corpus.teacher.budget import Usage
from tasks.corpus.teacher.teacher import Teacher, open_teacher

DOCUMENTS_AT_ONCE = 64
CARRIED = {layout.INGEST: "written by people", layout.FEEDBACK: "corrected by users"}


@dataclass
class Methods:
    """The methods that are on, with their settings; `teacher` is None where none of them asks one."""

    params: Params
    domain: Domain
    teacher: Teacher | None

    def run(self) -> Iterator[Made]:
        """What each method made, one after the other."""
        settings = self.params.construct_
        if self.teacher is not None and uses_seeds(settings, self.domain):
            yield self._counted(partial(self._self_instruct, self.teacher))
        if self.teacher is not None and uses_documents(settings, self.domain):
            yield self._counted(partial(self._self_qa, self.teacher))
        if settings.self_kv.examples and self.domain.triples:
            yield self._counted(self._self_kv)

    def _counted(self, method: Callable[[], Made]) -> Made:
        before = self.teacher.usage if self.teacher else Usage()
        made = method()
        made.usage = (self.teacher.usage if self.teacher else Usage()).since(before)
        return made

    def _self_instruct(self, teacher: Teacher) -> Made:
        from tasks.corpus.construct.self_instruct import SelfInstruct
        from tasks.corpus.construct.teacher_prompts import load_prompts

        settings = self.params.construct_
        method = SelfInstruct(
            params=settings.self_instruct,
            settings=settings.teacher,
            prompts=load_prompts(self.domain.language),
            language=self.domain.language,
            title=self.domain.title,
            teacher=teacher,
            seed=self.params.seed,
        )
        seeds = read_own_jsonl(layout.INGEST / "seeds.jsonl", Seed)
        return method.build(seeds, (text for folder in CARRIED for text in instructions(folder / "examples.parquet")))

    def _self_qa(self, teacher: Teacher) -> Made:
        # Not AutoTokenizer: that loads torch, ten seconds for nothing where tokens are only counted.
        from transformers import PreTrainedTokenizerFast

        from tasks.corpus.construct import self_qa
        from tasks.corpus.construct.chunks import chunk
        from tasks.corpus.construct.teacher_prompts import load_prompts

        settings = self.params.construct_
        tokenizer = PreTrainedTokenizerFast.from_pretrained(layout.BASE_MODEL)
        drawn, short = self_qa.passages(
            documents(layout.INGEST / "documents.parquet"),
            lambda document: chunk(document, tokenizer, settings.chunk.tokens, settings.chunk.overlap),
            settings.self_qa.chunks,
            self.params.seed,
        )
        prompts = load_prompts(self.domain.language)
        made = self_qa.build(drawn, settings.self_qa, settings.teacher, prompts, self.domain.language, teacher)
        made.skipped.update({"passage too short": short} if short else {})
        return made

    def _self_kv(self) -> Made:
        triples = read_records(layout.INGEST / "triples.parquet", Triple)
        made = Made("self_kv")
        sources = self.domain.triples
        for number, source in enumerate(sources):
            # What one graph lacks, the next ones give.
            wanted = -(-(self.params.construct_.self_kv.examples - len(made.examples)) // (len(sources) - number))
            own = [triple for triple in triples if triple.file.startswith(f"{source.name}/")]
            self._add_graph(made, source, own, wanted)
        return made

    def _add_graph(self, made: Made, source: TripleSource, triples: list[Triple], wanted: int) -> None:
        from tasks.corpus.construct import self_kv
        from tasks.corpus.construct.kv_templates import load_templates

        settings = self.params.construct_
        settings = settings.model_copy(update={"self_kv": settings.self_kv.model_copy(update={"examples": wanted})})
        templates = load_templates(self.domain.folder / source.templates, self.domain.language)
        built = self_kv.build(triples, templates, settings, self.params.seed, self.domain.language, self.teacher)
        made.examples += built.examples
        made.receipts += built.receipts
        made.scores += [receipt.score for receipt in built.receipts if receipt.score is not None]
        made.skipped += built.skipped
        made.dropped += built.dropped


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
        for made in Methods(params, domain, teacher).run():
            out.add(made)
        write_jsonl(folder / "quarantine.jsonl", out.dropped)
        write_json(folder / "summary.json", out.summary)
        if teacher is not None:
            print(f"teacher: {teacher.counts.sentence()}", file=sys.stderr, flush=True)
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

    def add(self, made: Made) -> None:
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
