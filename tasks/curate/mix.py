"""Stage `mix`: domain examples, general replay and refusals become one training set that no evaluation item leaks into.

Leak guard: an example whose question, or question and answer together, resemble those of any evaluation item is
left out (similarity in near.py). Replay is drawn in order of content hash, so that a changed ratio only adds or
removes; the validation rows are drawn the same way, from both kinds in proportion.

New corrections are seen several times an epoch, and never held out. Where training goes on from a champion's adapter,
which has learnt the other domain examples already, only a number of those is replayed.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from tasks import layout
from tasks.curate.near import NearIndex
from tasks.errors import FlywheelError
from tasks.files import digest_of, fresh_directory, write_json, write_text
from tasks.params import FeedbackParams, MixParams, Params, load_params
from tasks.records import EvaluationItem, Example, Receipt, make_item, read_own_jsonl, write_jsonl
from tasks.stage import run_stage

STAGE = "mix"


class MixError(FlywheelError):
    """A training set cannot be put together as asked."""


@dataclass(frozen=True)
class DomainRows:
    """The domain's part of a training set: `repeated` rows are only trained on, of `plain` ones some validate."""

    plain: list[Example]
    repeated: list[Example]
    left_out: list[Example]


class LeakGuard:
    """Knows the evaluation items, and says of an example which of them it resembles."""

    def __init__(self, items: list[EvaluationItem], threshold: float, shingle: int) -> None:
        self.items = items
        self._prompts = NearIndex(threshold, shingle)
        self._wholes = NearIndex(threshold, shingle)
        for item in items:
            self._prompts.add(item.prompt)
            self._wholes.add(_whole(item.prompt, item.reference or item.choices[item.answer or 0]))

    def leak(self, example: Example) -> tuple[EvaluationItem, float] | None:
        """The evaluation item that the example resembles most, with the similarity, or None."""
        near = self._prompts.near(example.prompt) + self._wholes.near(_whole(example.prompt, example.output))
        if not near:
            return None
        number, similarity = max(near, key=lambda pair: pair[1])
        return self.items[number], similarity


def _whole(prompt: str, answer: str) -> str:
    return f"{prompt}\n{answer}"


def guard(examples: list[Example], leak_guard: LeakGuard) -> tuple[list[Example], list[Receipt]]:
    """The examples that resemble no evaluation item, and a receipt for each that does."""
    kept, receipts = [], []
    for example in examples:
        if found := leak_guard.leak(example):
            item, similarity = found
            reason = f"resembles an evaluation item ({item.set})"
            receipts.append(
                Receipt(example_id=example.id, stage=STAGE, kept=False, reason=reason, detail=item.id, score=similarity)
            )
        else:
            kept.append(example)
    return kept, receipts


def draw_replay(pool: list[Example], rows: int, key: str, ratio: float) -> list[Example]:
    """The examples of a pool that make up `ratio` of a set of `rows`, in order of hash; `key` is the ratio's setting.

    Raises:
        MixError: the pool holds too few.
    """
    wanted = round(rows * ratio)
    if wanted > len(pool):
        raise MixError(
            f"mix.{key} = {ratio} asks for {wanted} examples and there are {len(pool)}; "
            "lower it, or add sources to domain.yaml"
        )
    return sorted(pool, key=lambda example: example.id)[:wanted]


def split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Training and validation rows; the validation rows are the first `share` in order of hash."""
    ordered = sorted(examples, key=lambda example: example.id)
    count = round(len(ordered) * share)
    return ordered[count:], ordered[:count]


def domain_rows(domain: list[Example], new: set[str], goes_on: bool, settings: FeedbackParams) -> DomainRows:
    """What of the domain examples is trained on; `goes_on`: from a champion that has learnt those not in `new`.

    Raises:
        MixError: training goes on from a champion, and no new correction is left to learn.
    """
    corrections = [example for example in domain if example.id in new]
    known = [example for example in domain if example.id not in new]
    if not goes_on:
        return DomainRows(known, corrections * settings.repeat, [])
    if not corrections:
        raise MixError("none of the new corrections passed validation and the leak guard: nothing new to learn")
    salt = sorted(new)  # another draw each night, the same one for the same corrections
    order = sorted(known, key=lambda example: digest_of([salt, example.id]))
    replayed, rest = order[: settings.replay_examples], order[settings.replay_examples :]
    return DomainRows(replayed, corrections * settings.repeat, rest)


def mix_examples(
    rows: DomainRows, pool: list[Example], refusals: list[Example], params: MixParams, seed: int
) -> tuple[list[Example], list[Example], list[Receipt]]:
    """The shuffled training rows, the validation rows, and a receipt for every example."""
    count = round((len(rows.plain) + len(rows.repeated)) / (1.0 - params.replay_ratio - params.safety_ratio))
    replay = draw_replay(pool, count, "replay_ratio", params.replay_ratio)
    replay += draw_replay(refusals, count, "safety_ratio", params.safety_ratio)
    train, validation = split(rows.plain, params.validation_share)
    replay_train, replay_validation = split(replay, params.validation_share)
    train, validation = train + rows.repeated + replay_train, validation + replay_validation
    random.Random(seed).shuffle(train)
    drawn = {example.id for example in replay}
    fates = {example.id: (True, "training") for example in train}
    fates |= {example.id: (True, "validation") for example in validation}
    fates |= {example.id: (False, "learnt by the champion, not replayed") for example in rows.left_out}
    fates |= {example.id: (False, "replay has enough") for example in pool + refusals if example.id not in drawn}
    receipts = [Receipt(example_id=i, stage=STAGE, kept=kept, reason=reason) for i, (kept, reason) in fates.items()]
    return train, validation, receipts


def correction_items(corrections: list[Example]) -> list[EvaluationItem]:
    """What users corrected, once each, for the gate to ask whether it was learnt. An item has no earlier turns."""
    items = [
        make_item(set="feedback", prompt=e.prompt, reference=e.output, category=e.category, source=e.source)
        for e in corrections
        if not e.history
    ]
    return list({item.id: item for item in items}.values())


def evaluation_items() -> list[EvaluationItem]:
    """The items of all evaluation sets."""
    paths = [layout.EVALUATION_ITEMS / f"{name}.jsonl" for name in layout.EVALUATION_SETS]
    return [item for path in paths for item in read_own_jsonl(path, EvaluationItem)]


def mix() -> str:
    """Mix data/select with general replay into data/mix; returns what happened, in a sentence."""
    params: Params = load_params()
    leak_guard = LeakGuard(evaluation_items(), params.mix.leak_threshold, params.dedup.shingle)
    selected = read_own_jsonl(layout.SELECT / "examples.jsonl", Example)
    domain, leaks = guard(selected, leak_guard)
    pool, replay_leaks = guard(read_own_jsonl(layout.INGEST / "general.jsonl", Example), leak_guard)
    refusals, refusal_leaks = guard(read_own_jsonl(layout.INGEST / "safety.jsonl", Example), leak_guard)
    new = set(json.loads((layout.FEEDBACK / "new.json").read_text(encoding="utf-8")))
    goes_on = (layout.START / "adapter").is_dir()
    rows = domain_rows(domain, new, goes_on, params.feedback)
    train, validation, receipts = mix_examples(rows, pool, refusals, params.mix, params.seed)
    write_jsonl(layout.CORRECTION_ITEMS, correction_items(rows.repeated) if goes_on else [])
    leaks = leaks + replay_leaks + refusal_leaks
    with fresh_directory(layout.MIX) as folder:
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "validation.jsonl", validation)
        write_jsonl(folder / "receipt.jsonl", receipts + leaks)
    replay = sum(example.origin == "general" for example in train + validation)
    counts = {
        "domain": len(domain),
        "corrections": sum(example.id in new for example in domain),
        "not_replayed": len(rows.left_out),
        "replay": replay,
        "leaks": len(leaks),
        "train": len(train),
        "validation": len(validation),
    }
    write_json(layout.METRICS / "mix.json", counts)
    write_funnel(counts)
    return (
        f"{len(train)} to train on ({replay} general), {len(validation)} to validate, {counts['leaks']} leaks kept out"
    )


def write_funnel(counts: dict[str, int]) -> None:
    """Write how many examples each stage let through, for `dvc plots show`."""
    rows = [("ingest", _lines("ingest", "examples.jsonl")), ("feedback", _lines("feedback", "examples.jsonl"))]
    rows += [("validate", _lines("validate", "examples.jsonl"))]
    rows += [("dedup", _lines("dedup", "examples.jsonl")), ("select", _lines("select", "examples.jsonl"))]
    rows += [("leak guard", counts["domain"]), ("replay added", counts["replay"]), ("train", counts["train"])]
    write_text(layout.PLOTS / "data_counts.csv", "stage,examples\n" + "".join(f"{s},{n}\n" for s, n in rows))


def _lines(stage: str, name: str) -> int:
    return len((layout.INGEST.parent / stage / name).read_bytes().splitlines())


if __name__ == "__main__":
    run_stage(STAGE, mix)
