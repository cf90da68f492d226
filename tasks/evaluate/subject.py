"""Who is measured: a base model, with or without an adapter, checked against its manifests.

The candidate is models/package over the base; the champion is what data/champion holds: the base itself, or the
adapter of an earlier version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks import layout
from tasks.errors import FlywheelError
from tasks.files import ManifestError, digest_of, sha256_file, verify_manifest

Who = Literal["candidate", "champion"]

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Formats that can run code when they are read.
UNSAFE_SUFFIXES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py"}


class SubjectError(FlywheelError):
    """A model to be measured is missing, changed, or holds files that must not be loaded."""


@dataclass(frozen=True)
class Subject:
    """A model to measure. `version` is null for a candidate: it gets one only after it is judged."""

    who: str
    version: str | None
    digest: str
    base: Path
    base_digest: str
    adapter: Path | None
    adapter_digest: str | None

    @property
    def identity(self) -> dict[str, str | None]:
        """What decides this model's answers."""
        return {"base": self.base_digest, "adapter": self.adapter_digest}


def load_subject(who: Who) -> Subject:
    """The candidate or the champion, its files checked against their manifests.

    Raises:
        SubjectError: a manifest does not match, a file is of a kind that can run code, or the adapter is incomplete.
    """
    base_digest = _verified(layout.BASE_MODEL)
    if who == "candidate":
        digest = _verified(layout.PACKAGE)
        trained_on = json.loads((layout.PACKAGE / "base.json").read_text(encoding="utf-8"))["digest"]
        if trained_on != base_digest:
            raise SubjectError(f"{layout.PACKAGE} belongs to another base model; run the stages sft and package again")
        return _subject(who, None, digest, base_digest, layout.PACKAGE / "adapter")
    _verified(layout.CHAMPION)
    path = layout.CHAMPION / "champion.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if facts["kind"] == "base":
        if facts["digest"] != base_digest:
            raise SubjectError(f"{path} names another base model than the one here; run the stage champion again")
        return replace(base_alone(who), version=facts["version"])
    return _subject(who, facts["version"], facts["digest"], base_digest, layout.CHAMPION / "adapter")


def base_alone(who: str) -> Subject:
    """The base model without an adapter; see load_subject."""
    digest = _verified(layout.BASE_MODEL)
    return Subject(who, None, digest, layout.BASE_MODEL, digest, None, None)


def _subject(who: Who, version: str | None, digest: str, base_digest: str, adapter: Path) -> Subject:
    return Subject(who, version, digest, layout.BASE_MODEL, base_digest, adapter, _adapter_digest(adapter))


def _verified(directory: Path) -> str:
    try:
        digest = verify_manifest(directory)
    except ManifestError as error:
        raise SubjectError(f"{error}. Run the stage that makes {directory} again") from None
    unsafe = [path for path in sorted(directory.rglob("*")) if path.suffix in UNSAFE_SUFFIXES]
    if unsafe:
        raise SubjectError(f"{unsafe[0]} can run code when it is loaded; only safetensors weights are measured")
    return digest


def _adapter_digest(adapter: Path) -> str:
    missing = [name for name in ADAPTER_FILES if not (adapter / name).is_file()]
    if missing:
        raise SubjectError(f"{adapter} lacks {' and '.join(missing)}; run the stage that makes it again")
    return digest_of({name: sha256_file(adapter / name) for name in ADAPTER_FILES})
