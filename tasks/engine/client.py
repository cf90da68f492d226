"""What is asked of an engine over HTTP: answers, adapters, and what is needed to compare it with the evaluation.

Works with every OpenAI-compatible server; what only vLLM can do (adapters at run time, token ids, likelihoods) says so
or gives None. Synchronous: the gateway streams answers through its own client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tasks.core.errors import FlywheelError
from tasks.core.params import EngineParams

BASE = "base"  # the name under which an engine of ours serves the base model
ANSWER_SECONDS, OTHER_SECONDS = 300.0, 30.0  # generating is slow on a processor
ABSENT = (404, 405, 501)  # a server answers these where it does not have the route


class EngineError(FlywheelError):
    """The engine cannot be reached, refused what was asked, or could not be started."""


def adapter_name(digest: str) -> str:
    """The name under which an engine of ours serves a version, by its package's digest; the base model has none."""
    return digest[:16] or BASE


def engine_url(settings: EngineParams) -> str:
    """Where the engine is: FLYWHEEL_ENGINE_URL, else `url`, else `port` of this machine."""
    return os.environ.get("FLYWHEEL_ENGINE_URL") or settings.url or f"http://127.0.0.1:{settings.port}/v1"


def decoding(kind: str, repetition_penalty: float) -> dict[str, float]:
    """The fields of a request by which an engine of this kind repeats itself no more than the evaluation lets a model.

    The penalty divides the scores of tokens that stand in the text already (Keskar et al. 2019, arXiv 1909.05858,
    section 4.1). transformers' server has no field of that name and takes its excess over 1 as `frequency_penalty`.
    """
    if repetition_penalty == 1.0:
        return {}
    if kind == "transformers":
        return {"frequency_penalty": round(repetition_penalty - 1.0, 6)}
    return {"repetition_penalty": repetition_penalty}


class Engine:
    """One engine by its address, with or without `/v1` at the end; the key defaults to FLYWHEEL_ENGINE_KEY."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.root = url.rstrip("/").removesuffix("/v1")
        key = key if key is not None else os.environ.get("FLYWHEEL_ENGINE_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None)
        # trust_env=False: an engine next door is not reached through anybody's proxy.
        self._http = httpx.Client(base_url=self.root, headers=headers, limits=limits, trust_env=False)
        self._end_of_turn: str | None = None

    def __enter__(self) -> Engine:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Closes it."""
        self._http.close()

    def ready(self) -> bool:
        """Whether it answers now; servers without a health route are asked for their models."""
        try:
            reply = self._http.get("/health", timeout=5.0)
            if reply.status_code in ABSENT:
                reply = self._http.get("/v1/models", timeout=5.0)
        except httpx.HTTPError:
            return False
        return reply.status_code == 200

    def models(self) -> list[str]:
        """The names it answers to: the base model and every adapter that is loaded."""
        found = self._json(self._send("GET", "/v1/models"))
        return [str(entry["id"]) for entry in found.get("data", [])]

    def load_adapter(self, name: str, path: Path) -> None:
        """Serve the adapter in `path` as `name`, unless it is loaded already. Raises EngineError: it is not taken."""
        body = {"lora_name": name, "lora_path": str(path.absolute())}
        reply = self._send("POST", "/v1/load_lora_adapter", body, allowed=(400, *ABSENT))
        if reply.status_code in ABSENT:
            raise EngineError(f"{self.root} loads no adapters at run time (or not {path}): {_cause(reply)}")
        if reply.status_code == 400 and name not in self.models():
            raise EngineError(f"the engine at {self.root} refused the adapter {path}: {_cause(reply)}")

    def unload_adapter(self, name: str) -> None:
        """Stop serving an adapter; nothing if it is not loaded."""
        self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name}, allowed=ABSENT)

    def chat(
        self, model: str, messages: list[dict[str, str]], max_tokens: int, decoding: Mapping[str, float] | None = None
    ) -> str:
        """The whole greedy answer as text; `max_tokens` bounds its length in tokens."""
        body = {"messages": messages, "max_tokens": max_tokens, **(decoding or {})}
        return str(self._answer("chat/completions", model, body).get("message", {}).get("content") or "")

    def complete(
        self, model: str, prompt_ids: Sequence[int], max_tokens: int, decoding: Mapping[str, float] | None = None
    ) -> str:
        """The greedy continuation of a prompt that is already tokens; it ends at the model's end-of-turn token."""
        body = {"prompt": list(prompt_ids), "max_tokens": max_tokens, **(decoding or {})}
        return str(self._answer("completions", model, body).get("text") or "")

    def _answer(self, route: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of a greedy answer."""
        body |= {"model": model, "temperature": 0.0}
        choices = self._json(self._send("POST", f"/v1/{route}", body, seconds=ANSWER_SECONDS)).get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise EngineError(f"the engine at {self.root} answered without a choice")
        return choices[0]

    def prompt_ids(self, model: str, messages: list[dict[str, str]]) -> list[int] | None:
        """The tokens that it makes of chat messages, up to where the answer begins; None where it cannot say."""
        return self._tokens({"model": model, "messages": messages, "add_generation_prompt": True})

    def text_ids(self, model: str, text: str) -> list[int] | None:
        """The tokens of a rendered text, nothing added; None where it cannot say."""
        return self._tokens({"model": model, "prompt": text, "add_special_tokens": False})

    def end_of_turn(self) -> str | None:
        """The text of its tokenizer's end-of-turn token; None where it cannot say."""
        if self._end_of_turn is None:
            reply = self._send("GET", "/tokenizer_info", allowed=ABSENT)
            token = self._json(reply).get("eos_token") if reply.status_code == 200 else None
            self._end_of_turn = token.get("content") if isinstance(token, dict) else token
        return self._end_of_turn

    def answer_nll(self, model: str, prompt_text: str, answer_text: str) -> float | None:
        """The answer's loss (see `score`) with the engine's own end of turn; None where it tells no likelihoods."""
        if (end := self.end_of_turn()) is None:
            return None
        prompt, answer = self.text_ids(model, prompt_text), self.text_ids(model, answer_text + end)
        return None if prompt is None or answer is None else self.score(model, prompt, answer)

    def score(self, model: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> float:
        """Mean loss of the answer tokens given the prompt's, in nats a token. Raises EngineError: it is not told."""
        ids = [*prompt_ids, *answer_ids]
        body = {"prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
        known = self._answer("completions", model, body).get("prompt_logprobs")
        if not isinstance(known, list) or len(known) != len(ids) or not answer_ids:
            raise EngineError(f"{self.root} gives no likelihoods of prompt tokens; evaluate with another backend")
        losses = [-known[at][str(ids[at])]["logprob"] for at in range(len(prompt_ids), len(ids))]
        return float(sum(losses) / len(losses))

    def _send(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        allowed: Sequence[int] = (),
        seconds: float = OTHER_SECONDS,
    ) -> httpx.Response:
        try:
            reply = self._http.request(method, route, json=body, timeout=seconds)
        except httpx.HTTPError as error:
            raise EngineError(
                f"the engine at {self.root} does not answer ({type(error).__name__}); is it started?"
            ) from None
        if reply.status_code >= 400 and reply.status_code not in allowed:
            raise EngineError(f"the engine at {self.root} refused {route}: {_cause(reply)}")
        return reply

    def _tokens(self, body: dict[str, Any]) -> list[int] | None:
        reply = self._send("POST", "/tokenize", body, allowed=ABSENT)
        if reply.status_code in ABSENT:
            return None
        return [int(token) for token in self._json(reply)["tokens"]]

    def _json(self, reply: httpx.Response) -> dict[str, Any]:
        try:
            found = reply.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise EngineError(f"the engine at {self.root} answered something that is not a JSON object")
        return found


def _cause(reply: httpx.Response) -> str:
    """Status and message of a refusal, in OpenAI's shape or any other."""
    try:
        found = reply.json()
        error = found.get("error", found.get("detail", found)) if isinstance(found, dict) else found
        message = error.get("message", error) if isinstance(error, dict) else error
    except ValueError:
        message = reply.text
    return f"{reply.status_code}, {str(message)[:300]}"
