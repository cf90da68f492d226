"""What a method leaves in its plainest form, so that whoever serves or trains it further needs nothing but the base.

PiSSA changes the base model's weights: what it learnt is written as a LoRA of twice the rank over the unchanged ones
(Meng et al. 2024, arXiv 2404.02948: ΔW = A B - A₀ B₀ = [A A₀] [B; -B₀]). P-Tuning's network and the prefixes'
projection only shape the training: what they put out is written.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from tasks.core.files import write_json
from tasks.train.run.handover import ADAPTER_CONFIG, ADAPTER_WEIGHTS

# Of virtual tokens; peft fills them in when it sees the model.
DIMENSIONS = ("token_dim", "num_attention_heads", "num_layers", "num_transformer_submodules")
START = "flywheel_start"  # the attribute under which a PiSSA model keeps its first A and B
BASE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE.txt",
    "NOTICE.txt",
)


def remember_start(model: Any) -> None:
    """Keep the factors that PiSSA begins with; a resumed run begins with the same ones."""
    from peft import get_peft_model_state_dict

    setattr(model, START, {name: value.detach().clone() for name, value in get_peft_model_state_dict(model).items()})


def plain_config(config: Any) -> Any:
    """The configuration of what a method leaves, of that which it trains with."""
    from peft import PromptTuningConfig

    kind = config.peft_type.value
    if kind in ("P_TUNING", "PROMPT_TUNING"):
        return PromptTuningConfig(num_virtual_tokens=config.num_virtual_tokens, task_type=config.task_type)
    plain = copy.deepcopy(config)
    if kind == "PREFIX_TUNING":
        plain.prefix_projection = False
    if kind == "LORA" and is_pissa(config):
        plain.r, plain.lora_alpha, plain.init_lora_weights = 2 * config.r, 2 * config.lora_alpha, True
    return plain


def is_pissa(config: Any) -> bool:
    """Whether an adapter is still in PiSSA's own form."""
    return str(getattr(config, "init_lora_weights", "")).startswith("pissa")


def make_plain(model: Any, folder: Path) -> None:
    """Rewrite what a trainer saved in `folder`. Call it in one process, before the folder's manifest."""
    config = getattr(model, "peft_config", {}).get("default")
    if config is None:
        for path in (Path(model.config.name_or_path) / name for name in BASE_FILES):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        return
    if is_pissa(config):
        _subtract_start(folder / ADAPTER_WEIGHTS, getattr(model, START))
    saved = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if config.is_prompt_learning or is_pissa(config):

        def jsonable(value: Any) -> Any:
            return sorted(value) if isinstance(value, set) else getattr(value, "value", str(value))

        value = json.loads(json.dumps(plain_config(config).to_dict(), default=jsonable))
        kept = {name: saved.get(name) for name in ("base_model_name_or_path", "inference_mode", "peft_version")}
        dimensions = {name: saved[name] for name in DIMENSIONS if saved.get(name) is not None and name in value}
        write_json(folder / ADAPTER_CONFIG, {**value, **kept, **dimensions})


def _subtract_start(path: Path, start: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    joined = {}
    for name, tensor in load_file(path).items():
        first = start[name].float()
        is_a = ".lora_A." in name
        joined[name] = torch.cat([tensor.float(), first if is_a else -first], dim=0 if is_a else 1).contiguous()
    save_file(joined, path, metadata={"format": "pt"})
