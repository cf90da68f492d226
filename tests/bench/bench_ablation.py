"""What deduplication and selection are worth on the default domain, at the same number of training tokens.

Five arms: every valid example; deduplicated; and, of half that number, k-center's, k-center's with Nuggets, and a
random draw. Each is trained on for as many tokens as one pass over everything takes (a smaller set is seen more often),
with the settings of params.yaml, from the base model, and without replay; then the frozen domain items are asked.

    python tests/bench/bench_ablation.py            the table of what is measured so far
    python tests/bench/bench_ablation.py --run 1    does that many steps that are still missing: some minutes each

Run it where the stages up to `dedup` have been run. Everything is kept under .flywheel/ablation; a step that was killed
goes on from its checkpoint. Intervals are over the items, for one training each: another seed moves scores, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.files import digest_of, sha256_file, verify_manifest, write_json
from tasks.core.intervals import paired_interval
from tasks.core.params import Params, load_params
from tasks.core.records import EvaluationItem, Example, read_own_jsonl, write_jsonl
from tasks.core.tables import read_records
from tests.bench.table import show

HOME = layout.HOME / "ablation"
ARMS = ("everything", "dedup", "random", "k_center", "k_center_nuggets")
SHARE, BEFORE_NUGGETS = 0.5, 0.75  # of the deduplicated examples


def choose_arm(arm: str) -> None:
    """Write the examples of an arm into HOME/<arm>."""
    params = load_params()
    write_jsonl(HOME / arm / "examples.jsonl", choose(arm, params, load_domain(params.domain)))


def chosen(arm: str) -> list[Example]:
    """The examples of an arm."""
    return read_own_jsonl(HOME / arm / "examples.jsonl", Example)


def choose(arm: str, params: Params, domain: Domain) -> list[Example]:
    """The examples of an arm, chosen."""
    if arm == "everything":
        return read_records(layout.VALIDATE / "examples.parquet", Example)
    examples = read_records(layout.DEDUP / "examples.parquet", Example)
    size = round(SHARE * len(examples))
    if arm == "dedup":
        return examples
    if arm == "random":
        return sorted(examples, key=lambda example: digest_of([params.seed, example.id]))[:size]
    if arm == "k_center":
        return covering(examples, size)
    wide = covering(examples, round(BEFORE_NUGGETS * len(examples)))
    return golden(wide, size, params, domain)


def covering(examples: list[Example], size: int) -> list[Example]:
    """The first picks of k-center greedy."""
    from tasks.curate.select.k_center import k_center

    return [examples[row] for row in k_center(vectors(examples), size).picks]


def vectors(examples: list[Example]) -> Any:
    """Unit vectors of question and answer together."""
    from tasks.similarity.embedder import read_embeddings

    return read_embeddings(layout.EMBED / "examples.parquet").rows([example.id for example in examples])[1]


def golden(examples: list[Example], size: int, params: Params, domain: Domain) -> list[Example]:
    """Those with the best golden scores, equal ones by their mean gain."""
    from tasks.curate.select.nuggets import score_examples
    from tasks.curate.select.stage import plan_pairs

    tasks = plan_pairs(params.select.nuggets, len(examples))[1]
    scores = score_examples(examples, vectors(examples), tasks, params, domain)
    write_json(HOME / "golden.json", {"tasks": tasks, "scores": [[golden.score, golden.gain] for golden in scores]})
    order = sorted(range(len(examples)), key=lambda row: (-scores[row].score, -scores[row].gain, examples[row].id))
    return [examples[row] for row in order[:size]]


def lengths(examples: Sequence[Example], domain: Domain, params: Params) -> dict[str, int]:
    """Tokens of prompt and answer of each example, by id."""
    from tasks.evaluate.run.stage import load_tokenizer
    from tasks.text.prompts import encode_example

    tokenizer, system = load_tokenizer(layout.BASE_MODEL), domain.system_text()
    encoded = ((e.id, encode_example(tokenizer, system, e, params.sft.max_tokens)) for e in examples)
    return {identity: len(prompt) + len(answer) for identity, (prompt, answer) in encoded}


def training_rows(examples: list[Example], tokens: dict[str, int], budget: int, seed: int) -> list[Example]:
    """Whole passes over the examples, each in another order, until the next one would exceed the budget in tokens."""
    rows: list[Example] = []
    for example in passes(examples, seed):
        budget -= tokens[example.id]
        if budget < 0:
            return rows
        rows.append(example)
    return rows


def passes(examples: list[Example], seed: int) -> Iterator[Example]:
    """The examples, shuffled, again and again."""
    generator = random.Random(seed)
    while examples:
        yield from generator.sample(examples, len(examples))


def train_arm(arm: str) -> None:
    """Train, and put the adapter into HOME/<arm>."""
    from tasks.train.entry.training import execute
    from tasks.train.run.handover import write_trained
    from tasks.train.sft.stage import describe

    params = load_params()
    domain = load_domain(params.domain)
    everything, examples = chosen("everything"), chosen(arm)
    tokens = lengths(everything, domain, params)
    rows = training_rows(examples, tokens, sum(tokens[example.id] for example in everything), params.seed)
    run = HOME / "runs" / arm
    run.mkdir(parents=True, exist_ok=True)
    write_jsonl(run / "train.jsonl", rows)
    write_jsonl(run / "validation.jsonl", [])
    job = describe(params, domain).model_copy(
        update={
            "data": {name: run / f"{name}.jsonl" for name in ("train", "validation")},
            "settings": params.sft.model_copy(update={"epochs": 1}),
        }
    )
    write_trained(execute(job, run), HOME / arm, domain.base_model.name)
    counts = {"examples": len(examples), "rows": len(rows), "tokens": sum(tokens[row.id] for row in rows)}
    write_json(HOME / arm / "counts.json", counts)
    shutil.rmtree(run)


def measure_arm(arm: str) -> None:
    """Ask the frozen domain items, as a release does."""
    from tasks.evaluate.run.stage import load_tokenizer, responses_to
    from tasks.evaluate.scoring.questions import questions_of, scores_of
    from tasks.evaluate.scoring.subject import ADAPTER_FILES, Subject

    params = load_params()
    items = read_own_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", EvaluationItem)
    tokenizer = load_tokenizer(layout.BASE_MODEL)
    questions = questions_of(items, tokenizer, load_domain(params.domain).system_text())
    adapter, base = HOME / arm / "adapter", verify_manifest(layout.BASE_MODEL)
    digest = digest_of({name: sha256_file(adapter / name) for name in ADAPTER_FILES})
    subject = Subject(f"ablation_{arm}", None, digest, layout.BASE_MODEL, base, adapter, digest)
    responses, _ = responses_to(questions, subject, params.evaluate)
    scores = [score for pair in zip(questions, responses, strict=True) for score in scores_of(*pair)]
    write_jsonl(HOME / arm / "scores.jsonl", scores)


def missing() -> Iterator[tuple[str, Any]]:
    """The steps that have not been done, in order."""
    for arm in ARMS:
        if not (HOME / arm / "examples.jsonl").exists():
            yield f"choose {arm}", lambda arm=arm: choose_arm(arm)
        if not (HOME / arm / "counts.json").exists():
            yield f"train {arm}", lambda arm=arm: train_arm(arm)
        if not (HOME / arm / "scores.jsonl").exists():
            yield f"measure {arm}", lambda arm=arm: measure_arm(arm)


def values(arm: str, metric: str) -> list[float]:
    """An arm's scores of one metric, in order of item."""
    rows = [json.loads(line) for line in (HOME / arm / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["value"] for row in sorted(rows, key=lambda row: row["id"]) if row["metric"] == metric]


def report() -> None:
    """Each arm's means, and its difference from the random draw with a 95% interval over the items."""
    rows = []
    for arm in (arm for arm in ARMS if (HOME / arm / "scores.jsonl").exists()):
        counts = json.loads((HOME / arm / "counts.json").read_text(encoding="utf-8"))
        cells = [arm, *(f"{counts[key]:,}" for key in ("examples", "rows", "tokens"))]
        for metric, digits in (("nll", 3), ("rouge_l", 4)):
            found = values(arm, metric)
            cells += [f"{sum(found) / len(found):.{digits}f}", difference(arm, metric, digits)]
        rows.append(cells)
    title = "Held-out domain items; difference from `random`, below 0 is better for NLL, above for ROUGE-L"
    show(title, "arm | examples | rows | tokens | NLL | difference | ROUGE-L | difference", rows)


def difference(arm: str, metric: str, digits: int) -> str:
    """The mean paired difference from the random draw, with its interval."""
    if arm == "random" or not (HOME / "random" / "scores.jsonl").exists():
        return ""
    found = paired_interval(values(arm, metric), values("random", metric), level=0.95, resamples=10_000, seed=0)
    return f"{found.estimate:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def main() -> None:
    """Do the steps that were asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, default=0, metavar="STEPS")
    steps = parser.parse_args().run
    os.environ.update(layout.OFFLINE)
    console = Console(width=150)
    for name, step in list(missing())[:steps]:
        console.print(name)
        step()
    left = [name for name, _ in missing()]
    report()
    if (HOME / "golden.json").exists():
        golden = json.loads((HOME / "golden.json").read_text(encoding="utf-8"))
        full = sum(score == 1.0 for score, _ in golden["scores"])
        console.print(f"{full} of {len(golden['scores'])} golden scores are 1, over {golden['tasks']} tasks each")
    if left:
        console.print(f"{len(left)} steps are missing, next: {left[0]}; --run 1 does it")


if __name__ == "__main__":
    main()
