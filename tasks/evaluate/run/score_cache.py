"""Responses to questions already asked, kept by the digest of everything that shaped them.

Whatever changes is another key, so nothing has to be invalidated. An entry that cannot be read counts as missing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from tasks.core import layout
from tasks.core.files import digest_of, sha256_file, write_text
from tasks.core.graph import code_digest
from tasks.evaluate.scoring.questions import Question, Response

SCORES = layout.CACHE / "scores"
LOCK = layout.LOCKS / "evaluation.txt"


@dataclass(frozen=True)
class Conditions:
    """How an evaluation is made, apart from the model and the question: equal for candidate and champion."""

    backend: str
    precision: str
    device: str
    batch_size: int
    max_new_tokens: int
    repetition_penalty: float
    threads: int
    lock: str
    source: str


def source_digest(backend: str = "huggingface") -> str:
    """The digest of our own code that runs inside or shapes an OpenCompass run."""
    return code_digest("evaluate/run", "evaluate/scoring", *(["engine"] if backend == "engine" else []))


def lock_digest(backend: str = "huggingface") -> str:
    """The digest of the locks of the environments that an evaluation runs in."""
    own = sha256_file(LOCK)
    return digest_of([own, sha256_file(engine_lock())]) if backend == "engine" else own


def engine_lock() -> Path:
    """The lock that the engine's environment was built from; its stamp names it."""
    stamp = layout.ENGINE_PYTHON.parent.parent / ".complete"
    name = stamp.read_text(encoding="utf-8").strip() if stamp.is_file() else ""
    return layout.LOCKS / f"{name or 'engine'}.txt"


def key_of(question: Question, identity: dict[str, str | None], conditions: Conditions) -> str:
    """The digest of all that shapes one response."""
    asked = {name: getattr(question, name) for name in ("kind", "prompt", "answers")}
    return digest_of({"model": identity, "conditions": asdict(conditions), **asked})


def find(key: str, question: Question, folder: Path = SCORES) -> Response | None:
    """The response kept under `key`, or None where there is none that is whole."""
    try:
        found = Response.model_validate_json(_path(folder, key).read_bytes())
    except (OSError, ValidationError):
        return None
    whole = len(found.values) == len(question.answers) and all(map(math.isfinite, found.values))
    return found if whole else None


def keep(key: str, response: Response, folder: Path = SCORES) -> None:
    """Store a response, whole or not at all."""
    write_text(_path(folder, key), response.model_dump_json() + "\n")


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"
