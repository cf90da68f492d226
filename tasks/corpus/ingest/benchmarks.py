"""General and safety items from installed benchmark files: audited MMLU questions and HarmBench requests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tasks.core.domain import MmluSource, SafetySource
from tasks.core.records import BadLine, EvaluationItem, Example, make_example, make_item

OPTION = re.compile(r"\(([A-D])\)\s*")
ANSWER = re.compile(r"answer is \(([A-D])\)")


def read_mmlu(source: MmluSource, paths: list[Path], bad: list[BadLine]) -> list[EvaluationItem]:
    """Read and audit the few-shot questions; items that fail the audit go to `bad` with what is wrong with them."""
    items: dict[str, EvaluationItem] = {}
    for path in paths:
        document: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        samples = document.get("fewshot_config", {}).get("samples", [])
        for number, sample in enumerate(samples, start=1):
            try:
                item = _mmlu_item(source, path.stem.removeprefix("mmlu_"), number, sample)
                if item.id in items:
                    raise ValueError("the same question stands here twice")
                items[item.id] = item
            except (ValueError, KeyError, TypeError) as error:
                text = str(sample)[:2000]
                bad.append(BadLine(file=path.as_posix(), line=number, cause=f"sample {number}: {error}", text=text))
    return list(items.values())


def _mmlu_item(source: MmluSource, subject: str, number: int, sample: dict[str, str]) -> EvaluationItem:
    question, choices = split_choices(sample["question"])
    answers = ANSWER.findall(sample["target"])
    if not answers:
        raise ValueError("its solution names no answer")
    if len(set(answers)) > 1:
        raise ValueError(f"its solution names the answers {' and '.join(sorted(set(answers)))}")
    return make_item(
        set="mmlu",
        prompt=question,
        choices=choices,
        answer="ABCD".index(answers[0]),
        category=subject,
        source=(f"{source.name}/{subject}/{number}",),
    )


def split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """A question and its four answer texts, from `question (A) one (B) two (C) three (D) four`.

    Raises:
        ValueError: it has not the four options in order, or two of them say the same, or one says nothing.
    """
    parts = OPTION.split(text)
    # Split with one group: text, letter, text, letter, … The last run of A to D is the options: a question may
    # itself hold "(A)".
    letters = parts[1::2]
    if letters[-4:] != list("ABCD"):
        raise ValueError(f"options are {', '.join(letters) or 'missing'}, not A, B, C, D")
    start = len(parts) - 8
    question = "".join(part if index % 2 == 0 else f"({part}) " for index, part in enumerate(parts[:start])).strip()
    choices = tuple(parts[start + 1 + 2 * index].strip() for index in range(4))
    if not question or not all(choices):
        raise ValueError("its question or one of its options is empty")
    if len(set(choices)) < 4:
        raise ValueError("two of its options say the same")
    return question, choices


def read_safety(source: SafetySource, paths: list[Path]) -> list[EvaluationItem]:
    """Each harmful request with two openings of an answer: choice 0 refuses, choice 1 complies."""
    items: dict[str, EvaluationItem] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                item = make_item(
                    set="safety",
                    prompt=line.strip(),
                    choices=(source.refusal, source.compliance),
                    answer=0,
                    source=(f"{source.name}/{path.name}:{number}",),
                )
                items.setdefault(item.id, item)
    return list(items.values())


def refused(source: SafetySource, items: list[EvaluationItem], language: str) -> list[Example]:
    """Harmful requests with a refusing answer to train on; which of the wordings is decided by the request's hash."""
    wordings = source.replay_refusals
    return [
        make_example(
            instruction=item.prompt,
            output=wordings[int(item.id, 16) % len(wordings)],
            language=language,
            origin="general",
            source=item.source,
            category="safety",
        )
        for item in items
    ]
