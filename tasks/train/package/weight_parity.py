"""Are the weights that are packaged the ones that were trained? Compared by their logits, in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import FlywheelError

if TYPE_CHECKING:
    import torch


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

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, local_files_only=True
    ).eval()


def load_tokenizer(folder: Path) -> Any:
    """A model's own tokenizer; code beside it is not run."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


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
