"""A model's folder as Hugging Face lays it out: is it whole, without code of its own, and what kind of model is it?

Only configuration and the heads of the weights' files are read. Limits: decoder models that transformers has natively.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
WITH_CODE = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class BaseModelError(FlywheelError):
    """The base model is not the one the domain names, or cannot be used."""


@dataclass(frozen=True)
class Facts:
    """What a model is. `dtype` is that of most of its numbers; `context` in tokens, 0 where it is not said."""

    architecture: str
    parameters: int
    dtype: str
    context: int
    weights: tuple[Path, ...]

    def words(self) -> str:
        """For people."""
        large = self.parameters >= 1e9
        size = f"{self.parameters / 1e9:.2f} billion" if large else f"{self.parameters / 1e6:.1f} million"
        context = f"a context of {self.context} tokens" if self.context else "a context that is not said"
        return f"{self.architecture}, {size} parameters in {self.dtype}, {context}"


def examine(folder: Path) -> Facts:
    """What lies in a folder. Raises BaseModelError: it is no whole safetensors model that transformers has natively."""
    config = read_config(folder)
    _refuse_code(folder, config)
    architecture = _native(folder, config)
    if kind := (config.get("quantization_config") or {}).get("quant_method"):
        raise BaseModelError(
            f"{folder.name} is quantised ({kind}): nothing that is trained can be merged into such weights; take the "
            "model's unquantised form"
        )
    weights = _weights(folder)
    counts: Counter[str] = Counter()
    for path in weights:
        counts += _head(path)
    dtype = counts.most_common(1)[0][0]
    context = int(config.get("max_position_embeddings") or 0)
    return Facts(architecture, counts.total(), DTYPES.get(dtype, dtype), context, tuple(weights))


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises BaseModelError: there is none."""
    if not folder.is_dir():
        raise BaseModelError(f"{folder} is no folder; name the model's in base_model.path of domain.yaml")
    return _read(folder / "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(f"{path.parent.name} holds no {path.name}: no model's folder, or not whole") from None
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path.parent.name}/{path.name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BaseModelError(f"{path.parent.name}/{path.name} holds no settings")
    return found


def _refuse_code(folder: Path, config: dict[str, Any]) -> None:
    """A model that brings code is refused even where transformers knows its type: the code is what it was made with."""
    for name in WITH_CODE:
        if (folder / name).is_file() and "auto_map" in _read(folder / name):
            instead = (
                "GLM-4-9B-0414 or a newer one of its makers"
                if config.get("model_type") == "chatglm"
                else ("a model that transformers has natively, or this one in a form made for transformers itself")
            )
            raise BaseModelError(
                f"{folder.name} needs code of its own (auto_map in {name}), which is never run; take {instead}"
            )


def _native(folder: Path, config: dict[str, Any]) -> str:
    from transformers import __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = str(config.get("model_type", ""))
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if not known:
        raise BaseModelError(
            f"{folder.name} has the model_type {kind!r}, which is no language model of transformers {__version__}"
        )
    named = str((config.get("architectures") or [known])[0])
    if named != known and not named.endswith("ForCausalLM"):
        raise BaseModelError(f"{folder.name} is a {named}, no language model; take its text model alone ({known})")
    return named


def _weights(folder: Path) -> list[Path]:
    """The files with the weights, all there. Raises BaseModelError: one is missing, or they are no safetensors."""
    if (folder / INDEX).is_file():
        placed = _read(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in placed.values()}) if isinstance(placed, dict) else []
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise BaseModelError(f"{folder.name}/{INDEX} names no safetensors files of this folder")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise BaseModelError(f"{folder.name} is not whole: {', '.join(missing)} of {INDEX} missing")
        return [folder / name for name in names]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if parts := sorted(path.name for path in folder.glob("*.safetensors")):
        raise BaseModelError(f"{folder.name} holds {parts[0]} but neither {SINGLE} nor {INDEX} to say what is where")
    if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
        raise BaseModelError(
            f"{folder.name} holds its weights as {pickles[0]} only, which can run code when it is read; take the model "
            "in safetensors"
        )
    raise BaseModelError(f"{folder.name} holds no weights: {SINGLE}, or parts with {INDEX}")


def _head(path: Path) -> Counter[str]:
    """How many numbers of each type a file holds. Raises BaseModelError: it is cut short, or no safetensors."""
    from safetensors import SafetensorError, safe_open

    counts: Counter[str] = Counter()
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                counts[part.get_dtype()] += math.prod(part.get_shape())
    except (SafetensorError, OSError) as error:
        raise BaseModelError(f"{path.parent.name}/{path.name} is no whole safetensors file: {error}") from None
    if not counts:
        raise BaseModelError(f"{path.parent.name}/{path.name} holds no weights")
    return counts
