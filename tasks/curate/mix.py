"""Stage `mix`: domain examples, general replay and refusals become one training set that no evaluation item leaks into.

Leak guard: an example whose question, or question and answer together, resemble those of any evaluation item is
left out (similarity in near.py). Replay is drawn in order of content hash, so that a changed ratio only adds or
removes; the validation rows are drawn the same way, from both kinds in proportion.
"""

from __future__ import annotations

import random

from tasks import layout
from tasks.curate.near import NearIndex
from tasks.errors import FlywheelError
from tasks.files import fresh_directory, write_json, write_text
from tasks.params import MixParams, Params, load_params
from tasks.records import EvaluationItem, Example, Receipt, read_own_jsonl, write_jsonl
from tasks.stage import run_stage

STAGE = "mix"


class MixError(FlywheelError):
    """A training set cannot be put together as asked."""


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


def mix_examples(
    domain: list[Example], pool: list[Example], refusals: list[Example], params: MixParams, seed: int
) -> tuple[list[Example], list[Example], list[Receipt]]:
    """The shuffled training rows, the validation rows, and a receipt for every example."""
    rows = round(len(domain) / (1.0 - params.replay_ratio - params.safety_ratio))
    replay = draw_replay(pool, rows, "replay_ratio", params.replay_ratio)
    replay += draw_replay(refusals, rows, "safety_ratio", params.safety_ratio)
    train, validation = split(domain, params.validation_share)
    replay_train, replay_validation = split(replay, params.validation_share)
    train, validation = train + replay_train, validation + replay_validation
    random.Random(seed).shuffle(train)
    drawn = {example.id for example in replay}
    receipts = [Receipt(example_id=e.id, stage=STAGE, kept=True, reason="training") for e in train]
    receipts += [Receipt(example_id=e.id, stage=STAGE, kept=True, reason="validation") for e in validation]
    receipts += [
        Receipt(example_id=e.id, stage=STAGE, kept=False, reason="replay has enough")
        for e in pool + refusals
        if e.id not in drawn
    ]
    return train, validation, receipts


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
    train, validation, receipts = mix_examples(domain, pool, refusals, params.mix, params.seed)
    leaks = leaks + replay_leaks + refusal_leaks
    with fresh_directory(layout.MIX) as folder:
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "validation.jsonl", validation)
        write_jsonl(folder / "receipt.jsonl", receipts + leaks)
    replay = sum(example.origin == "general" for example in train + validation)
    counts = {
        "domain": len(domain),
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
    rows = [("ingest", _lines("ingest", "examples.jsonl")), ("validate", _lines("validate", "examples.jsonl"))]
    rows += [("dedup", _lines("dedup", "examples.jsonl")), ("select", _lines("select", "examples.jsonl"))]
    rows += [("leak guard", counts["domain"]), ("replay added", counts["replay"]), ("train", counts["train"])]
    write_text(layout.PLOTS / "data_counts.csv", "stage,examples\n" + "".join(f"{s},{n}\n" for s, n in rows))


def _lines(stage: str, name: str) -> int:
    return len((layout.INGEST.parent / stage / name).read_bytes().splitlines())


if __name__ == "__main__":
    run_stage(STAGE, mix)
