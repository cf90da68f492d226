"""From preferences to token ids, rendered as in SFT and serving: what reward, DPO and KTO learn from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.core.records import Message, Preference
from tasks.core.training_params import TrainingParams
from tasks.text.prompts import PromptError, encode_preference

KTO_ROWS = 2  # of which the KL term pairs each prompt with another one's answer
# Left before right, where a rule chose and no person.
ORDER = (
    ("reference", "base_model"),
    ("reference", "base_model_sampled"),
    ("reference", "wrong_category"),
    ("base_model", "wrong_category"),
)


@dataclass
class Group:
    """One prompt with all its answers, and which of them was chosen over which (numbers of answers)."""

    prompt: list[int]
    answers: list[list[int]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # of each pair: what was compared, e.g. "reference > base_model"

    @property
    def sequences(self) -> list[list[int]]:
        """Prompt and answer as one, for each answer."""
        return [self.prompt + answer for answer in self.answers]


def encode_groups(tokenizer: Any, system: str, preferences: Sequence[Preference], max_tokens: int) -> list[Group]:
    """The preferences by prompt, in order of their first; each answer is there once.

    One that cannot be encoded is laid aside and named in the log. Raises PromptError: none of them can be.
    """
    groups: dict[tuple[Message, ...], Group] = {}
    problems = []
    for preference in preferences:
        try:
            prompt, *answers = encode_preference(tokenizer, system, preference, max_tokens)
        except PromptError as error:
            problems.append(f"preference {preference.id[:12]} is laid aside: {error}")
            print(problems[-1], flush=True)
            continue
        group = groups.setdefault(preference.prompt, Group(prompt))
        group.answers += [answer for answer in answers if answer not in group.answers]
        group.pairs.append((group.answers.index(answers[0]), group.answers.index(answers[1])))
        # Pairs made by a rule say what was compared in their source; of all others people chose.
        better, worse = preference.source[:2] if len(preference.source) == 3 else ("", "")
        group.kinds.append(f"{better} > {worse}" if (better, worse) in ORDER else "people")
    if problems and not groups:
        raise PromptError(f"no preference can be learnt from; {problems[0]}")
    return list(groups.values())


def steps_of_epoch(rows: int, settings: TrainingParams, processes: int) -> int:
    """Updates in an epoch. To evaluate at this count comes before saving; to evaluate at an epoch's end, after it."""
    batches = -(-rows // (settings.batch_size * processes))
    return -(-batches // settings.gradient_accumulation)


def dpo_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A row for each pair, as TRL's DPOTrainer reads it."""
    return [
        {"prompt_ids": group.prompt, "chosen_ids": group.answers[better], "rejected_ids": group.answers[worse]}
        for group in groups
        for better, worse in group.pairs
    ]


def kto_rows(groups: Sequence[Group], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """A row for each answer, desirable unless another was chosen over it, in the order it is trained on.

    Each names the answer that stands in for the KL term: its neighbour's in the batch (Ethayarajh et al. 2024, section
    4.1).
    """
    rows = [
        {
            "prompt_ids": group.prompt,
            "completion_ids": answer,
            "label": all(number != worse for _, worse in group.pairs),
        }
        for group in groups
        for number, answer in enumerate(group.answers)
    ]
    random.Random(seed).shuffle(rows)
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        others = [batch[-1], *batch[:-1]] if len(batch) > 1 else [rows[0]]
        for row, before in zip(batch, others, strict=True):
            row["KL_completion_ids"] = before["completion_ids"]
    return rows
