"""vLLM's worker on a processor, with adapters applied to groups of tokens instead of to each token by itself.

vLLM 0.32 copies an adapter's whole weights once for every token on a processor, and takes "no adapter" (slot -1) for
the last slot, so once every slot is in use the base model answers with somebody's adapter. Here the tokens of one
adapter are one matrix product, in fp32 (several times faster than bf16 for products so narrow).
Runs only in the engine's environment, inside the worker that vLLM starts (`--worker-cls`); vLLM for GPUs does not use
it. Limit: adapters of the layers between embeddings and output only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.lora.punica_wrapper import punica_cpu
from vllm.v1.worker.cpu_worker import CPUWorker

# An adapter's slot and the rows it applies to; None where these are all rows.
Group = tuple[int, torch.Tensor | None]


def groups_of(slots: torch.Tensor) -> list[Group]:
    """The rows of each adapter slot; rows without an adapter (-1) belong to none."""
    distinct = sorted(set(slots.tolist()))
    if len(distinct) == 1:
        return [(slot, None) for slot in distinct if slot >= 0]
    return [(slot, (slots == slot).nonzero().flatten()) for slot in distinct if slot >= 0]


def add_product(
    y: torch.Tensor, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float, groups: list[Group]
) -> None:
    """y += scale * (x @ down[slot].T) @ up[slot].T, group by group, in place."""
    for slot, rows in groups:
        inputs = (x if rows is None else x[rows]).to(down.dtype)
        narrow = torch.nn.functional.linear(inputs, down[slot].view(-1, down.shape[-1]))
        wide = torch.nn.functional.linear(narrow, up[slot].view(-1, up.shape[-1]))[:, : y.shape[1]].to(y.dtype)
        if rows is None:
            y.add_(wide, alpha=scale)
        else:
            y.index_add_(0, rows, wide, alpha=scale)


class GroupedLora(punica_cpu.PunicaWrapperCPU):
    """The adapters' part of each linear layer; the groups are found once a step, not once a layer."""

    token_groups: list[Group]

    def update_metadata(self, *arguments: Any, **settings: Any) -> None:
        """Called by vLLM before each step with the adapter of every token."""
        super().update_metadata(*arguments, **settings)
        self.token_groups = groups_of(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Adds to `y` in place; a merged layer (q, k, v) has one slice of columns for each of its parts."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        start = 0
        for down, up, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            add_product(y[:, start : start + width], x, down, up, scale, self.token_groups)
            start += width

    def add_lora_logits(self, *_: Any, **__: Any) -> None:
        """Nothing: Worker.add_lora refuses adapters that change the output layer; vLLM calls this for every token."""


class Worker(CPUWorker):
    """vLLM's worker for processors, with GroupedLora in the place of its own."""

    def init_device(self) -> None:
        """The last moment before the model and its adapter layers are built."""
        punica_cpu.PunicaWrapperCPU = GroupedLora
        self.vllm_config.lora_config.lora_dtype = torch.float32
        super().init_device()

    def add_lora(self, lora_request: Any) -> bool:
        """Load an adapter. Raises ValueError: it changes the embeddings or the output layer."""
        weights = Path(lora_request.lora_path) / "adapter_model.safetensors"
        if weights.is_file():
            with safe_open(weights, framework="pt") as stored:
                found = [name for name in stored.keys() if "lm_head" in name or "embed_tokens" in name]  # noqa: SIM118
            if found:
                raise ValueError(f"the adapter changes {found[0]}, which is not served on a processor")
        return bool(super().add_lora(lora_request))
