"""Which training rows moved a model's loss on given answers most: the gradient of each row beside that of the answers.

A step of plain gradient descent on a row changes the answers' mean loss by -rate times the dot product of the two
gradients, to first order (Pruthi et al. 2020, arXiv 2002.08484, equation 1, at one checkpoint), over the adapter's
parameters. Rows are compared by the cosine, since the optimizer evens out their lengths (Xia et al. 2024, arXiv
2402.04333, section 2). Limits: adapters alone, one checkpoint; it orders rows, and does not say by how much they moved.

`python -m tasks.evaluate.influence` says it of the verdict's worst loss, into .flywheel/influence.json.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.core.params import load_params
from tasks.core.pointers import adapter_to_continue
from tasks.core.records import Example, Record, Score, read_own_jsonl
from tasks.evaluate.run.stage import load_tokenizer, questions_for
from tasks.evaluate.scoring.questions import METRICS
from tasks.evaluate.scoring.subject import evaluation_of, load_subject
from tasks.text.likelihood import Ids, load_model
from tasks.text.prompts import encode_example, encode_text

INFLUENCE = layout.HOME / "influence.json"
MOST_ANSWERS, MOST_OF_A_KIND = 30, 40
CORRECTION = "correction"
Pair = tuple[Ids, Ids]


class NoInfluence(FlywheelError):
    """There is nothing here whose training rows could be asked about."""


class Pull(Record):
    """A training row: below 0 it made the answers less likely; `times` it is seen in an epoch."""

    example: str
    kind: str
    question: str
    source: tuple[str, ...]
    times: int
    influence: float


class Kind(Record):
    """All rows of a kind, with the mean influence of those that were asked."""

    name: str
    rows: int
    influence: float


class Influence(Record):
    """What pulled at the answers to which a criterion lost most; kinds and rows with the most harm first."""

    criterion: str
    answers: int
    kinds: tuple[Kind, ...]
    rows: tuple[Pull, ...]


def load_trainable(base: Path, adapter: Path) -> tuple[Any, Any]:
    """A base model with an adapter whose parameters have gradients, and its tokenizer."""
    from peft import PeftModel

    model, tokenizer = load_model(base)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True).eval(), tokenizer


def influences(model: Any, answers: Sequence[Pair], rows: Iterable[Pair]) -> list[float]:
    """For each row the cosine, -1 to 1, of its gradient with that of the answers' mean loss.

    Above 0, training on the row makes the answers likelier. Prompt and answer of each are token ids; only parameters of
    `model` that require gradients count.
    """
    target = _gradient(model, answers)
    size = _dot(target, target)
    found = []
    for row in rows:
        own = _gradient(model, [row])
        found.append(_dot(own, target) / max(1e-30, size * _dot(own, own)) ** 0.5)
    return found


def _gradient(model: Any, pairs: Sequence[Pair]) -> list[Any]:
    """Of the mean over the pairs of an answer's mean loss a token."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    model.zero_grad(set_to_none=True)
    for pair in pairs:
        (_loss(model, pair) / len(pairs)).backward()
    return [one.grad if one.grad is not None else one.new_zeros(()) for one in parameters]


def _loss(model: Any, pair: Pair) -> Any:
    import torch

    prompt, answer = pair
    ids = torch.tensor([prompt + answer[:-1]], device=model.device)
    logits = model(input_ids=ids, logits_to_keep=len(answer), use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(answer, device=model.device))


def _dot(left: Sequence[Any], right: Sequence[Any]) -> float:
    return float(sum((one * other).sum() for one, other in zip(left, right, strict=True)))


def pulls(
    model: Any, tokenizer: Any, system: str, answers: Sequence[Pair], examples: Sequence[Example], kinds: dict[str, str]
) -> list[Pull]:
    """The influence of training examples on the answers, the most harmful first.

    `examples` come as often as they are seen; `kinds` are their kinds by id, of each of which MOST_OF_A_KIND are asked,
    but all corrections.
    """
    times, most = Counter(example.id for example in examples), load_params().sft.max_tokens
    asked: list[Example] = []
    for kind in sorted(set(kinds.values())):
        own = sorted({one.id: one for one in examples if kinds[one.id] == kind}.values(), key=lambda one: one.id)
        asked += own if kind == CORRECTION else own[:MOST_OF_A_KIND]
    found = influences(model, answers, (encode_example(tokenizer, system, example, most) for example in asked))
    rows = [
        Pull(
            example=example.id,
            kind=kinds[example.id],
            question=example.prompt,
            source=example.source,
            times=times[example.id],
            influence=round(value, 4),
        )
        for example, value in zip(asked, found, strict=True)
    ]
    return sorted(rows, key=lambda row: row.influence)


def kinds_of(examples: Sequence[Example], refusals: Collection[str]) -> dict[str, str]:
    """Example id → what it is for: correction, refusal, general dialogue or domain; `refusals` are ids."""
    names = {"feedback": CORRECTION, "general": "general dialogue"}
    return {one.id: "refusal" if one.id in refusals else names.get(one.origin, "domain") for one in examples}


def refusals() -> frozenset[str]:
    """Ids of the examples that refuse a harmful request."""
    from pyarrow.parquet import read_table

    return frozenset(read_table(layout.INGEST / "safety.parquet", columns=["id"])["id"].to_pylist())


def means_of(rows: Sequence[Pull], examples: Sequence[Example], kinds: dict[str, str]) -> tuple[Kind, ...]:
    """The rows by kind, with the mean of those that were asked, weighted by how often they are seen."""
    found = []
    for name, count in Counter(kinds[example.id] for example in examples).items():
        own = [row for row in rows if row.kind == name]
        mean = math.fsum(row.influence * row.times for row in own) / sum(row.times for row in own)
        found.append(Kind(name=name, rows=count, influence=round(mean, 4)))
    return tuple(sorted(found, key=lambda kind: kind.influence * kind.rows))


def explain() -> Influence:
    """What pulled at the answers that the first failed criterion of the verdict lost most on.

    Measured at the weights that training began from, where it went on from a version: there the pull was felt.
    Raises NoInfluence: nothing failed, or the candidate has no adapter.
    """
    params, candidate = load_params(), load_subject("candidate")
    criterion, column = _failed()
    adapter = adapter_to_continue() or candidate.adapter
    if adapter is None:
        raise NoInfluence("the candidate is whole weights; influence is measured over an adapter")
    domain = load_domain(params.domain)
    questions = questions_for(candidate, load_tokenizer(candidate.base), domain)
    worst = _worst(column)
    # Of what is also scored as it stands, that is the answer to ask about: a harmful request has no reference.
    scored_last = sorted(questions, key=lambda one: one.kind != "generation")
    by_item = {question.item.id: question for question in scored_last if question.item.id in worst}
    model, tokenizer = load_trainable(candidate.base, adapter)
    answers = [
        (encode_text(tokenizer, one.prompt), encode_text(tokenizer, one.answers[one.item.answer or 0]))
        for one in by_item.values()
    ]
    examples = read_own_jsonl(layout.MIX / "train.jsonl", Example)
    kinds = kinds_of(examples, refusals())
    rows = pulls(model, tokenizer, candidate.system or domain.system_text(), answers, examples, kinds)
    means = means_of(rows, examples, kinds)
    return Influence(criterion=criterion, answers=len(answers), kinds=means, rows=tuple(rows))


def _failed() -> tuple[str, tuple[str, str]]:
    """The first criterion against the champion that did not pass: its name, its set and metric."""
    columns = {f"{name}_{metric}": (name, metric) for name, metrics in METRICS.items() for metric in metrics}
    criteria = json.loads(layout.VERDICT.read_text(encoding="utf-8"))["criteria"]
    for one in sorted(criteria, key=lambda one: one["p_harm"]):
        if not one["passed"] and one["name"] in columns:
            return one["name"], columns[one["name"]]
    raise NoInfluence("every criterion of the last verdict passed: there is no loss to explain")


def _worst(column: tuple[str, str]) -> set[str]:
    """The items that lost most against the champion by a metric, MOST_ANSWERS at most."""
    after, before = (
        {row.id: row.value for row in read_own_jsonl(evaluation_of(who) / "scores.jsonl", Score)
         if (row.set, row.metric) == column}
        for who in ("candidate", "champion")
    )  # fmt: skip
    sign = 1 if column[1] == "nll" else -1
    return set(sorted(after, key=lambda key: (sign * (before[key] - after[key]), key))[:MOST_ANSWERS])


def main() -> None:
    """Write .flywheel/influence.json."""
    write_json(INFLUENCE, explain().model_dump(mode="json"))


if __name__ == "__main__":
    main()
