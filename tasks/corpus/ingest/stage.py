"""Stage `ingest`: a domain's sources become records in data/ingest, and its frozen evaluation items are laid aside.

What cannot be read is in quarantine.jsonl, and every example has a receipt. Human examples and documents pass through
one at a time; what a domain has in hundreds (seeds, general dialogue, benchmark items) is held whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tasks.core import layout
from tasks.core.domain import LEARNED, Domain, Source, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import fresh_directory
from tasks.core.params import load_params
from tasks.core.records import (
    BadLine,
    Document,
    EvaluationItem,
    Example,
    Receipt,
    Rewording,
    Seed,
    Triple,
    make_item,
    write_jsonl,
)
from tasks.core.stage import run_stage
from tasks.core.tables import record_writer, write_records
from tasks.corpus.ingest.dialogue import Dialogue, opening, read_dialogue
from tasks.corpus.ingest.documents import read_documents
from tasks.corpus.ingest.human import human_rows
from tasks.corpus.ingest.small import (
    read_items,
    read_mmlu,
    read_rewordings,
    read_safety,
    read_seeds,
    refused,
)
from tasks.corpus.ingest.triples import read_triples
from tasks.corpus.reading.forgotten import REASON, Forgotten, read_forgotten
from tasks.corpus.reading.lines import by_cause
from tasks.corpus.reading.rows import SourceError

STAGE = "ingest"
HELD_OUT = "kept for the evaluation"
NOTHING = Forgotten()
Pools = dict[str, list[EvaluationItem]]
Frozen = dict[str, list[str]]


class IngestError(FlywheelError):
    """The sources do not hold what the domain promises."""


class Small(NamedTuple):
    """What a domain has little of, read whole; `items` are those of its own evaluation files."""

    general: Dialogue
    seeds: list[tuple[Seed, Example]]
    items: list[EvaluationItem]
    rewordings: list[Rewording]
    mmlu: list[EvaluationItem]
    safety: list[EvaluationItem]


@dataclass
class Known:
    """What was not forgotten. What was is counted by kind; an example has a receipt that says so, as the last word."""

    note: Callable[[Receipt], None]
    gone: Forgotten = field(default_factory=read_forgotten)
    left_out: Counter[str] = field(default_factory=Counter)

    def example(self, one: Example) -> bool:
        """Whether an example stays."""
        if stays := self.part("examples", one.id, *one.source):
            return stays
        self.note(Receipt(example_id=one.id, stage=STAGE, kept=False, reason=REASON))
        return False

    def part(self, kind: str, *names: str) -> bool:
        """Whether something of these names stays."""
        gone = self.gone(*names)
        self.left_out.update([kind] if gone else [])
        return not gone


def read_small(domain: Domain) -> Small:
    """Read every source but human examples, documents and triples."""
    general = Dialogue()
    bad = general.bad
    for source in domain.general:
        read_dialogue(source, domain.paths(source), general)
    seeds = [pair for one in domain.seeds for pair in read_seeds(one, domain.paths(one), domain.language, bad)]
    items = [item for one in domain.evaluation_files for item in read_items(one, domain.paths(one), bad)]
    reworded = [item for one in domain.rewordings for item in read_rewordings(one, domain.paths(one), bad)]
    mmlu = read_mmlu(domain.mmlu, domain.paths(domain.mmlu), bad) if domain.mmlu else []
    safety = read_safety(domain.safety, domain.paths(domain.safety)) if domain.safety else []
    # The same in two sources counts once.
    once = {seed.id: (seed, example) for seed, example in seeds}
    return Small(general, list(once.values()), list({item.id: item for item in items}.values()), reworded, mmlu, safety)


def human_examples(
    domain: Domain, bad: list[BadLine], unused: Counter[str] | None = None
) -> Iterator[tuple[Example, Receipt]]:
    """Every human example with its receipt, source after source; `bad` and `unused` as in human_rows."""
    for source in domain.human:
        yield from human_rows(source, domain.paths(source), domain.language, bad, unused)


def item_of(name: str, example: Example) -> EvaluationItem:
    """The evaluation item that an example would be."""
    fields = {key: getattr(example, key) for key in ("prompt", "category", "source", "system", "history")}
    return make_item(set=name, reference=example.output, **fields)


def items_of(name: str, examples: Iterable[Example]) -> list[EvaluationItem]:
    """The items that conversations begin with, each one once."""
    items: dict[str, EvaluationItem] = {}
    for _, conversation in groupby(examples, conversation_of):
        item = item_of(name, next(conversation))
        items.setdefault(item.id, item)
    return list(items.values())


def conversation_of(example: Example) -> tuple[tuple[str, ...], str]:
    """What the examples of one conversation have in common, which no other one has; they come one after the other."""
    return example.source[:1], opening(example)


def pools_of(domain: Domain, small: Small, human: list[EvaluationItem]) -> Pools:
    """All items that could be evaluated on, by set; `human` are those that the human examples would be."""
    return {
        "domain": [item for item in small.items if item.set == "domain"] if domain.evaluation_files else human,
        "declining": [item for item in small.items if item.set == "declining"],
        "dialogue": items_of("dialogue", small.general.held_out),
        "mmlu": small.mmlu,
        "safety": small.safety,
    }


def read_frozen(domain: Domain) -> Frozen:
    """The frozen items' ids, by set. Raises IngestError: no list is frozen."""
    if not domain.frozen.is_file():
        raise IngestError(f"{domain.frozen} is missing; make it: python -m flywheel.new_domain.freeze")
    frozen: Frozen = json.loads(domain.frozen.read_text(encoding="utf-8"))
    return frozen


def frozen_items(domain: Domain, pools: Pools, gone: Forgotten = NOTHING) -> Pools:
    """The frozen items among the candidates, but for what is `gone`.

    Raises IngestError where none are, or one has left the sources.
    """
    frozen, result = read_frozen(domain), Pools()
    for name in layout.EVALUATION_SETS:
        by_id = {item.id: item for item in pools[name]}
        wanted = frozen.get(name, [])
        if missing := [identity for identity in wanted if identity not in by_id]:
            raise IngestError(
                f"{domain.frozen}: {len(missing)} {name} items have left the sources, first {missing[0][:12]}; "
                "put the sources back, or draw anew with python -m flywheel.new_domain.freeze --again"
            )
        promised = {"mmlu": domain.mmlu, "safety": domain.safety}.get(name)
        if not wanted and (promised or name not in layout.OPTIONAL_SETS):
            raise IngestError(
                f"{domain.frozen}: no {name} items; draw anew with python -m flywheel.new_domain.freeze --again"
            )
        result[name] = [by_id[identity] for identity in wanted if not gone(*by_id[identity].source)]
    return result


def ingest(domain: Domain) -> str:
    """Read the sources and write data/ingest; returns what happened, in a sentence."""
    small = read_small(domain)
    bad, unused = small.general.bad, small.general.unused
    with fresh_directory(layout.INGEST) as folder:
        with (
            record_writer(folder / "receipt.parquet", Receipt) as note,
            record_writer(folder / "dropped.parquet", Example) as drop,
        ):
            known = Known(note)
            examples, held = _pass_humans(folder, domain, small, known, drop)
            sets = frozen_items(domain, pools_of(domain, small, held), known.gone)
            evaluated = {item.id for item in sets["safety"]}
            rest = [item for item in small.safety if item.id not in evaluated]
            refusals = refused(domain.safety, rest, domain.language) if domain.safety else []
            for receipt in small.general.receipts:
                note(receipt)
            for example in filter(known.example, small.general.dropped + small.general.held_out):
                drop(example)
            for example in refusals:
                note(Receipt(example_id=example.id, stage=STAGE, kept=True, reason="read", detail="safety"))
            general, refusals = ([*filter(known.example, pool)] for pool in (small.general.replay, refusals))
        write_records(folder / "general.parquet", general, Example)
        write_records(folder / "safety.parquet", refusals, Example)
        seeds = [seed for seed, example in small.seeds if not known.gone(example.id, *example.source)]
        write_jsonl(folder / "seeds.jsonl", seeds)
        rewordings = [one for one in small.rewordings if known.part("rewordings", one.source)]
        write_jsonl(folder / "rewordings.jsonl", rewordings)
        read = (_documents(domain, sources, bad) for sources in (domain.documents, [*domain.known_documents, LEARNED]))
        training, others = ((one for one in part if known.part("documents", one.name)) for part in read)
        documents = write_records(folder / "documents.parquet", training, Document)
        documents += write_records(folder / "known_documents.parquet", others, Document)
        edges = (one for one in _triples(domain, bad, unused) if known.part("triples", f"{one.file}:{one.line}"))
        triples = write_records(folder / "triples.parquet", edges, Triple)
        for name, items in sets.items():
            write_jsonl(folder / "evaluation" / f"{name}.jsonl", items)
        write_jsonl(folder / "quarantine.jsonl", bad)
    counts = ", ".join(f"{len(items)} {name}" for name, items in sets.items())
    causes = (f"{Path(file).name}: {cause}" for file in dict.fromkeys(line.file for line in bad)
              for cause in by_cause(line for line in bad if line.file == file))  # fmt: skip
    unread = "".join(f"; {name} is not read ({rows} rows)" for name, rows in unused.most_common())
    unread += "".join(f"; {number} {kind} were forgotten" for kind, number in sorted(known.left_out.items()))
    return (
        f"{examples} examples, {len(seeds)} of them seeds, {documents} documents, {triples} triples, "
        f"{len(general)} general, {len(refusals)} refusals, evaluation: {counts}; "
        f"{len(bad)} in quarantine{unread}" + "".join(f"\n  {cause}" for cause in causes)
    )


def _pass_humans(
    folder: Path,
    domain: Domain,
    small: Small,
    known: Known,
    drop: Callable[[Example], None],
) -> tuple[int, list[EvaluationItem]]:
    """Write the human examples and the seeds, each with its receipt; returns how many, and the items held back."""
    seeds, kept, held = {example.id: example for _, example in small.seeds}, 0, dict[str, EvaluationItem]()
    held_out = (
        {item.id for item in small.items} if domain.evaluation_files else set(read_frozen(domain).get("domain", ()))
    )
    answers = {source for item in small.items for source in item.source[1:]}  # the entries that items are answered from
    with record_writer(folder / "examples.parquet", Example) as keep:
        read = human_examples(domain, small.general.bad, small.general.unused)
        conversations = (list(turns) for _, turns in groupby(read, lambda pair: conversation_of(pair[0])))
        for example, receipt in (pair for turns in conversations for pair in held_back(turns, held_out, answers)):
            if receipt.reason == HELD_OUT:
                item = item_of("domain", example)
                held.setdefault(item.id, item)
            if not known.example(example):
                continue
            known.note(receipt)
            (keep if receipt.kept else drop)(example)
            kept += receipt.kept
            if receipt.kept:
                seeds.pop(example.id, None)  # a seed may be drawn from the human examples
        for example in filter(known.example, seeds.values()):
            known.note(Receipt(example_id=example.id, stage=STAGE, kept=True, reason="read", detail="seed"))
            keep(example)
            kept += 1
    return kept, list(held.values())


def held_back(
    turns: Sequence[tuple[Example, Receipt]], held_out: Container[str], answers: Container[str]
) -> list[tuple[Example, Receipt]]:
    """The examples of a conversation with their receipts: all of it is held back where one of it is evaluated on.

    Its later turns hold the answer that is asked for, in their history. `held_out` are ids of items, `answers` sources.
    """
    told = any(r.kept and (item_of("domain", e).id in held_out or e.source[0] in answers) for e, r in turns)
    if not told:
        return list(turns)
    held = {"kept": False, "reason": HELD_OUT}
    return [(example, receipt.model_copy(update=held) if receipt.kept else receipt) for example, receipt in turns]


def _documents(domain: Domain, sources: list[Source], bad: list[BadLine]) -> Iterator[Document]:
    for source in sources:
        yield from read_documents(source, domain.paths(source), bad, domain.language)


def _triples(domain: Domain, bad: list[BadLine], unused: Counter[str]) -> Iterator[Triple]:
    for source in domain.triples:
        before, found = len(bad), 0
        for triple in read_triples(source, domain.paths(source), bad, domain.language, unused):
            found += 1
            yield triple
        if not found:
            cause = f" ({bad[before].cause})" if len(bad) > before else ""
            raise SourceError(f"{source.name}: not one triple can be read{cause}")


def main() -> str:
    """Sources become records; the frozen evaluation items are laid aside."""
    return ingest(load_domain(load_params().domain))


if __name__ == "__main__":
    run_stage(STAGE, main)
