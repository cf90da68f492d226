"""A base model's GGUF file, cut down to two narrow layers: what takes minutes takes seconds. The tokenizer stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS = 2
NARROWER = {"llama": 3, "gemma3": 10}  # by architecture: how often less wide it becomes


def cut_model(source: Path, target: Path) -> None:
    """Write `source`, cut down, to `target`; its weights are corners of the real ones, finite and no more."""
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    name = fields["general.architecture"]
    sizes, changed = smaller(fields, name)
    writer = GGUFWriter(target, name)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind, inner = field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, changed.get(key, fields[key]), kind, inner)
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= LAYERS:
            continue
        weights = dequantize(tensor.data, tensor.tensor_type)
        corner = tuple(slice(sizes.get(size, size)) for size in weights.shape)
        writer.add_tensor(tensor.name, np.ascontiguousarray(weights[corner], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def smaller(fields: dict[str, Any], name: str) -> tuple[dict[int, int], dict[str, int]]:
    """Each width with what it becomes, and the settings that say so. Heads keep their width."""
    by = NARROWER[name]
    keys = [f"{name}.embedding_length", f"{name}.feed_forward_length"]
    heads = [f"{name}.attention.head_count", f"{name}.attention.head_count_kv"]
    sizes = {fields[key]: fields[key] // by for key in keys}
    if f"{name}.attention.key_length" not in fields:  # then a head is as wide as the model over its heads
        width = fields[keys[0]] // fields[heads[0]]
        sizes |= {fields[key] * width: fields[key] * width // by for key in heads}
        keys += heads
    return sizes, {**{key: fields[key] // by for key in keys}, f"{name}.block_count": LAYERS}
