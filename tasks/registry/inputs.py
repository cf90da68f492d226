"""The digest of everything a release is made from, to tell whether there is anything new to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.files import digest_of, sha256_file

SHAPING_FOLDERS = ("tasks", "infra/locks", "infra/accelerate", "infra/deepspeed")
SHAPING_FILES = ("dvc.yaml", "state/feedback.json", "state/forgotten.json")
LEFT_OUT = {"__pycache__", ".DS_Store"}
# How the platform runs: changes no version. (An evaluation through the engine keys its scores by the engine's sources.)
OPERATIONAL_SECTIONS = ("nightly", "engine", "serving", "platform")
OPERATIONAL_FOLDERS = ("tasks/engine", "tasks/store")


def input_files(domain: str, root: Path = Path()) -> Iterator[Path]:
    """Every file that shapes a release of `domain`, relative to `root`: code, locks, the domain's own."""
    for name in SHAPING_FILES:
        if (root / name).is_file():
            yield Path(name)
    for folder in (*SHAPING_FOLDERS, (layout.DOMAINS / domain).as_posix()):
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if relative.as_posix().startswith(OPERATIONAL_FOLDERS):
                continue
            if path.is_file() and not LEFT_OUT.intersection(relative.parts):
                yield relative


def inputs_digest(domain: str, root: Path = Path()) -> str:
    """The SHA-256 over the settings that shape weights or judgement, and name and content of every input file.

    Where training goes on from a champion, state/feedback.json names it. The champion that is judged against is no
    input: it changes with every promotion.
    """
    return digest_of([shaping_settings(root), {p.as_posix(): sha256_file(root / p) for p in input_files(domain, root)}])


def shaping_settings(root: Path) -> dict[str, Any]:
    """params.yaml without the sections that say how the platform runs."""
    settings: dict[str, Any] = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))
    return {name: value for name, value in settings.items() if name not in OPERATIONAL_SECTIONS}
