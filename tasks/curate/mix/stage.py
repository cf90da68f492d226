"""Stage `mix`: domain examples, general replay and refusals become one training set that no evaluation item leaks into.

Whatever enters passes the leak guard first. Rows are drawn in order of content hash, so that a changed ratio only adds
or removes. New corrections and weak spots are seen several times an epoch. A night that goes on from a champion replays
another draw of what it has learnt than the nights before.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, fresh_directory, write_text
from tasks.core.graph import data_stages
from tasks.core.params import FeedbackParams, MixParams, Params, load_params
from tasks.core.pointers import adapter_to_continue, goes_on, weights_to_continue
from tasks.core.records import (
    Example,
    Receipt,
    Rewording,
    read_own_jsonl,
    write_jsonl,
)
from tasks.core.stage import run_stage, write_metrics
from tasks.core.tables import count_rows, read_batches, records_of, schema_of, write_records
from tasks.curate.mix.corrections import MOST_EARLIER, correction_items, kept_items, nearest
from tasks.curate.mix.passages import Answering
from tasks.knowledge.search import Knowledge
from tasks.similarity.embedder import cosines, read_embeddings
from tasks.similarity.leaks import LeakGuard, leak_guard
from tasks.text.grounding import groundedness
from tasks.text.likelihood import answer_losses, load_model
from tasks.text.prompts import PromptBook, encode_example

STAGE = "mix"
POOLS = {
    "domain": (layout.SELECT / "examples.parquet", layout.EMBED / "examples.parquet"),
    "general": (layout.VALIDATE / "general.parquet", layout.EMBED / "general.parquet"),
    "safety": (layout.VALIDATE / "safety.parquet", layout.EMBED / "safety.parquet"),
}


Spots = tuple[list[str], dict[str, str]]  # ids of sound weak spots; ids of doubtful ones with what is wrong
BOOST_BATCH = 8  # sequences a pass


class MixError(FlywheelError):
    """The settings ask for what the domain has not."""


@dataclass(frozen=True)
class DomainRows:
    """The domain's part, as ids: `repeated` never validate, some of `plain` do; `salt` draws a night's replay."""

    plain: list[str]
    repeated: list[str]
    left_out: list[str]
    salt: str = ""


@dataclass(frozen=True)
class Mixture:
    """The ids to train on, in order and as often as they come, those to validate with, and what became of every one."""

    train: list[str]
    validation: list[str]
    receipts: list[Receipt]


def guard(examples: Path, embeddings: Path, leaks: LeakGuard) -> tuple[pa.Table, list[Receipt]]:
    """The examples of a file that resemble no evaluation item, and a receipt for each that does."""
    vectors, kept, receipts = read_embeddings(embeddings), [], []
    for table in read_batches(examples):
        found = leaks.check(records_of(table, Example), vectors)
        kept.append(table.filter(pa.array([leak is None for leak in found], pa.bool_())))
        receipts += [
            Receipt(example_id=i, stage=STAGE, kept=False, reason=leak.reason, detail=leak.item.id, score=leak.score)
            for i, leak in zip(table["id"].to_pylist(), found, strict=True)
            if leak is not None
        ]
    return pa.concat_tables(kept) if kept else schema_of(Example).empty_table(), receipts


def in_order(ids: Iterable[str], salt: str) -> list[str]:
    """Ids in order of hash; with a `salt`, in another order for each one."""
    return sorted(ids, key=lambda identity: digest_of([salt, identity]) if salt else identity)


def draw_replay(pool: Sequence[str], rows: int, key: str, ratio: float, least: int, salt: str = "") -> list[str]:
    """The ids of a pool, drawn by `salt`, that make up `ratio` of a set of `rows`: `least` at least, unless it is 0."""
    if not ratio:
        return []
    wanted = max(round(rows * ratio), least)
    if wanted > len(pool):
        print(f"mix.{key} asks for {wanted} examples and there are {len(pool)}: all are used", flush=True)
    return in_order(pool, salt)[:wanted]


def split(ids: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Training and validation ids; the validation ones are the first `share` in order of hash."""
    ordered = sorted(ids)
    count = round(len(ordered) * share)
    return ordered[count:], ordered[:count]


def domain_rows(domain: Sequence[str], new: set[str], goes_on: bool, settings: FeedbackParams) -> DomainRows:
    """What of the domain examples is trained on; `goes_on`: from a champion that has learnt those not in `new`."""
    corrections = [identity for identity in domain if identity in new]
    known = [identity for identity in domain if identity not in new]
    if not goes_on:
        return DomainRows(known, corrections * settings.repeat, [])
    salt = digest_of(sorted(new))  # another draw each night, the same one for the same corrections
    order = in_order(known, salt)
    replayed, rest = order[: settings.replay_examples], order[settings.replay_examples :]
    return DomainRows(replayed, corrections * settings.repeat, rest, salt)


def of_a_night(settings: MixParams) -> MixParams:
    """The mixture of training that goes on from a champion, which has learnt to refuse: no least number of refusals.

    So many among a night's few rows make it refuse more every night, and cost general dialogue (docs/nightly.md).
    """
    return settings.model_copy(update={"min_refusals": 0})


def mix_rows(
    rows: DomainRows,
    pool: Sequence[str],
    refusals: Sequence[str],
    params: MixParams,
    seed: int,
    boosted: Sequence[str] = (),
) -> Mixture:
    """The shuffled training ids, the validation ids, and all receipts; `boosted` come again where not held out."""
    train, validation = split(rows.plain, params.validation_share)
    trained = set(train)
    extra = [*rows.repeated, *(identity for identity in boosted if identity in trained)]
    count = round((len(rows.plain) + len(extra)) / (1.0 - params.replay_ratio - params.safety_ratio))
    replay = draw_replay(pool, count, "replay_ratio", params.replay_ratio, params.min_replay, rows.salt)
    replay += draw_replay(refusals, count, "safety_ratio", params.safety_ratio, params.min_refusals, rows.salt)
    replay_train, replay_validation = split(replay, params.validation_share)
    train, validation = train + extra + replay_train, validation + replay_validation
    random.Random(seed).shuffle(train)
    drawn = set(replay)
    fates = dict.fromkeys(train, (True, "training")) | dict.fromkeys(validation, (True, "validation"))
    fates |= dict.fromkeys(extra[len(rows.repeated) :], (True, "training, more often: a weak spot"))
    fates |= dict.fromkeys(rows.left_out, (False, "learnt by the champion, not replayed"))
    unused = (identity for identity in [*pool, *refusals] if identity not in drawn)
    fates |= dict.fromkeys(unused, (False, "replay has enough"))
    receipts = [Receipt(example_id=i, stage=STAGE, kept=kept, reason=reason) for i, (kept, reason) in fates.items()]
    return Mixture(train, validation, receipts)


class Texts:
    """The examples that passed the guard, found by their ids."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._table = pa.concat_tables(tables)
        self._place = {identity: place for place, identity in enumerate(self._table["id"].to_pylist())}

    def examples(self, ids: Sequence[str]) -> Iterator[Example]:
        """The examples of these ids in their order, some at a time in memory."""
        for start in range(0, len(ids), 1000):
            yield from records_of(self._table.take([self._place[i] for i in ids[start : start + 1000]]), Example)


def boost(rows: DomainRows, texts: Texts, params: Params) -> tuple[list[str], dict[str, str]]:
    """Ids of weak spots, as often as they are seen beyond once, and what is wrong with those that look bad."""
    if not params.mix.boost.share:
        return [], {}
    weak, doubtful = weak_spots(list(texts.examples(rows.plain)), params)
    return weak * (params.mix.boost.repeat - 1), doubtful


def weak_spots(examples: Sequence[Example], params: Params) -> Spots:
    """The share of examples whose answers have the highest perplexity for the model that training starts from."""
    model, tokenizer = load_model(weights_to_continue() or layout.BASE_MODEL, adapter_to_continue())
    system = load_domain(params.domain).system_text()
    pairs = [encode_example(tokenizer, system, example, params.sft.max_tokens) for example in examples]
    losses = answer_losses(model, pairs, BOOST_BATCH) if pairs else []
    return sort_spots(examples, [math.exp(min(loss, 700.0)) for loss in losses], params)


def sort_spots(examples: Sequence[Example], perplexities: Sequence[float], params: Params) -> Spots:
    """The hardest apart: sound ones, the hardest first, and doubtful ones; equal perplexities rank by id.

    A hard example may simply be bad: sound is one of believable perplexity that follows from its evidence, if any.
    """
    order = sorted(zip(examples, perplexities, strict=True), key=lambda pair: (-pair[1], pair[0].id))
    highest, least = params.mix.boost.max_perplexity, params.construct_.self_qa.min_groundedness
    weak, doubtful = [], {}
    for one, perplexity in order[: round(params.mix.boost.share * len(order))]:
        grounded = groundedness(one.output, one.evidence, one.prompt) if one.evidence else 1.0
        if perplexity > highest:
            doubtful[one.id] = f"a weak spot not weighted: perplexity {perplexity:.4g} is above {highest:g}"
        elif grounded < least:
            doubtful[one.id] = f"a weak spot not weighted: groundedness {grounded:.2f} is below {least:g}"
        else:
            weak.append(one.id)
    return weak, doubtful


def mix() -> str:
    """Mix data/select with general replay into data/mix; returns what happened, in a sentence."""
    params = load_params()
    domain = load_domain(params.domain)
    if params.mix.safety_ratio and domain.safety is None:
        raise MixError(
            f"mix.safety_ratio asks for refused harmful requests, and {domain.folder}/domain.yaml has no `safety:`; "
            "set mix.safety_ratio to 0, or name a source"
        )
    leaks = leak_guard(params, domain)
    passed = {name: guard(*paths, leaks) for name, paths in POOLS.items()}
    texts = Texts([table for table, _ in passed.values()])
    ids = {name: table["id"].to_pylist() for name, (table, _) in passed.items()}
    new = set(json.loads((layout.FEEDBACK / "new.json").read_text(encoding="utf-8")))
    continued = goes_on()
    rows = domain_rows(ids["domain"], new, continued, params.feedback)
    boosted, doubtful = boost(rows, texts, params)
    shares = of_a_night(params.mix) if continued else params.mix
    mixture = mix_rows(rows, ids["general"], ids["safety"], shares, params.seed, boosted)
    receipts = [r.model_copy(update={"detail": doubtful.get(r.example_id, "")}) for r in mixture.receipts]
    written, with_passages = dict[str, int](), 0
    leaked = [receipt for _, found in passed.values() for receipt in found]
    for path in (layout.CORRECTION_ITEMS, layout.KEPT_ITEMS):
        write_jsonl(path, [])
    if new and params.feedback.start == "champion":  # a renewal is asked what a night is, though it does not go on
        write_items(rows, mixture, texts, params)
    answering = answering_of(params)
    with fresh_directory(layout.MIX) as folder:
        for name, ids_of_split in (("train", mixture.train), ("validation", mixture.validation)):
            examples = list(texts.examples(ids_of_split))
            examples = answering.examples(examples) if answering else examples
            written[name] = len(examples)
            with_passages += sum(one.passages is not None for one in examples)
            write_jsonl(folder / f"{name}.jsonl", examples)
        write_records(folder / "receipt.parquet", receipts + leaked, Receipt)
        write_records(folder / "general.parquet", records_of(passed["general"][0], Example), Example)
    counts = {
        "domain": len(ids["domain"]),
        "corrections": len(new.intersection(ids["domain"])),
        "not_replayed": len(rows.left_out),
        "replay": len({*ids["general"], *ids["safety"]}.intersection(mixture.train + mixture.validation)),
        "boosted": len(set(boosted).intersection(mixture.train)),
        "with_passages": with_passages,
        "leaks": len(leaked),
        **written,
    }
    write_metrics(STAGE, {"examples": counts["train"], "dropped": counts["leaks"]}, counts)
    write_counts(counts)
    return (
        f"{counts['train']} to train on ({counts['replay']} general), {counts['validation']} to validate, "
        f"{counts['leaks']} leaks kept out"
    )


def write_items(rows: DomainRows, mixture: Mixture, texts: Texts, params: Params) -> None:
    """Write what a night is asked about corrections: tonight's, earlier ones, and the entries beside tonight's."""
    new, known = list(dict.fromkeys(rows.repeated)), [*rows.plain, *rows.left_out]
    other_words = json.loads((layout.FEEDBACK / "other_words.json").read_text(encoding="utf-8"))
    learnt = {one.id for one in texts.examples(known) if one.origin == "feedback"}
    same = params.dedup.semantic_threshold or cosines(load_domain(params.domain)).same
    entries = [identity for identity in known if identity not in learnt]
    beside = nearest(read_embeddings(layout.EMBED / "examples.parquet"), new, entries, same)
    asked = correction_items(list(texts.examples(new)), other_words, list(texts.examples(mixture.train)))
    earlier = in_order(learnt, rows.salt)[:MOST_EARLIER]
    write_jsonl(layout.CORRECTION_ITEMS, asked)
    write_jsonl(layout.KEPT_ITEMS, kept_items(list(texts.examples(earlier)), list(texts.examples(beside))))


def answering_of(params: Params) -> Answering | None:
    """What puts passages to examples; None where retrieval is off."""
    if not params.retrieval.enabled:
        return None
    rewordings: dict[str, list[str]] = {}
    for one in read_own_jsonl(layout.INGEST / "rewordings.jsonl", Rewording):
        rewordings.setdefault(one.source, []).append(one.question)
    knowledge = Knowledge(layout.INDEX, PromptBook(layout.BASE_MODEL).count)
    return Answering(knowledge, rewordings, load_domain(params.domain).system_text(), params)


def write_counts(counts: Mapping[str, int]) -> None:
    """Write how many examples each stage let through, for `dvc plots show`. Raises RecordError: a stage has not run."""
    stages = (name for name in data_stages() if name != STAGE)
    rows = [(name, count_rows(layout.INGEST.with_name(name) / "examples.parquet")) for name in stages]
    rows += [("leak guard", counts["domain"]), ("replay added", counts["replay"]), ("train", counts["train"])]
    write_text(layout.PLOTS / "data_counts.csv", "stage,examples\n" + "".join(f"{s},{n}\n" for s, n in rows))


if __name__ == "__main__":
    run_stage(STAGE, mix)
