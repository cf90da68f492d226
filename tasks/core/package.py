"""What a package holds and how an engine can serve it, for all who read one: evaluation, gate, registry, gateway.

`adapter/` (over the base model), `model/` (whole weights), or both: virtual tokens over weights trained before them.
`knowledge/` is the index that it answers from, where it has one.
kind.json says how it is served; without it, it is an adapter. base.json names the base model, prompt.json the system
prompt it was trained with and is served with. No model library is loaded here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.core.errors import FlywheelError
from tasks.core.records import Record
from tasks.core.training_params import METHODS, ServedAs

KIND = "kind.json"
BASE = "base.json"
PROMPT = "prompt.json"
ADAPTER = "adapter"
MODEL = "model"
KNOWLEDGE = "knowledge"
# What an engine's loader of LoRA adapters refuses or reads as something else.
BEYOND_LORA = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "alora_invocation_tokens")


class PackageUnreadable(FlywheelError):
    """A folder is no package, or its kind.json contradicts what lies beside it."""


class Kind(Record):
    """kind.json: how an engine serves the package, and in words why so."""

    served_as: ServedAs
    why: str


@dataclass(frozen=True)
class Package:
    """A package's parts: weights of its own, None where it needs the base model's, and its adapter, if it has one."""

    folder: Path
    kind: Kind
    model: Path | None
    adapter: Path | None

    @property
    def knowledge(self) -> Path | None:
        """The index that it answers from; None where it was made without."""
        path = self.folder / KNOWLEDGE
        return path if path.is_dir() else None

    @property
    def servable(self) -> bool:
        """Whether an engine of ours can answer with it."""
        return self.kind.served_as != "nothing"

    @property
    def trained_over(self) -> str:
        """The digest of the base model it was trained over; raises PackageUnreadable where it does not say."""
        return self._said(BASE, "digest")

    @property
    def system(self) -> str:
        """Its own system prompt; raises PackageUnreadable where it does not say."""
        return self._said(PROMPT, "system")

    def _said(self, name: str, key: str) -> str:
        path = self.folder / name
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))[key])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise PackageUnreadable(f"{path} cannot be read ({error}); package the version again") from None


def kind_of_adapter(config: dict[str, Any]) -> Kind:
    """How an adapter with this peft configuration can be served."""
    name = config.get("peft_type")
    if name in {method.peft for method in METHODS.values() if method.virtual}:
        words = str(name).lower().replace("_", " ")
        return Kind(served_as="nothing", why=f"{words}: no engine of ours adds virtual tokens to a prompt")
    if name != "LORA":
        return Kind(served_as="weights", why=f"{str(name).lower()} is merged: engines load LoRA adapters only")
    found = [key for key in BEYOND_LORA if config.get(key)]
    if found or config.get("bias", "none") != "none":
        return Kind(served_as="weights", why=f"merged: engines load no LoRA with {', '.join(found) or 'a bias'}")
    return Kind(served_as="adapter", why="a LoRA over the base model")


def read_package(folder: Path) -> Package:
    """The parts of a package, whose manifest is the caller's to check; raises PackageUnreadable where they disagree."""
    model, adapter = folder / MODEL, folder / ADAPTER
    parts = (model if model.is_dir() else None, adapter if adapter.is_dir() else None)
    if parts == (None, None):
        raise PackageUnreadable(f"{folder} holds neither an adapter nor weights; run the stage that makes it again")
    path = folder / KIND
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
        kind = Kind.model_validate_json(text) if text else Kind(served_as="adapter", why="a LoRA over the base model")
    except (ValidationError, ValueError, OSError) as error:
        raise PackageUnreadable(f"{path} cannot be read ({error}); package the version again") from None
    needed = {"adapter": (False, True), "weights": (True, False)}.get(kind.served_as)
    if needed is not None and tuple(part is not None for part in parts) != needed:
        raise PackageUnreadable(f"{folder} says it is served as {kind.served_as} but holds other parts")
    return Package(folder, kind, *parts)
