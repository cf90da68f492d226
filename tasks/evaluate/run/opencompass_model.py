"""OpenCompass's side of an evaluation: the model it calls. The evaluators are in opencompass_evaluators.

Runs only in the evaluation environment. OpenCompass 0.5.4 was written for transformers 4; it also truncates long inputs
in silence and lets a model folder run its own code. The class below undoes that.
On a processor each thread does whole passes by itself, with torch's own threading off: that keeps its speed on a
busy machine, and an item's likelihood depends neither on the number of threads nor on the items beside it.
Limits: decoder-only models on one device. Adapters that add virtual tokens, models that keep a state and texts beyond
a sliding window are asked more slowly, as transformers does it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import torch
from opencompass.models import HuggingFaceBaseModel
from opencompass.registry import MODELS
from peft import PeftModel
from tqdm import tqdm
from transformers import Cache, DynamicCache, RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import get_layer_types_and_kwargs

from tasks.evaluate.run.answer_cache import GROUPED, SlotLayer, guessed

GUESSES = 12  # tokens of an answer that are guessed at a time; more are wrong more often
KEPT = 2**15  # tokens of prompts whose keys and values are kept until their references are scored, on a processor


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
    at a time, `together` how many answers each of them generates. `window` is the longest text that a mask of ours
    can be laid on: 0 for adapters with virtual tokens and for models that keep a state instead of attending.
    """

    model: Any

    def __init__(self, *, boundary: str, threads: int, together: int, **settings: Any) -> None:
        torch.set_num_threads(1)
        self.boundary = boundary
        self.threads = threads
        self.together = together
        super().__init__(**settings)
        kinds, windows = get_layer_types_and_kwargs(self.model.config.get_text_config(decoder=True))
        masked = {"full_attention", "sliding_attention"}.issuperset(kinds) and self.model._supports_attention_backend
        self.window = min(layer.get("sliding_window", self.max_seq_len) for layer in windows)
        if self._virtual_tokens or not masked:
            self.window = 0
        self.begun: dict[tuple[int, ...], Cache] = {}  # prompts that were answered, read but for their last token
        if self.window and self.model.config._attn_implementation == "sdpa":
            self.model.set_attn_implementation(GROUPED)

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
        """Greedy continuations, in the order of `inputs`; each thread takes an equal share of them."""
        self.begun.clear()
        if max(len(self._ids(text)) for text in inputs) + max_out_len <= self.window:
            shares = [inputs[first :: self.threads] for first in range(min(self.threads, len(inputs)))]
            with tqdm(total=len(inputs)) as bar:
                answers = self._in_parallel(lambda share: [self._answers(share, max_out_len, bar)], shares)
            return [answers[place % self.threads][place // self.threads] for place in range(len(inputs))]
        parent = super().generate
        # peft changes the model while it generates, so by one thread; it puts embeddings before the padding, so that
        # neighbours would change an answer.
        alone = self._virtual_tokens and self.model.active_peft_config.peft_type != "PREFIX_TUNING"
        size = 1 if alone else self.together
        batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        if self._virtual_tokens:
            return [text for batch in batches for text in parent(batch, max_out_len, **settings)]
        return self._in_parallel(lambda batch: parent(batch, max_out_len, **settings), batches)

    @torch.no_grad()
    def _answers(self, texts: list[str], most: int, bar: Any) -> list[str]:
        """Greedy answers of at most so many tokens; the bar counts them.

        Prompts are read one by one; their answers go on together, and where one ends, the next prompt takes its slot.
        A pass looks at guesses too (prompt lookup decoding, Saxena 2023): it keeps those that are the likeliest tokens.
        """
        told, end = [self._ids(text) for text in texts], self.generation_kwargs["eos_token_id"]
        lengths = [len(ids) for ids in told]
        waiting, rows, cache = list(range(len(told)))[::-1], list[int](), DynamicCache()
        while waiting or rows:
            if waiting and len(rows) < self.together:
                rows.append(waiting.pop())
                logits = self._begin(told[rows[-1]], cache, len(rows) - 1, max(lengths) + most)
                told[rows[-1]] += self._likeliest(logits, [told[rows[-1]]])[0]
            else:
                self._go_on([(told[row], lengths[row]) for row in rows], most, cache)
            for slot in reversed(range(len(rows))):
                answer = told[rows[slot]][lengths[rows[slot]] :]
                if end in answer or len(answer) >= most:
                    rows[slot] = rows[-1]
                    rows.pop()
                    bar.update()
                    for layer in cache.layers:
                        layer.put(slot, layer, len(rows))
        answers = [ids[length:] for ids, length in zip(told, lengths, strict=True)]
        cut = [ids[: ids.index(end) + 1] if end in ids else ids for ids in answers]
        return self.tokenizer.batch_decode(cut, skip_special_tokens=True)

    def _begin(self, prompt: list[int], cache: Cache, slot: int, columns: int) -> torch.Tensor:
        """Read a prompt into a slot of the cache, which has room for so many tokens; (1, 1, vocabulary)."""
        ids, last = self._tensor([prompt]), self._tensor([len(prompt) - 1])
        begun = self.model(input_ids=ids, logits_to_keep=last, past_key_values=DynamicCache())
        layers = begun.past_key_values.layers
        cache.layers = cache.layers or [SlotLayer(layer, self.together, columns) for layer in layers]
        for layer, read in zip(cache.layers, layers, strict=True):
            layer.put(slot, read)
        if self.model.device.type == "cpu" and sum(map(len, self.begun)) + len(prompt) <= KEPT:
            begun.past_key_values.crop(-1)
            self.begun[tuple(prompt)] = begun.past_key_values
        return begun.logits

    def _go_on(self, rows: list[tuple[list[int], int]], most: int, cache: Cache) -> None:
        """Add one token or more to each row, a text and its prompt's length; the cache lacks a text's last token."""
        told, guess = [ids for ids, _ in rows], self.generation_kwargs.get("repetition_penalty", 1.0) == 1
        left = [most - len(ids) + length - 1 if guess else 0 for ids, length in rows]
        guesses = [guessed(*row, min(GUESSES, one)) for row, one in zip(rows, left, strict=True)]
        width = 1 + sum(map(len, guesses)) // len(guesses)  # the longest would cost all rows what a few gain
        guesses = [guess[: width - 1] for guess in guesses]
        asked = [(ids[-1:] + guess + ids[-1:] * width)[:width] for ids, guess in zip(told, guesses, strict=True)]
        # What only fills up a row lies behind its tokens: nothing sees it, and later tokens take its place.
        places = self._tensor([[len(ids) - 1 + ahead for ahead in range(width)] for ids in told])
        places = places.clamp(max=cache.layers[0].keys.shape[2] - 1)
        used = int(places.max()) + 1
        for layer in cache.layers:
            layer.places, layer.used = places, used
        mask = self._mask(torch.arange(used, device=places.device) > places[:, :, None])
        ahead = {"attention_mask": mask[:, None], "position_ids": places, "past_key_values": cache}
        found = self._likeliest(self.model(input_ids=self._tensor(asked), **ahead).logits, told)
        for ids, guess, tokens in zip(told, guesses, found, strict=True):
            agreed = next((place for place, token in enumerate(guess) if tokens[place] != token), len(guess))
            ids += tokens[: agreed + 1]

    def _likeliest(self, logits: torch.Tensor, told: list[list[int]]) -> list[list[int]]:
        """The likeliest next tokens by (rows, tokens, vocabulary); a repetition penalty takes one token."""
        penalty = self.generation_kwargs.get("repetition_penalty", 1.0)
        if penalty != 1:
            longest = max(map(len, told))
            known = self._tensor([ids + ids[-1:] * (longest - len(ids)) for ids in told])
            logits = RepetitionPenaltyLogitsProcessor(penalty)(known, logits[:, 0].float())[:, None]
        return logits.max(-1).indices.tolist()  # argmax takes four times as long in bf16

    def _mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """What attention adds: so little that nothing is left, where True."""
        added = torch.zeros(hidden.shape, dtype=self.model.dtype, device=hidden.device)
        return added.masked_fill_(hidden, torch.finfo(added.dtype).min)

    def get_ppl(self, inputs: list[str], mask_length: list[int] | None = None) -> np.ndarray:
        """Mean negative log-likelihood of each answer given its prompt, in nats per answer token.

        Each input is prompt, boundary, answer; the two are tokenised apart, as in training. Neighbours with one
        prompt share its pass. Despite the name OpenCompass gives this method, nothing is exponentiated.
        """
        if mask_length is not None:
            raise ValueError("the boundary says what is scored; mask_length is not used")
        groups: list[tuple[list[int], list[list[int]]]] = []
        for prompt, neighbours in groupby(map(self._split, inputs), key=lambda pair: pair[0]):
            answers = [answer for _, answer in neighbours]
            shared = len(prompt) + sum(map(len, answers)) <= self.window
            groups += [(prompt, answers)] if shared else [(prompt, [answer]) for answer in answers]
        return np.array(self._in_parallel(self._score, groups))

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        self._check_length(len(ids))
        return ids

    def _split(self, text: str) -> tuple[list[int], list[int]]:
        prompt, answer = split_at(self.boundary, text, self._ids)
        self._check_length(len(prompt) + len(answer))
        return prompt, answer

    @torch.no_grad()
    def _score(self, group: tuple[list[int], list[list[int]]]) -> list[float]:
        prompt, answers = group
        logits = self._logits(prompt, answers)[0].float().cpu().split([len(answer) for answer in answers])
        pairs = zip(logits, answers, strict=True)
        return [torch.nn.functional.cross_entropy(one, torch.tensor(answer)).item() for one, answer in pairs]

    def _logits(self, prompt: list[int], answers: list[list[int]]) -> torch.Tensor:
        """(1, tokens of all answers, vocabulary): the prediction of each answer token.

        One pass reads the prompt and then all answers, none of which sees another. Positions to predict are named one
        by one: of a range, torch multiplies a copy of the whole vocabulary's weights.
        """
        rest = [answer[:-1] for answer in answers]
        ids = self._tensor([sum(rest, prompt)])
        if len(answers) == 1:
            if begun := self.begun.pop(tuple(prompt), None):
                return self.model(input_ids=ids[:, len(prompt) - 1 :], past_key_values=begun).logits
            keep = torch.arange(-len(answers[0]), 0, device=ids.device)
            return self.model(input_ids=ids, logits_to_keep=keep, use_cache=False).logits
        branch, places, keep = [0] * len(prompt), list(range(len(prompt))), []
        for number, answer in enumerate(rest, start=1):
            keep += [len(prompt) - 1, *range(len(branch), len(branch) + len(answer))]
            branch += [number] * len(answer)
            places += range(len(prompt), len(prompt) + len(answer))
        of = self._tensor(branch)
        order = torch.arange(len(branch), device=ids.device)
        mask = self._mask((order > order[:, None]) | ((of != 0) & (of != of[:, None])))[None, None]
        positions, kept = self._tensor([places]), self._tensor(keep)
        told = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": kept}
        return self.model(input_ids=ids, **told, use_cache=False).logits

    def _tensor(self, numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.model.device)
