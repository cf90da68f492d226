"""Who is measured: models/package or what data/champion holds, checked against its manifests.

Either is an adapter over the base, whole weights of its own, or both (tasks/core/package.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import ManifestError, digest_of, sha256_file, verify_manifest
from tasks.core.package import read_package

Who = Literal["candidate", "champion", "anchor", "base"]

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# How the files begin that a tokenizer is saved as, beside `*.model`.
TOKENIZER = ("tokenizer", "chat_template", "special_tokens_map", "added_tokens", "vocab", "merges")
# Formats that can run code when they are read.
UNSAFE_SUFFIXES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py"}


class SubjectError(FlywheelError):
    """A model to be measured is missing, changed, or holds files that must not be loaded."""


@dataclass(frozen=True)
class Subject:
    """A model to measure; a candidate has no version yet.

    `base` holds the weights to load, the base model's or the version's own; `unservable` says why no engine of ours
    can answer with it, or nothing. `system` is the system prompt that it was trained and is served with; the base model
    has none, and is asked with the domain's. `knowledge` is the index that it answers from; the base model has none.
    """

    who: str
    version: str | None
    digest: str
    base: Path
    base_digest: str
    adapter: Path | None = None
    adapter_digest: str | None = None
    unservable: str = ""
    system: str | None = None
    knowledge: Path | None = None

    @property
    def identity(self) -> dict[str, str | None]:
        """The weights that decide this model's answers, whatever it is asked."""
        return {"base": self.base_digest, "adapter": self.adapter_digest}


def load_subject(who: Who) -> Subject:
    """The candidate, the champion, the anchor of its line or the base model, its files checked against their manifests.

    Raises SubjectError: a manifest does not match, a file is of a kind that can run code, the adapter is incomplete, or
    it was trained over another base model than the one here.
    """
    if who == "base":
        return base_alone(who)
    base_digest = _verified(layout.BASE_MODEL)
    if who == "candidate":
        return subject_in(layout.PACKAGE, who, None, _verified(layout.PACKAGE), base_digest, "stages sft and package")
    _verified(layout.CHAMPION)
    path = layout.CHAMPION / "champion.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if who == "anchor":
        first = facts["anchor"]
        return subject_in(layout.ANCHOR, who, first["version"], first["digest"], base_digest, "stage champion")
    if facts["kind"] == "base":
        if facts["digest"] != base_digest:
            raise SubjectError(f"{path} names another base model than the one here; run the stage champion again")
        return replace(base_alone(who), version=facts["version"])
    return subject_in(layout.CHAMPION, who, facts["version"], facts["digest"], base_digest, "stage champion")


def evaluation_of(who: str) -> Path:
    """Where a model's evaluation lies; that of what is measured beside the champion lies with the champion's."""
    return layout.EVALUATION / (f"champion/{who}" if who in ("anchor", "base") else who)


def beside_champion() -> tuple[Who, ...]:
    """What is measured beside the champion: its line's anchor, and the base model where a renewal is to be judged."""
    facts = json.loads((layout.CHAMPION / "champion.json").read_text(encoding="utf-8"))
    return (*(("anchor",) if layout.ANCHOR.is_dir() else ()), *(("base",) if facts.get("renewal") else ()))


def base_alone(who: str) -> Subject:
    """The base model without an adapter; see load_subject."""
    digest = _verified(layout.BASE_MODEL)
    return Subject(who, None, digest, layout.BASE_MODEL, digest)


def subject_in(folder: Path, who: Who, version: str | None, digest: str, base_digest: str, stages: str) -> Subject:
    """The model that a package's folder holds, over the base model of this digest where it has no weights of its own.

    Raises PackageUnreadable; SubjectError: see load_subject; `stages` are those to run again.
    """
    parts = read_package(folder)
    if parts.trained_over != base_digest:
        raise SubjectError(f"{folder} belongs to another base model than the one here; run the {stages} again")
    base, own = (parts.model, _verified(parts.model)) if parts.model else (layout.BASE_MODEL, base_digest)
    adapter_digest = _adapter_digest(parts.adapter) if parts.adapter else None
    unservable = "" if parts.servable else parts.kind.why
    return Subject(
        who, version, digest, base, own, parts.adapter, adapter_digest, unservable, parts.system, parts.knowledge
    )


def _verified(directory: Path) -> str:
    try:
        digest = verify_manifest(directory)
    except ManifestError as error:
        raise SubjectError(f"{error}. `make run` makes {directory} again") from None
    unsafe = [path for path in sorted(directory.rglob("*")) if path.suffix in UNSAFE_SUFFIXES]
    if unsafe:
        raise SubjectError(f"{unsafe[0]} can run code when it is loaded; only safetensors weights are measured")
    return digest


def tokenizer_digest(folder: Path) -> str:
    """The digest of all that turns a conversation into tokens: the tokenizer's files and the chat template."""
    found = [path for path in folder.iterdir() if path.name.startswith(TOKENIZER) or path.suffix == ".model"]
    return digest_of({path.name: sha256_file(path) for path in found})


def _adapter_digest(adapter: Path) -> str:
    missing = [name for name in ADAPTER_FILES if not (adapter / name).is_file()]
    if missing:
        raise SubjectError(f"{adapter} lacks {' and '.join(missing)}; run the stage that makes it again")
    return digest_of({name: sha256_file(adapter / name) for name in ADAPTER_FILES})
