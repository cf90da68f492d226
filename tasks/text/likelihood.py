"""How likely a language model finds given answers: mean negative log-likelihood in nats per answer token.

Prompts that begin with the same tokens (a system prompt, an example shown once) share the pass over them: its keys and
values are computed once and repeated for what follows. The output layer sees only the columns that hold answers.
Needs torch; imports it inside. Limits: decoder-only models with transformers' key-value cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

Ids = list[int]


def load_model(folder: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """The model of a folder in float32, with an adapter where one is named, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(device)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), tokenizer


def answer_losses(model: Any, pairs: Sequence[tuple[Ids, Ids]], batch_size: int) -> list[float]:
    """The mean loss of each answer after its prompt, both given as token ids; `batch_size` pairs a pass."""
    import torch

    shared = _shared([prompt for prompt, _ in pairs])
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][0]) + len(pairs[i][1]), len(pairs[i][0]), i))
    losses = [0.0] * len(pairs)
    with torch.inference_mode():
        begun = _begin(model, pairs[0][0][:shared]) if shared else None
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = [(pairs[i][0][shared:], pairs[i][1]) for i in batch]
            for i, loss in zip(batch, _losses(model, rows, begun, shared), strict=True):
                losses[i] = loss
    return losses


def _shared(prompts: Sequence[Ids]) -> int:
    """How many tokens all prompts begin with; each keeps at least one of its own, which predicts the answer."""
    if len(prompts) < 2:
        return 0
    lowest, highest = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    return next((i for i in range(most) if lowest[i] != highest[i]), most)


def _begin(model: Any, ids: Ids) -> Any:
    return model(input_ids=_tensor(model, [ids]), logits_to_keep=1, use_cache=True).past_key_values


def _losses(model: Any, rows: Sequence[tuple[Ids, Ids]], begun: Any, shared: int) -> list[float]:
    """One pass. Padding is on the right, where no earlier position sees it."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    ids = _tensor(model, [(prompt + answer[:-1] + [0] * width)[:width] for prompt, answer in rows])
    targets = [[-100] * (len(prompt) - 1) + answer for prompt, answer in rows]
    labels = _tensor(model, [(row + [-100] * width)[:width] for row in targets])
    columns = (labels != -100).any(dim=0).nonzero().flatten()
    cache = None
    if begun is not None:
        cache = deepcopy(begun)
        cache.batch_repeat_interleave(len(rows))
    positions = torch.arange(shared, shared + width, device=ids.device).unsqueeze(0)
    kept_keys = {"past_key_values": cache, "use_cache": cache is not None}
    output = model(input_ids=ids, position_ids=positions, logits_to_keep=columns, **kept_keys)
    labels = labels[:, columns]
    kept = labels != -100
    losses = torch.zeros(labels.shape, device=ids.device)
    losses[kept] = torch.nn.functional.cross_entropy(output.logits[kept].float(), labels[kept], reduction="none")
    means: list[float] = (losses.sum(dim=1) / kept.sum(dim=1)).tolist()
    return means


def _tensor(model: Any, rows: list[Ids]) -> Any:
    import torch

    return torch.tensor(rows, device=model.device)
