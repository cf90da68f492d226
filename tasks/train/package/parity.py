"""Are the packaged weights those that were trained (by their logits, in fp32), and questions the same tokens?

Each side that reads a question is asked through its own code. Limits: an engine that brings its own template is found
by the probes before traffic (tasks/engine/parity.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import FlywheelError
from tasks.text.parity import CONVERSATIONS, PromptsDiffer, Reading, as_trained, first_difference, refuse_differing
from tasks.text.prompts import PromptBook, encode_text, messages_of, render
from tasks.train.run.worker import load_tokenizer

if TYPE_CHECKING:
    import torch

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


class WeightsRefused(FlywheelError):
    """Weights that must not be judged or served."""


def refuse_broken_weights(path: Path) -> None:
    """Raises WeightsRefused where a tensor of a safetensors file holds NaN or an infinity, or it holds no tensor."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # one tensor at a time: the file may be as large as the memory
            names = sorted(file.keys())
            broken = [name for name in names if not torch.isfinite(file.get_tensor(name)).all()]
    except SafetensorError as error:
        raise WeightsRefused(f"{path} is not safetensors: {error}") from None
    if broken:
        raise WeightsRefused(f"{path}: {len(broken)} tensors hold NaN or infinities, the first is {broken[0]}")
    if not names:
        raise WeightsRefused(f"{path} holds no weights")


def load(folder: Path) -> Any:
    """A model in fp32, ready to answer; code beside it is not run."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, local_files_only=True
    ).eval()


def adapted(model: Any, adapter: Path) -> Any:
    """The model with an adapter over it."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter).eval()


def logits_of(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """For each prompt the logits (1, its tokens, vocabulary), no virtual tokens. Raises WeightsRefused: not finite."""
    import torch

    with torch.no_grad():
        batches = [torch.tensor([list(ids)]) for ids in prompts]
        found = [model(input_ids=ids, use_cache=False).logits[:, -ids.shape[1] :] for ids in batches]
    if not all(torch.isfinite(logits).all() for logits in found):
        raise WeightsRefused("the trained weights give logits that are not finite")
    return found


def refuse_unchanged(after: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> None:
    """Raises WeightsRefused where training changed no logit."""
    import torch

    if all(torch.equal(one, other) for one, other in zip(after, before, strict=True)):
        raise WeightsRefused(
            "the trained weights change no logit: they were not trained, moved too little for their precision (take "
            "more steps or a higher learning rate), or do not fit their base"
        )


def largest_difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest absolute difference of a logit."""
    return max(float((first - second).abs().max()) for first, second in zip(one, other, strict=True))


def merge(model: Any) -> Any:
    """The base model with its adapter's change in its weights. Raises WeightsRefused: they are not numbers."""
    try:
        return model.merge_and_unload(safe_merge=True).eval()
    except ValueError as error:  # what peft raises where a merged weight is not a number
        raise WeightsRefused(f"the adapter cannot be merged: {error}") from None


def refuse_difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor], limit: float) -> None:
    """Raises WeightsRefused where a logit of adapter and merged weights differs by more than the limit, or by NaN."""
    difference = largest_difference(one, other)
    if not difference <= limit:
        raise WeightsRefused(
            f"adapter and merged weights differ by {difference:.2e} in a logit; package.max_logit_difference: {limit}"
        )


def check_prompts(system: str, trained: Path, served: Path, packaged: dict[str, Any]) -> int:
    """Compare training's, the engine's and the gateway's reading of all conversations; returns how many there are.

    `packaged` is the package's prompt.json. Raises PromptsDiffer: a token, the turn's end or a special token differs.
    """
    before, after, book = load_tokenizer(trained), load_tokenizer(served), PromptBook(served)
    _check_special_tokens(before, after, packaged)
    if packaged["system"] != system:
        raise PromptsDiffer("the packaged system prompt is not the one of the domain")
    for conversation in CONVERSATIONS:
        answer = conversation.answer + after.eos_token
        messages = messages_of(system, conversation.user, conversation.history)
        text, counted = _rendered(after, packaged, messages, True), render(book, messages)
        ids, answer_ids = tuple(encode_text(after, text)), tuple(encode_text(after, answer))
        engine = Reading("the engine", text, ids, answer_ids)
        gateway = Reading("the gateway", counted, tuple(book.ids(counted)), tuple(book.ids(answer)))
        refuse_differing([as_trained(before, system, conversation), engine, gateway])
        turns = [{"role": "assistant", "content": conversation.answer}, {"role": "user", "content": "?"}]
        later = _rendered(after, packaged, messages + turns, False)
        if not later.startswith(text + answer):
            raise PromptsDiffer(
                "the chat template writes an answer of an earlier turn otherwise than it is trained: "
                + first_difference(text + answer, later)
            )
    return len(CONVERSATIONS)


def _rendered(tokenizer: Any, packaged: dict[str, Any], messages: list[dict[str, str]], begin: bool) -> str:
    """As an engine reads chat messages: its tokenizer renders the packaged template and adds nothing."""
    template = packaged["chat_template"]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=begin)
    return str(text)


def _check_special_tokens(before: Any, after: Any, packaged: dict[str, Any]) -> None:
    if after.eos_token is None:
        raise PromptsDiffer("the tokenizer names no eos_token, so that no answer would ever end")
    for name in NAMED:
        one, other = getattr(before, name), getattr(after, name)
        pair = (one, before.get_vocab().get(one)), (other, after.get_vocab().get(other))  # many name no bos or unk
        if pair[0] != pair[1] or packaged["special_tokens"].get(name) != other:
            raise PromptsDiffer(f"{name} is {pair[0]} in training and {pair[1]} where it is served")
