"""Preferences to begin with, before anybody has chosen between drafts: reference answers against weaker ones.

A command, not a stage: `python -m domains.construction.make_preferences` writes preferences.jsonl of the domain that
params.yaml names once, to be looked at and committed; stage `pairs` guards and splits it. Questions with reference
answers come from the training set (origin human, no seeds), never from evaluation items. Each has four answers in an
order that needs no judge:

    reference  over  base_model, base_model_sampled, wrong_category;    base_model  over  wrong_category

The base model's greedy answer mostly keeps to the question but not to the facts, its sampled one to neither; the
answer of another category is well written and beside the point. Where no rule knows which is better there is no pair:
four of six. `source` says which answer was chosen over which, and of which example it is.

Limits: the order is a rule's, not a person's, and surest where the reference is chosen. Answers are cut to whole
sentences and long references left out, so that length and a torn end do not give the chosen one away; style still
does, in part.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.params import load_params
from tasks.core.records import Example, Message, Preference, make_preference, read_own_jsonl, write_jsonl
from tasks.core.stage import run_stage
from tasks.text.prompts import encode_text, render_prompt
from tasks.train.preference.rows import ORDER

NAME = "preferences.jsonl"
QUESTIONS = 120
ANSWER_TOKENS = 48
BATCH = 30  # questions answered together
TEMPERATURE = 1.0


class PreferenceError(FlywheelError):
    """There is nothing to make preferences from."""


def questions_of(examples: Sequence[Example], tokenizer: Any, count: int, seed: int) -> list[Example]:
    """Questions that people answered in at most ANSWER_TOKENS tokens, drawn by `seed`.

    Raises:
        PreferenceError: fewer than two categories are among them.
    """
    fit = [
        example
        for example in examples
        if example.origin == "human"
        and example.category not in ("", "seed")
        and not example.history
        and len(encode_text(tokenizer, example.output)) <= ANSWER_TOKENS
    ]
    random.Random(seed).shuffle(fit)
    drawn = fit[:count]
    if len({example.category for example in drawn}) < 2:
        raise PreferenceError("the training set has no short human answers in two categories: no preferences to make")
    return drawn


def whole_sentences(text: str) -> str:
    """A generated text up to its last full stop; "" where it has none."""
    found = re.match(r"^.*[.!?](?=\s|$)", text.strip(), flags=re.DOTALL)
    return found.group(0).strip() if found else ""


def wrong_answers(examples: Sequence[Example], seed: int) -> list[str]:
    """For each question the reference answer of another one, of another category."""
    rng = random.Random(f"{seed} wrong")
    return [rng.choice([other.output for other in examples if other.category != one.category]) for one in examples]


def preferences_of(example: Example, answers: dict[str, str]) -> list[Preference]:
    """The pairs of one question. A base model's answer that is empty, or another one's words, makes none."""
    prompt = (Message(role="user", content=example.prompt),)
    kept = {name: text for name, text in answers.items() if text and list(answers.values()).count(text) == 1}
    return [
        make_preference(prompt, kept[better], kept[worse], (better, worse, example.source[0]))
        for better, worse in ORDER
        if better in kept and worse in kept
    ]


def answer_all(model: Any, tokenizer: Any, prompts: Sequence[str], sampled: bool) -> list[str]:
    """The model's answers, cut to whole sentences."""
    import torch

    answers: list[str] = []
    tokenizer.padding_side = "left"
    for first in range(0, len(prompts), BATCH):
        batch = tokenizer(
            list(prompts[first : first + BATCH]), return_tensors="pt", padding=True, add_special_tokens=False
        )
        with torch.inference_mode():
            found = model.generate(
                **batch,
                max_new_tokens=ANSWER_TOKENS,
                do_sample=sampled,
                **({"temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0} if sampled else {}),
            )
        texts = tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += map(whole_sentences, texts)
        print(f"{len(answers)} of {len(prompts)} answered", flush=True)
    return answers


def make_preferences(domain: Domain, seed: int, count: int = QUESTIONS) -> list[Preference]:
    """The preferences of a domain, with the answers of its base model.

    Raises:
        PreferenceError: the training set is not fit for it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    examples = questions_of(read_own_jsonl(layout.MIX / "train.jsonl", Example), tokenizer, count, seed)
    model = AutoModelForCausalLM.from_pretrained(layout.BASE_MODEL, dtype=torch.bfloat16).eval()
    prompts = [render_prompt(tokenizer, domain.system_text(), example.prompt) for example in examples]
    torch.manual_seed(seed)
    columns = zip(
        answer_all(model, tokenizer, prompts, sampled=False),
        answer_all(model, tokenizer, prompts, sampled=True),
        wrong_answers(examples, seed),
        strict=True,
    )
    return [
        preference
        for example, (greedy, sampled, wrong) in zip(examples, columns, strict=True)
        for preference in preferences_of(
            example,
            {
                "reference": example.output,
                "base_model": greedy,
                "base_model_sampled": sampled,
                "wrong_category": wrong,
            },
        )
    ]


def command() -> str:
    """Write the file in the domain's folder."""
    params = load_params()
    domain = load_domain(params.domain)
    path: Path = domain.folder / NAME
    made = make_preferences(domain, params.seed)
    write_jsonl(path, made)
    return f"{len(made)} preferences of {len({one.prompt for one in made})} prompts in {path}"


if __name__ == "__main__":
    run_stage("preferences", command)
