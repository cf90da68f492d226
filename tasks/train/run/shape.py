"""How large a model is and what of it each method trains, read from its files without loading a weight.

Limits: decoder models whose linear layers are plain matrices; counts are those of the pinned peft (a test compares).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.settings import Section
from tasks.core.training_params import ALL_LINEAR, METHODS, Method


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

    def names(self, modules: str | list[str]) -> list[str]:
        """The names of linear layers as settings give them: a list, or `all-linear` for those this model has."""
        return sorted({name for name, _ in self.matrices}) if modules == ALL_LINEAR else list(modules)

    def of(self, modules: str | list[str]) -> list[tuple[int, int]]:
        """Shapes (outputs, inputs) of the matrices with these names."""
        names = self.names(modules)
        return [shape for name, shape in self.matrices if name in names]


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in a folder. Raises ShapeError: no config.json, no safetensors, or another kind."""
    from safetensors import safe_open

    weights: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            weights |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    if not weights:
        raise ShapeError(f"{folder} holds no safetensors weights; run the stage base_model first")
    matrices = [
        (name.removesuffix(".weight").rsplit(".", 1)[-1], (shape[0], shape[1]))
        for name, shape in sorted(weights.items())
        if ".layers." in name and name.endswith(".weight") and len(shape) == 2
    ]
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
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
            matrices=tuple(matrices),
        )
    except (OSError, KeyError, ValueError) as error:
        raise ShapeError(f"{folder} cannot be sized ({error!r}); it must hold a decoder model's config.json") from None


def trained_parameters(shape: ModelShape, method: Method, settings: Section) -> int:
    """How many numbers a method trains, while it trains, the networks that write virtual tokens included."""
    section: Any = settings
    width, places = shape.hidden, shape.of(getattr(section, "target_modules", []))
    match METHODS[method].peft:
        case None:
            return shape.parameters - (0 if section.train_embeddings else shape.embedding)
        case "LORA":
            magnitudes = sum(rows for rows, _ in places) if method == "dora" else 0
            return magnitudes + sum(section.rank * (rows + columns) for rows, columns in places)
        case "IA3":
            inputs = sum(columns for _, columns in shape.of(section.feedforward_modules))
            others = [n for n in shape.names(section.target_modules) if n not in section.feedforward_modules]
            return inputs + sum(rows for rows, _ in shape.of(others))
        case "OSF":  # the singular vectors and values that a weight's kept directions leave over
            return sum(max(0, min(place) - section.kept_rank) * (sum(place) + 1) for place in places)
    if not METHODS[method].virtual:
        raise ShapeError(f"what {method} trains is not counted yet")
    layers: list[tuple[int, int]] = []  # inputs and outputs of the network's
    if method == "p_tuning_v2":
        width = shape.key_value_heads * shape.head_width
        both = shape.layers * 2 * width
        if not section.projection:
            return int(section.virtual_tokens) * both
        layers = [(width, section.hidden), (section.hidden, both)]
    elif method == "p_tuning":
        hidden = section.hidden
        layers = [(width, hidden), (hidden, hidden), (hidden, width)]
        if section.encoder == "lstm":  # two layers in both directions (4 gates, two biases each), then two dense ones
            layers = [(width + hidden + 1, 8 * hidden), (3 * hidden + 1, 8 * hidden)]
            layers += [(2 * hidden, 2 * hidden), (2 * hidden, width)]
    return int(section.virtual_tokens) * width + sum((inputs + 1) * outputs for inputs, outputs in layers)
