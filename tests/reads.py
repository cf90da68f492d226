"""Runs a stage and writes down what it read: settings, files of the repository, files that its domain names.

`python -m tests.reads -m MODULE ARGUMENTS` in place of `python -m MODULE ARGUMENTS`; what was read goes to a file in
.flywheel/reads. Files are seen by the kernel (inotify), whoever opens them: the stage, its native libraries or its
children. Files of a domain are seen when the stage opens them, as every stage that loads a domain looks whether they
are empty.
Limits: Linux; a file that a stage looks for and does not find is not seen.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import struct
import sys
from pathlib import Path
from typing import Any

FOLDERS = ("tasks", "infra", "state", "data", "models", "reports")  # seen by the kernel
MODULES = (".py", ".pyc")  # of them one run reads fewer than a stage may; tests/contract/test_pipeline.py has them all
DOMAINS = ("domains/", ".flywheel/packages/")  # seen from inside
IN_OPEN, IN_ONESHOT, IN_NONBLOCK = 0x20, 0x80000000, 0o4000
HEAD = struct.Struct("iIII")  # of an event: watch, mask, cookie, length of the name behind it
RECORDS = Path(".flywheel/reads")

files: set[str] = set()
settings: set[str] = set()
named: dict[int, tuple[Any, str]] = {}  # each section by its id, kept alive, with its path


def watch() -> tuple[int, dict[int, str]]:
    """A watch for the first opening of each file; returns the inotify instance and the file of each watch."""
    libc = ctypes.CDLL(None, use_errno=True)
    instance = libc.inotify_init1(IN_NONBLOCK | os.O_CLOEXEC)
    watched = {}
    for path in (path for folder in FOLDERS for path in Path(folder).rglob("*") if path.is_file()):
        if path.suffix in MODULES:
            continue
        number = libc.inotify_add_watch(instance, os.fsencode(path), IN_OPEN | IN_ONESHOT)
        if number < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {path}")
        watched[number] = path.as_posix()
    return instance, watched


def opened(instance: int, watched: dict[int, str]) -> set[str]:
    """The files that were opened."""
    found = set()
    while True:
        try:
            block = os.read(instance, 1 << 16)
        except BlockingIOError:
            return found
        at = 0
        while at < len(block):
            number, mask, _, length = HEAD.unpack_from(block, at)
            found |= {watched[number]} if mask & IN_OPEN else set()
            at += HEAD.size + length


def see_domains(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook for openings of a domain's files, but for those that only look whether a file is empty."""
    if event != "open" or not isinstance(arguments[0], str):
        return
    path = os.path.relpath(arguments[0])
    if path.startswith(DOMAINS) and not any(name == "_has_content" for name in callers(6)):
        files.add(path)


def callers(depth: int) -> list[str]:
    """The names of the functions that called the audit hook, the nearest first."""
    frame, names = sys._getframe(2), list[str]()
    while frame is not None and len(names) < depth:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def see_settings() -> None:
    """Have every attribute of the loaded settings noted by its path in params.yaml; a dump counts as the section."""
    import tasks.core.params
    from tasks.core.settings import Section

    read, load = Section.__getattribute__, tasks.core.params.load_params

    def noting(self: Any, key: str) -> Any:
        value = read(self, key)
        section, path = named.get(id(self), (None, ""))
        if section is self:
            if key in type(self).model_fields and not isinstance(value, Section):
                settings.add(path + public(self, key))
            elif key.startswith(("model_dump", "model_copy")):
                settings.add(path.rstrip("."))
        return value

    def loading(*arguments: Any) -> Any:
        params = load(*arguments)
        name_sections(params, "")
        return params

    Section.__getattribute__ = noting  # type: ignore[method-assign,assignment]
    tasks.core.params.load_params = loading


def public(section: Any, key: str) -> str:
    """A field's name in params.yaml."""
    return type(section).model_fields[key].alias or key


def name_sections(section: Any, path: str) -> None:
    """Remember a section and those in it by their paths."""
    named[id(section)] = (section, path)
    for key, value in vars(section).items():
        if hasattr(value, "model_fields_set"):
            name_sections(value, f"{path}{public(section, key)}.")


def main() -> None:
    """Run the stage, then write down what it read, however it ended."""
    import yaml

    sys.argv = sys.argv[2:]
    stage, current = " ".join(sys.argv), yaml.safe_load(Path("params.yaml").read_text())
    instance, watched = watch()
    see_settings()
    sys.addaudithook(see_domains)
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        record = {
            "stage": stage,
            "params": current,
            "settings": sorted(settings),
            "files": sorted(files | opened(instance, watched)),
        }
        RECORDS.mkdir(parents=True, exist_ok=True)
        (RECORDS / f"{len(list(RECORDS.iterdir())):04}.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
