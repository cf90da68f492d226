"""The model of an evaluation where an engine serves it: what OpenCompass asks goes out as requests.

Runs only in the evaluation environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from opencompass.models.base import BaseModel
from opencompass.registry import MODELS
from transformers import AutoTokenizer

from tasks.engine.client import Engine, decoding
from tasks.evaluate.run.opencompass_model import split_at

TOGETHER = 16  # requests to an engine under way


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
