"""How large a model is and what of it each method trains, read from its files without loading a weight.

Sizing comes before training and must answer at once: config.json and the headers of the safetensors files say all
that is needed. Limits: decoder models whose linear layers are plain matrices (Llama, Gemma, Qwen, Mistral and their
kin); the counts of trained parameters are those of the pinned peft, exact for such models (a test compares them).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.settings import Section
from tasks.core.training_params import Method

LOW_RANK: tuple[Method, ...] = ("lora", "rslora", "dora", "pissa", "qlora")
VIRTUAL: tuple[Method, ...] = ("p_tuning_v2", "p_tuning", "prompt_tuning")
WHOLE: tuple[Method, ...] = ("full", "osf")  # their gradients reach the weights themselves


class ShapeError(FlywheelError):
    """The folder is no model that can be sized."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder model. `matrices` are the layers' two-dimensional weights: last part of the name, shape."""

    layers: int
    hidden: int
    inner: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    parameters: int
    tied: bool
    matrices: tuple[tuple[str, tuple[int, int]], ...]

    @property
    def linear(self) -> int:
        """Weights that every token is multiplied with, the head left out."""
        return sum(rows * columns for _, (rows, columns) in self.matrices)

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and of the head where it is another matrix."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def of(self, modules: list[str]) -> list[tuple[int, int]]:
        """Shapes (outputs, inputs) of the matrices with these names."""
        return [shape for name, shape in self.matrices if name in modules]


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in a folder.

    Raises:
        ShapeError: no config.json, no safetensors weights, or a model of another kind.
    """
    weights = _weights(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        matrices = tuple(
            (name.removesuffix(".weight").rsplit(".", 1)[-1], (shape[0], shape[1]))
            for name, shape in sorted(weights.items())
            if ".layers." in name and name.endswith(".weight") and len(shape) == 2
        )
        return ModelShape(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            inner=config["intermediate_size"],
            heads=heads,
            key_value_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or hidden // heads,
            vocabulary=config["vocab_size"],
            parameters=sum(map(math.prod, weights.values())),
            tied=not any(name.startswith("lm_head") for name in weights),
            matrices=matrices,
        )
    except (OSError, KeyError, ValueError) as error:
        raise ShapeError(f"{folder} cannot be sized ({error!r}); it must hold a decoder model's config.json") from None


def _weights(folder: Path) -> dict[str, list[int]]:
    """Name → shape of every tensor, from the headers alone."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    if not found:
        raise ShapeError(f"{folder} holds no safetensors weights; run the stage base_model first")
    return found


def trained_parameters(shape: ModelShape, method: Method, section: Section) -> int:
    """How many numbers a method trains, while it trains."""
    settings: Any = section
    if method == "full":
        return shape.parameters - (0 if settings.train_embeddings else shape.embedding)
    if method in LOW_RANK:
        places = shape.of(settings.target_modules)
        magnitudes = sum(rows for rows, _ in places) if method == "dora" else 0
        return magnitudes + sum(settings.rank * (rows + columns) for rows, columns in places)
    if method == "ia3":
        return sum(
            columns if name in settings.feedforward_modules else rows
            for name, (rows, columns) in shape.matrices
            if name in settings.target_modules
        )
    if method == "osf":
        return sum(_free(rows, columns, settings.kept_rank) for rows, columns in shape.of(settings.target_modules))
    return _virtual(shape, method, settings)


def _free(rows: int, columns: int, kept: int) -> int:
    """Singular vectors and values that a weight's kept directions leave over."""
    return max(0, min(rows, columns) - kept) * (rows + columns + 1)


def _virtual(shape: ModelShape, method: Method, settings: Any) -> int:
    """The tables of virtual tokens, and the networks that write them."""
    tokens, width = settings.virtual_tokens, shape.hidden
    if method == "prompt_tuning":
        return int(tokens * width)
    if method == "p_tuning_v2":
        both = shape.layers * 2 * shape.key_value_heads * shape.head_width
        if not settings.projection:
            return int(tokens * both)
        return int(tokens * width + _dense(width, settings.hidden) + _dense(settings.hidden, both))
    hidden = settings.hidden
    if settings.encoder == "mlp":
        return int(tokens * width + _dense(width, hidden) + _dense(hidden, hidden) + _dense(hidden, width))
    # A two-layer LSTM of both directions (4 gates, two biases each), then two dense layers.
    lstm = 2 * (4 * hidden * (width + hidden + 2)) + 2 * (4 * hidden * (2 * hidden + hidden + 2))
    return int(tokens * width + lstm + _dense(2 * hidden, 2 * hidden) + _dense(2 * hidden, width))


def _dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
