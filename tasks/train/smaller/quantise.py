"""A model's weights in eight or four bits, as one GGUF file that llama.cpp and engines like it read.

The gguf library quantises and writes. What else such a file holds (architecture, vocabulary, merges) is taken from the
GGUF file that the base model came from, so that every architecture whose tensors are named alike works; chat template
and special tokens are those of the package. The file counts only once it was read back through transformers: what is
measured and judged are the weights as they stand in the file.
Limits: block formats without importance weights (q8_0, q4_1); embeddings and output stay at eight bits, norms in fp32.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.errors import FlywheelError
from tasks.train.base_model.stage import assembled, checked_files, load_gguf
from tasks.train.package import weight_parity
from tasks.train.package.stage import finish_model

if TYPE_CHECKING:
    import numpy as np

Quantisation = Literal["q8_0", "q4_1"]
BLOCK = 32  # weights that share a scale
EIGHT_BITS = ("token_embd.weight", "output.weight")  # too few and too often read to be coarser
# Rotary embeddings pair neighbours in a GGUF file of this architecture, and halves of a head in transformers.
PERMUTED = {"llama": (".attn_q.weight", ".attn_k.weight")}
PLUS_ONE = ("gemma", "gemma2", "gemma3")  # whose files hold a norm's whole factor, not its distance from one
TOKENS = {"tokenizer.ggml.bos_token_id": "bos", "tokenizer.ggml.eos_token_id": "eos"}
TOKENS |= {"tokenizer.ggml.padding_token_id": "pad"}


class QuantiseError(FlywheelError):
    """A model cannot be written as GGUF, or is not what it should be when it is read back."""


def quantise(model: Any, domain: Domain, kind: Quantisation, target: Path) -> dict[str, int]:
    """Write a model to a GGUF file; returns bytes and number of weights.

    Args:
        model: transformers' model, its weights over the domain's base model.
        target: the file; its folder is there.

    Raises:
        QuantiseError: a tensor has no name in the base model's file format.
        BaseModelError: the base model's GGUF file is not here.
    """
    import gguf

    with assembled(checked_files(domain)) as source:
        reader: Any = gguf.GGUFReader(source)
        architecture = str(reader.get_field("general.architecture").contents())
        writer = gguf.GGUFWriter(target, architecture)
        _copy_fields(reader, writer, model, architecture, kind)
        _add_tensors(writer, model, architecture, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return {"bytes": target.stat().st_size, "parameters": sum(p.numel() for p in model.parameters())}


def _copy_fields(reader: Any, writer: Any, model: Any, architecture: str, kind: Quantisation) -> None:
    """Everything but the tensors: the base model's, with this model's layers, template and special tokens."""
    import gguf

    tokenizer = weight_parity.load_tokenizer(layout.BASE_MODEL)
    own: dict[str, Any] = {name: getattr(tokenizer, f"{role}_token_id") for name, role in TOKENS.items()}
    own["tokenizer.chat_template"] = tokenizer.chat_template
    own["general.file_type"] = int(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    own[f"{architecture}.block_count"] = model.config.get_text_config().num_hidden_layers
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        first = field.types[0]
        inner = field.types[-1] if first == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, own.pop(field.name, field.contents()), first, sub_type=inner)
    for name, value in own.items():
        kind_of_value = gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.UINT32
        writer.add_key_value(name, value, kind_of_value)


def _add_tensors(writer: Any, model: Any, architecture: str, kind: Quantisation) -> None:
    import gguf

    config = model.config.get_text_config()
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    tied = bool(config.tie_word_embeddings)
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise QuantiseError(f"{name} has no name in GGUF files of the architecture {architecture}")
        values = _as_in_file(tensor.detach().float().numpy(), found, architecture, config)
        chosen = _precision(values, found, kind)
        writer.add_tensor(found, gguf.quants.quantize(values, chosen), raw_dtype=chosen)


def _precision(values: np.ndarray, name: str, kind: Quantisation) -> Any:
    """The format of one tensor: matrices whose rows are whole blocks are quantised, everything else is kept."""
    import gguf

    if values.ndim < 2 or values.shape[-1] % BLOCK:
        return gguf.GGMLQuantizationType.F32
    return gguf.GGMLQuantizationType["Q8_0" if name in EIGHT_BITS else kind.upper()]


def _as_in_file(values: np.ndarray, name: str, architecture: str, config: Any) -> np.ndarray:
    """A tensor as the file's architecture lays it out; the inverse of what transformers does when it reads one."""
    if name.endswith(PERMUTED.get(architecture, ("\0",))):
        heads = config.num_key_value_heads if "attn_k" in name else config.num_attention_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape)
    if architecture in PLUS_ONE and name.endswith("norm.weight"):
        return values + 1
    return values


def read_back(file: Path, target: Path) -> Any:
    """The weights as they stand in the file, as a folder of safetensors that can be measured; returns the model.

    Raises:
        QuantiseError: the file's tokenizer counts other tokens than the base model's.
    """
    tokenizer, model = load_gguf(file)
    before = weight_parity.load_tokenizer(layout.BASE_MODEL)
    if tokenizer.get_vocab() != before.get_vocab() or tokenizer.eos_token_id != before.eos_token_id:
        raise QuantiseError(f"{file} has another vocabulary or end of turn than {layout.BASE_MODEL}")
    shutil.rmtree(target, ignore_errors=True)
    model.config.pad_token_id = before.pad_token_id
    model.save_pretrained(target)
    finish_model(target)
    return model.eval()


def logit_error(one: Any, other: Any, prompts: list[list[int]]) -> float:
    """Root mean square of the difference of all logits, over the spread of the first model's."""
    import torch

    first, second = (torch.cat([x[0] for x in weight_parity.logits_of(m, prompts)]) for m in (one, other))
    return float((first - second).square().mean().sqrt() / first.std())
