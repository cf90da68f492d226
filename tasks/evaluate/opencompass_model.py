"""OpenCompass's side of an evaluation: the model it calls and the evaluators that judge one item at a time.

Runs only in the evaluation environment, inside the process that tasks.evaluate.run starts; nothing else imports it.
OpenCompass 0.5.4 was written for transformers 4, so its model class lacks a method here; it also averages its
scores, truncates long inputs in silence and lets a model folder run its own code. The classes below undo that.

On a processor each thread does whole passes by itself, with torch's own threading off: that keeps its speed on a
busy machine, and an item's likelihood depends neither on the number of threads nor on the items beside it.
Limits: decoder-only models on one device; adapters that change weights, not those that add virtual tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from opencompass.models import HuggingFaceBaseModel
from opencompass.openicl.icl_evaluator import AveragePPLEvaluator, JiebaRougeEvaluator
from opencompass.registry import ICL_EVALUATORS, MODELS


@MODELS.register_module()
class AnswerModel(HuggingFaceBaseModel):
    """A causal language model, with or without an adapter, that takes rendered prompts as they are.

    `boundary` is the character between prompt and answer in a text to be scored; `threads` is how many passes run
    at a time.
    """

    def __init__(self, *, boundary: str, threads: int, **settings: Any) -> None:
        torch.set_num_threads(1)
        self.boundary = boundary
        self.threads = threads
        super().__init__(**settings)

    def _load_tokenizer(self, path: str | None, kwargs: dict[str, Any], pad_token_id: int | None = None) -> None:
        super()._load_tokenizer(path, kwargs, pad_token_id)
        # transformers 5 dropped this method, and OpenCompass's generate() calls it.
        self.tokenizer.batch_encode_plus = self._encode_prompts

    def _encode_prompts(self, texts: list[str], **_: Any) -> Any:
        """Left-padded ids of rendered prompts: no token added (the template holds them all), none cut."""
        encoded = self.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        self._check_length(encoded["input_ids"].shape[1])
        return encoded

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_seq_len:
            raise ValueError(f"a text of {tokens} tokens does not fit the model's {self.max_seq_len}")

    def _in_parallel(self, work: Callable[[Any], list[Any]], parts: list[Any]) -> list[Any]:
        """The joined results of `work` on each part, in order."""
        with ThreadPoolExecutor(self.threads) as pool:
            return [value for values in pool.map(work, parts) for value in values]

    def generate(self, inputs: list[str], max_out_len: int, **settings: Any) -> list[str]:
        """Greedy continuations, in the order of `inputs`; each thread takes an equal share of the batch."""
        share = -(-len(inputs) // self.threads)
        parts = [inputs[start : start + share] for start in range(0, len(inputs), share)]
        parent = super().generate
        return self._in_parallel(lambda part: parent(part, max_out_len, **settings), parts)

    def get_ppl(self, inputs: list[str], mask_length: list[int] | None = None) -> np.ndarray:
        """Mean negative log-likelihood of each answer given its prompt, in nats per answer token.

        Each input is prompt, boundary, answer; the two are tokenised apart, as in training. Neighbours with one
        prompt share its pass. Despite the name OpenCompass gives this method, nothing is exponentiated.
        """
        if mask_length is not None:
            raise ValueError("the boundary says what is scored; mask_length is not used")
        pairs = [self._split(text) for text in inputs]
        neighbours = groupby(pairs, key=lambda pair: pair[0])
        groups = [(prompt, [answer for _, answer in group]) for prompt, group in neighbours]
        return np.array(self._in_parallel(self._score, groups))

    def _split(self, text: str) -> tuple[list[int], list[int]]:
        parts = text.split(self.boundary)
        if len(parts) != 2:
            raise ValueError(f"a text holds {len(parts) - 1} boundaries between prompt and answer, not one")
        prompt, answer = (self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
        if not prompt or not answer:
            raise ValueError("neither the prompt nor the answer may be empty")
        self._check_length(len(prompt) + len(answer))
        return prompt, answer

    @torch.no_grad()
    def _score(self, group: tuple[list[int], list[list[int]]]) -> list[float]:
        prompt, answers = group
        logits = self._logits_of_one(prompt, *answers) if len(answers) == 1 else self._logits(prompt, answers)
        losses = []
        for row, answer in enumerate(answers):
            predicted = logits[row, : len(answer)].float().cpu()
            losses.append(torch.nn.functional.cross_entropy(predicted, torch.tensor(answer)).item())
        return losses

    def _logits_of_one(self, prompt: list[int], answer: list[int]) -> torch.Tensor:
        """(1, answer tokens, vocabulary): position t holds the prediction of answer token t."""
        ids = self._tensor([prompt + answer[:-1]])
        return self.model(input_ids=ids, logits_to_keep=len(answer), use_cache=False).logits

    def _logits(self, prompt: list[int], answers: list[list[int]]) -> torch.Tensor:
        """(answers, longest answer, vocabulary). Padding is on the right, where no earlier position sees it."""
        begun = self.model(input_ids=self._tensor([prompt]), logits_to_keep=1, use_cache=True)
        first = begun.logits.expand(len(answers), -1, -1)
        width = max(map(len, answers)) - 1
        if width == 0:
            return first
        begun.past_key_values.batch_repeat_interleave(len(answers))
        padding = [self.tokenizer.pad_token_id] * width
        ids = self._tensor([(answer[:-1] + padding)[:width] for answer in answers])
        positions = self._tensor([list(range(len(prompt), len(prompt) + width))])
        rest = self.model(input_ids=ids, position_ids=positions, past_key_values=begun.past_key_values).logits
        return torch.cat([first, rest], dim=1)

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=self.model.device)


@ICL_EVALUATORS.register_module()
class ItemNLLEvaluator(AveragePPLEvaluator):
    """Keeps each item's value, named by the row's key, where OpenCompass reports only the mean."""

    def score(self, ppl: list[float], test_set: Dataset) -> dict[str, Any]:
        """Mean and details of the values that AnswerModel.get_ppl gave, in nats per token."""
        details = [{"key": key, "nll": value} for key, value in zip(test_set["key"], ppl, strict=True)]
        return {**super().score(ppl), "details": details}


@ICL_EVALUATORS.register_module()
class ItemRougeEvaluator(JiebaRougeEvaluator):
    """ROUGE-L F1 of each item (Lin 2004, sentence level): the longest common subsequence of words.

    Words are cut by jieba, which handles Chinese and leaves English words whole; case and punctuation do not count.
    The parent judges only what stands before the first full stop or comma, and averages.
    """

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        super().__init__()
        self.scorer = RougeScorer(["rougeL"], tokenizer=WordTokenizer())

    def score(self, predictions: list[str], references: list[str], test_set: Dataset) -> dict[str, Any]:
        """Mean and details, each between 0 and 1."""
        rows = zip(test_set["key"], predictions, references, strict=True)
        details = [
            {"key": key, "rouge_l": float(self.scorer.score(reference, prediction)["rougeL"].fmeasure)}
            for key, prediction, reference in rows
        ]
        return {"rouge_l": sum(row["rouge_l"] for row in details) / len(details), "details": details}


class WordTokenizer:
    """Words in lower case and compatibility form (NFKC); marks and spaces left out."""

    def __init__(self) -> None:
        import jieba

        jieba.setLogLevel("WARNING")
        # jieba keeps its dictionary in a marshal file; the shared temporary folder is no place to read that from.
        jieba.dt.tmp_dir = str(Path.cwd())
        self.cut = jieba.lcut

    def tokenize(self, text: str) -> list[str]:
        """Words of `text`, in order."""
        words = self.cut(unicodedata.normalize("NFKC", text).lower())
        return [word for word in words if any(character.isalnum() for character in word)]
