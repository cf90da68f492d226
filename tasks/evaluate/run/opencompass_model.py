"""OpenCompass's side of an evaluation: the model it calls and the evaluators that judge one item at a time.

Runs only in the evaluation environment. OpenCompass 0.5.4 was written for transformers 4; it also averages its scores,
truncates long inputs in silence and lets a model folder run its own code. The classes below undo that.
On a processor each thread does whole passes by itself, with torch's own threading off: that keeps its speed on a
busy machine, and an item's likelihood depends neither on the number of threads nor on the items beside it.
Limits: decoder-only models on one device; adapters that add virtual tokens are asked more slowly.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from opencompass.models import HuggingFaceBaseModel
from opencompass.models.base import BaseModel
from opencompass.openicl.icl_evaluator import AveragePPLEvaluator, JiebaRougeEvaluator
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.registry import ICL_EVALUATORS, ICL_PROMPT_TEMPLATES, MODELS
from peft import PeftModel
from transformers import AutoTokenizer

from tasks.engine.client import Engine, decoding

# Writing without spaces between words: Thai and Lao, Burmese, Khmer, kana; Chinese characters.
SYLLABLES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
TOGETHER = 16  # requests to an engine under way


def split_at(boundary: str, text: str, ids_of: Callable[[str], list[int]]) -> tuple[list[int], list[int]]:
    """The tokens of prompt and answer, each made by itself, as in training."""
    parts = text.split(boundary)
    if len(parts) != 2:
        raise ValueError(f"a text holds {len(parts) - 1} boundaries between prompt and answer, not one")
    prompt, answer = map(ids_of, parts)
    if not prompt or not answer:
        raise ValueError("neither the prompt nor the answer may be empty")
    return prompt, answer


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
        added = self._virtual_tokens
        if tokens + added > self.max_seq_len:
            also = f" and {added} virtual ones" if added else ""
            raise ValueError(f"a text of {tokens} tokens{also} does not fit the model's {self.max_seq_len}")

    @property
    def _virtual_tokens(self) -> int:
        """How many the adapter adds; 0 where it changes weights instead."""
        if not isinstance(self.model, PeftModel):
            return 0
        config = self.model.active_peft_config
        return int(config.num_virtual_tokens) if config.is_prompt_learning else 0

    def _in_parallel(self, work: Callable[[Any], list[Any]], parts: list[Any]) -> list[Any]:
        """The joined results of `work` on each part, in order."""
        with ThreadPoolExecutor(self.threads) as pool:
            return [value for values in pool.map(work, parts) for value in values]

    def generate(self, inputs: list[str], max_out_len: int, **settings: Any) -> list[str]:
        """Greedy continuations, in the order of `inputs`; each thread takes an equal share of the batch."""
        parent = super().generate
        if self._virtual_tokens:
            # peft changes the model while it generates, so by one thread; and it puts embeddings before the padding, so
            # that neighbours would change an answer.
            size = len(inputs) if self.model.active_peft_config.peft_type == "PREFIX_TUNING" else 1
            batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
            return [text for batch in batches for text in parent(batch, max_out_len, **settings)]
        share = -(-len(inputs) // self.threads)
        parts = [inputs[start : start + share] for start in range(0, len(inputs), share)]
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
        if self._virtual_tokens:  # peft gives no second pass over a cache
            groups = [(prompt, [answer]) for prompt, answer in pairs]
        return np.array(self._in_parallel(self._score, groups))

    def _split(self, text: str) -> tuple[list[int], list[int]]:
        prompt, answer = split_at(
            self.boundary, text, lambda part: self.tokenizer(part, add_special_tokens=False)["input_ids"]
        )
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


@MODELS.register_module()
class EngineModel(BaseModel):
    """The same rows and scores, asked of an engine that serves the model as `served`.

    Prompts go out as token ids, made exactly as AnswerModel makes them. The engine batches requests by itself.
    """

    def __init__(
        self,
        *,
        path: str,
        url: str,
        served: str,
        boundary: str,
        max_seq_len: int,
        repetition_penalty: float,
        **settings: Any,
    ) -> None:
        super().__init__(path=path, max_seq_len=max_seq_len, **settings)
        self.tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        self.engine = Engine(url)
        self.served = served
        self.boundary = boundary
        self.decoding = decoding("vllm", repetition_penalty)

    def generate(self, inputs: list[str], max_out_len: int, **_: Any) -> list[str]:
        """Greedy continuations, in the order of `inputs`."""
        prompts = [self._ids(text) for text in inputs]
        for prompt in prompts:
            self._check_length(len(prompt) + max_out_len)
        return self._together(
            lambda prompt: self.engine.complete(self.served, prompt, max_out_len, self.decoding), prompts
        )

    def get_ppl(self, inputs: list[str], mask_length: list[int] | None = None) -> np.ndarray:
        """Mean negative log-likelihood of each answer given its prompt, in nats per answer token."""
        if mask_length is not None:
            raise ValueError("the boundary says what is scored; mask_length is not used")
        pairs = [self._split(text) for text in inputs]
        return np.array(self._together(lambda pair: self.engine.score(self.served, *pair), pairs))

    def get_token_len(self, prompt: str) -> int:
        """Tokens of a text; OpenCompass asks."""
        return len(self._ids(prompt))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _split(self, text: str) -> tuple[list[int], list[int]]:
        prompt, answer = split_at(self.boundary, text, self._ids)
        # The engine generates one token more, which nobody reads.
        self._check_length(len(prompt) + len(answer) + 1)
        return prompt, answer

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_seq_len:
            raise ValueError(f"{tokens} tokens do not fit the engine's {self.max_seq_len}")

    def _together(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(work, parts))


@ICL_PROMPT_TEMPLATES.register_module()
class VerbatimTemplate(PromptTemplate):
    """The row's text as it is: the parent would fill in `{reference}`, `{idx}` and the like where a text holds them."""

    def generate_item(self, entry: dict[str, Any], *_: Any, **__: Any) -> str:
        """The text of a row."""
        return str(entry["text"])


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
    """Words in lower case and compatibility form (NFKC); marks and spaces left out.

    A word is a run of letters, their accents and digits. Of writing without spaces between words, Chinese is cut by
    jieba, and kana, Thai, Lao, Khmer and Burmese into characters with their marks. jieba cuts ASCII too, into what it
    takes for words ("3.5%"); it would cut any other letter off.
    """

    def __init__(self) -> None:
        import jieba
        import regex

        jieba.setLogLevel("WARNING")
        # jieba keeps its dictionary in a marshal file; the shared temporary folder is no place to read that from.
        jieba.dt.tmp_dir = str(Path.cwd())
        self.cut = jieba.lcut
        spaced = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{SYLLABLES}{CHINESE}]]+"
        self.runs = regex.compile(rf"{spaced}|[{SYLLABLES}]\p{{M}}*", regex.VERSION1)

    def tokenize(self, text: str) -> list[str]:
        """Words of `text`, in order."""
        text, words, begin = unicodedata.normalize("NFKC", text).lower(), [], 0
        for run in self.runs.finditer(text):
            if not run.group().isascii():
                words += [*self.cut(text[begin : run.start()]), run.group()]
                begin = run.end()
        words += self.cut(text[begin:])
        return [word for word in words if any(character.isalnum() for character in word)]
