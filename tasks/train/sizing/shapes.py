"""How large a model is and what of it each method trains, read from its files without loading a weight.

Sizing comes before training and must answer at once: config.json and the headers of the safetensors files say all
that is needed. Limits: decoder models whose linear layers are plain matrices (Llama, Gemma, Qwen, Mistral and their
kin); the counts of trained parameters are those of the pinned peft, exact for such models (a test compares them).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import FlywheelError
from tasks.core.settings import Section
from tasks.core.training_params import (
    DoraParams,
    FullParams,
    Ia3Params,
    LoraParams,
    OsfParams,
    PissaParams,
    PromptTuningParams,
    PTuningParams,
    PTuningV2Params,
)


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
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    if not found:
        raise ShapeError(f"{folder} holds no safetensors weights; run the stage base_model first")
    return found


def trained_parameters(shape: ModelShape, section: Section) -> int:
    """How many numbers a method trains, while it trains; `section` holds the method's settings.

    Virtual tokens count with the networks that write them.
    """
    width = shape.hidden
    match section:
        case FullParams():
            return shape.parameters - (0 if section.train_embeddings else shape.embedding)
        case LoraParams() | PissaParams():
            places = shape.of(section.target_modules)
            magnitudes = sum(rows for rows, _ in places) if isinstance(section, DoraParams) else 0
            return magnitudes + sum(section.rank * (rows + columns) for rows, columns in places)
        case Ia3Params():
            return sum(
                columns if name in section.feedforward_modules else rows
                for name, (rows, columns) in shape.matrices
                if name in section.target_modules
            )
        case OsfParams():  # the singular vectors and values that a weight's kept directions leave over
            places = shape.of(section.target_modules)
            return sum(max(0, min(place) - section.kept_rank) * (sum(place) + 1) for place in places)
        case PromptTuningParams():
            return section.virtual_tokens * width
        case PTuningV2Params():
            both = shape.layers * 2 * shape.key_value_heads * shape.head_width
            if not section.projection:
                return section.virtual_tokens * both
            network = _dense(width, section.hidden) + _dense(section.hidden, both)
        case PTuningParams(encoder="mlp"):
            network = _dense(width, section.hidden) + _dense(section.hidden, section.hidden)
            network += _dense(section.hidden, width)
        case PTuningParams(hidden=hidden):
            # A two-layer LSTM of both directions (4 gates, two biases each), then two dense layers.
            network = 2 * (4 * hidden * (width + hidden + 2)) + 2 * (4 * hidden * (2 * hidden + hidden + 2))
            network += _dense(2 * hidden, 2 * hidden) + _dense(2 * hidden, width)
        case _:
            raise ShapeError(f"{type(section).__name__} is no method's section")
    return section.virtual_tokens * width + network


def _dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
