"""A copy of the repository made of links, to ask "what if" in without touching what the stages wrote.

Stages that have not run count as switched off there. Limits: one process, because it changes the working directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.files import write_json, write_manifest, write_text

LINKED = ("infra", "domains", "state", "data")
SHARED = ("packages", "hub", "cache", "tools", "mlflow")
CHAIN = (layout.PRETRAIN, layout.SFT, layout.REWARD, layout.ALIGN)


def link_copy(root: Path, folder: Path, changes: Mapping[str, Any], keep_trained: bool) -> Path:
    """Link a copy in `folder`, with `changes` by dotted name; `keep_trained`: with what has been trained."""
    root = root.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        if (root / name).exists():
            _link(root / name, folder / name)
    (folder / layout.HOME).mkdir(exist_ok=True)
    for name in SHARED:
        if (root / layout.HOME / name).exists() or name == "cache":
            (root / layout.HOME / name).mkdir(parents=True, exist_ok=True)
            _link(root / layout.HOME / name, folder / layout.HOME / name)
    settings = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))
    write_text(folder / layout.PARAMS, yaml.safe_dump(changed(settings, changes), allow_unicode=True))
    shutil.rmtree(folder / CHAIN[0].parent, ignore_errors=True)  # links of an earlier time; nothing behind them goes
    for stage in CHAIN:
        if (root / stage).is_dir() and (keep_trained or stage == layout.PRETRAIN):
            _link(root / stage, folder / stage)
        else:
            write_json(folder / stage / "none" / "why.json", {"why": "not trained yet"})
            write_manifest(folder / stage / "none")
    return folder


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target)


def changed(settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them replaced, each by its dotted name. Raises KeyError: there is no such setting."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(settings))
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = found
        for section in sections:
            place = place[section]
        if last not in place:
            raise KeyError(name)
        place[last] = value
    return found


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a repository; processes that are started meanwhile do too, and still import this one's code."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *([before] if before else [])])
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before
