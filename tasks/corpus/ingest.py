"""Stage `ingest`: a domain's sources become records, and its frozen evaluation items are laid aside.

Reads the files named in domain.yaml; writes data/ingest. Nothing is dropped in silence: what cannot be read is in
quarantine.jsonl, and every example has a receipt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tasks import layout
from tasks.corpus.benchmarks import read_mmlu, read_safety, refused
from tasks.corpus.general import Dialogue, read_dialogue
from tasks.corpus.human import read_human
from tasks.domain import Domain, load_domain
from tasks.errors import FlywheelError
from tasks.files import fresh_directory
from tasks.params import load_params
from tasks.records import BadLine, EvaluationItem, Example, Receipt, make_item, write_jsonl
from tasks.stage import run_stage

STAGE = "ingest"
Pools = dict[str, list[EvaluationItem]]


class IngestError(FlywheelError):
    """The sources do not hold what the domain promises."""


@dataclass
class Sources:
    """Everything that was read from a domain's sources."""

    human: list[Example]
    general: Dialogue
    mmlu: list[EvaluationItem]
    safety: list[EvaluationItem]
    receipts: list[Receipt]
    bad: list[BadLine]


def read_sources(domain: Domain) -> Sources:
    """Read every source of a domain."""
    human: list[Example] = []
    receipts: list[Receipt] = []
    bad: list[BadLine] = []
    for source in domain.human:
        examples, seen, unread = read_human(source, domain.paths(source), domain.language)
        human, receipts, bad = human + examples, receipts + seen, bad + unread
    general = Dialogue()
    for dialogue_source in domain.general:
        found = read_dialogue(dialogue_source, domain.paths(dialogue_source))
        general.replay += found.replay
        general.held_out += found.held_out
        receipts, bad = receipts + found.receipts, bad + found.bad
    mmlu, rejected = read_mmlu(domain.mmlu, domain.paths(domain.mmlu))
    safety = read_safety(domain.safety, domain.paths(domain.safety))
    return Sources(human, general, mmlu, safety, receipts, bad + rejected)


def candidates(domain: Domain, sources: Sources) -> Pools:
    """All items that could be evaluated on, by set."""
    return {
        "domain": _items("domain", sources.human),
        "dialogue": _items("dialogue", sources.general.held_out),
        "mmlu": sources.mmlu,
        "safety": sources.safety,
    }


def frozen_items(domain: Domain, pools: Pools) -> Pools:
    """The frozen items among the candidates.

    Raises:
        IngestError: no list is frozen, or an item on it is no longer in the sources.
    """
    try:
        frozen: dict[str, list[str]] = json.loads(domain.frozen.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IngestError(f"{domain.frozen} is missing; make it: python -m tasks.corpus.freeze") from None
    result: Pools = {}
    for name in layout.EVALUATION_SETS:
        by_id = {item.id: item for item in pools[name]}
        wanted = frozen.get(name, [])
        if missing := [identity for identity in wanted if identity not in by_id]:
            raise IngestError(
                f"{domain.frozen}: {len(missing)} {name} items have left the sources, first {missing[0][:12]}; "
                "put the sources back, or draw anew with python -m tasks.corpus.freeze --again"
            )
        if not wanted:
            raise IngestError(f"{domain.frozen}: no {name} items; draw anew with python -m tasks.corpus.freeze --again")
        result[name] = [by_id[identity] for identity in wanted]
    return result


def ingest(domain: Domain) -> str:
    """Read the sources and write data/ingest; returns what happened, in a sentence."""
    sources = read_sources(domain)
    sets = frozen_items(domain, candidates(domain, sources))
    held_out = {(item.prompt, item.reference) for item in sets["domain"]}
    examples, receipts = _lay_aside(sources, held_out)
    evaluated = {item.id for item in sets["safety"]}
    refusals = refused(domain.safety, [item for item in sources.safety if item.id not in evaluated], domain.language)
    receipts += [Receipt(example_id=e.id, stage=STAGE, kept=True, reason="read", detail="safety") for e in refusals]
    with fresh_directory(layout.INGEST) as folder:
        write_jsonl(folder / "examples.jsonl", examples)
        write_jsonl(folder / "general.jsonl", sources.general.replay)
        write_jsonl(folder / "safety.jsonl", refusals)
        for name, items in sets.items():
            write_jsonl(folder / "evaluation" / f"{name}.jsonl", items)
        write_jsonl(folder / "quarantine.jsonl", sources.bad)
        write_jsonl(folder / "receipt.jsonl", receipts)
    counts = ", ".join(f"{len(items)} {name}" for name, items in sets.items())
    return (
        f"{len(examples)} examples, {len(sources.general.replay)} general, {len(refusals)} refusals, "
        f"evaluation: {counts}; "
        f"{len(sources.bad)} in quarantine"
    )


def _items(name: str, examples: list[Example]) -> list[EvaluationItem]:
    items: dict[str, EvaluationItem] = {}
    for example in examples:
        item = make_item(
            set=name, prompt=example.prompt, reference=example.output, category=example.category, source=example.source
        )
        items.setdefault(item.id, item)
    return list(items.values())


def _lay_aside(sources: Sources, held_out: set[tuple[str, str]]) -> tuple[list[Example], list[Receipt]]:
    """The examples that are not evaluation items, and the receipts with those items marked."""
    frozen = {example.id for example in sources.human if (example.prompt, example.output) in held_out}
    examples = [example for example in sources.human if example.id not in frozen]
    receipts = [
        receipt.model_copy(update={"kept": False, "reason": "kept for the evaluation"})
        if receipt.example_id in frozen
        else receipt
        for receipt in sources.receipts
    ]
    return examples, receipts


def main() -> str:
    """Sources become records; the frozen evaluation items are laid aside."""
    return ingest(load_domain(load_params().domain))


if __name__ == "__main__":
    run_stage(STAGE, main)
