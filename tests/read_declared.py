"""Compares what stages read (tests/reads.py) with what dvc.yaml declares for them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

# Read, and rightly not declared: how an engine runs here, and what other machines would cost.
FREE = ["engine", "infra/prices.yaml"]
# Declared, and read only where settings ask for it that no run here has, by stage.
RARE = {
    "pretrain": ["*"],  # off by default; the default domain has no documents
    "construct": ["construct", "data/base_model", "seed"],  # the teacher is off, no triples
    "index": ["construct.chunk.overlap"],  # the default domain has no documents
    "package": ["pretrain"],
    "gate": [
        *("data/start", "gate.domain_rouge_margin"),  # a night that goes on from a champion
        *("gate.declined_margin", "gate.kept_margin", "gate.right_margin"),  # likewise
        "gate.domain_nll_margin",  # smaller forms and `flywheel learn`, which run outside the graph
        "domains/construction",  # evaluation.yaml, with benchmarks of a domain's own
        "reports/receipt.parquet",  # so that nothing is judged without its receipt
    ],
    "pairs": ["data/start", "reward.max_tokens"],  # a night; an online alignment
    "reward": ["*"],  # no online alignment is run by `make test`
    "align": ["data/mix", "models/reward"],  # likewise
    "sft": ["feedback.learning_rate_share"],  # a night that goes on from a champion
    "select": ["data/base_model", "domain", "domains/construction", "seed", "select"],  # select.method: all
    "mix": [
        *("construct", "mix.boost"),  # mix.boost.share: 0
        *("data/start", "dedup.semantic_threshold", "feedback.replay_examples"),  # a night that goes on from a champion
        "feedback.start",  # a night, or a renewal, with corrections
    ],
}
# Declared for what it stands for: the libraries that are installed from it.
STANDS_FOR = ["infra/locks/main.txt"]
LOCK = "infra/locks/packages.txt"
Found = dict[str, list[str]]


def stages_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Each stage of dvc.yaml by its module with arguments."""
    found = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    return {fields["cmd"].removeprefix("${python} -m "): {**fields, "name": name} for name, fields in found.items()}


def value_of(params: Any, key: str) -> Any:
    """A setting by its dotted path."""
    for part in key.split("."):
        params = params[part]
    return params


def resolved(entries: Iterable[Any], params: Any) -> list[str]:
    """Entries of dvc.yaml as a run with these settings has them; DVC keeps each with its options in a mapping."""
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    return [re.sub(r"\$\{([\w.]+)\}", lambda found: str(value_of(params, found[1])), name) for name in names]


def leaves(params: Any, path: str) -> Iterator[str]:
    """The settings below a path of params.yaml, by their full paths."""
    value = value_of(params, path) if path else params
    if not isinstance(value, dict):
        yield path
        return
    for key in value:
        yield from leaves(params, f"{path}.{key}".lstrip("."))


def under(path: str, parents: Iterable[str], mark: str) -> bool:
    """Whether a path is one of the parents or lies below one of them."""
    return any(path == parent or path.startswith(parent + mark) for parent in parents)


def declared(stage: dict[str, Any], params: Any) -> tuple[list[str], list[str], list[str]]:
    """Settings, dependencies and outputs of one stage."""
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return tuple(resolved(entries, params) for entries in (stage.get("params", []), stage.get("deps", []), outs))  # type: ignore[return-value]


def is_code(folder: Path, dep: str) -> bool:
    """Whether a dependency is a folder of modules, which tests/contract/test_pipeline.py compares."""
    return dep.startswith("tasks/") and any((folder / dep).glob("*.py"))


def read_files(record: dict[str, Any]) -> set[str]:
    """The files a run read; files of a package stand for the list of packages."""
    return {LOCK if path.startswith(".flywheel/packages/") else path for path in record["files"]}


def undeclared(folder: Path, records: list[dict[str, Any]]) -> Found:
    """What stages read and dvc.yaml does not say, by stage."""
    stages, found = stages_of(folder), defaultdict[str, set[str]](set)
    for record in records:
        stage = stages[record["stage"]]
        params, deps, outs = declared(stage, record["params"])
        settings = {leaf for path in record["settings"] for leaf in leaves(record["params"], path)}
        found[stage["name"]] |= {key for key in settings if not under(key, [*params, *FREE], ".")}
        found[stage["name"]] |= {path for path in read_files(record) if not under(path, [*deps, *outs, *FREE], "/")}
    return {name: sorted(keys) for name, keys in found.items() if keys}


def unread(folder: Path, records: list[dict[str, Any]]) -> Found:
    """What dvc.yaml says a stage reads and no run of it did, by stage."""
    stages, found = stages_of(folder), dict[str, set[str]]()
    for record in records:
        stage = stages[record["stage"]]
        params, deps, _ = declared(stage, record["params"])
        settings = {leaf for path in record["settings"] for leaf in leaves(record["params"], path)}
        files = read_files(record)
        left = {leaf for path in params for leaf in leaves(record["params"], path)} - settings
        data = [dep for dep in deps if not is_code(folder, dep)]
        left |= {dep for dep in data if not any(under(path, [dep], "/") for path in files)}
        name = stage["name"]
        rare = [*RARE.get(name, []), *STANDS_FOR]
        left = set() if "*" in rare else {key for key in left if not under(key, rare, ".")}
        found[name] = found[name] & left if name in found else left
    return {name: sorted(keys) for name, keys in found.items() if keys}
