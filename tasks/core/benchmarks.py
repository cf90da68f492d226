"""Benchmarks of a domain's own choice: domains/<name>/evaluation.yaml, typed.

Each is a data-set configuration of OpenCompass, its own by name or one in the domain's folder, with what is read of its
results and what the gate asks of it. A domain without the file has none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tasks.core import layout
from tasks.core.files import digest_of, folder_digest, sha256_file
from tasks.core.intervals import SMALLEST_SAMPLE
from tasks.core.settings import Above, Section, SettingsError, mistakes, read_yaml

FILE = "evaluation.yaml"
DATA_VARIABLE = "COMPASS_DATA_CACHE"  # where OpenCompass's own loaders look
TAKEN = {*layout.EVALUATION_SETS, "facts", "feedback", "kept"}  # names of our own sets

Word = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$", max_length=64)]


class NonInferiority(Section):
    """No more than this may be lost against the champion, in the metric's unit."""

    non_inferiority: Above


class Floor(Section):
    """The candidate's own mean has to reach this, with its whole interval."""

    floor: Annotated[float, Field(allow_inf_nan=False)]


class Benchmark(Section):
    """One entry of evaluation.yaml."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
    opencompass: Annotated[str, Field(pattern=r"^[\w-]*$")] = ""  # a configuration among OpenCompass's own
    config: str = ""  # a configuration in the domain's folder
    data: str = ""  # the folder where its data lie; relative to the domain's
    only: Annotated[list[str], Field(default_factory=list)]  # abbreviations of data sets in the configuration
    metric: Word = "correct"  # the value in the results' details that counts, item by item
    higher_is_better: bool = True
    most: Annotated[int, Field(ge=SMALLEST_SAMPLE)] | None = None
    gate: Literal["report", "superiority"] | NonInferiority | Floor = "report"

    @model_validator(mode="after")
    def _whole(self) -> Benchmark:
        if bool(self.opencompass) == bool(self.config):
            raise ValueError("name either `opencompass:` or `config:`")
        if self.name in TAKEN:
            raise ValueError(f"name: {self.name} is a set of Flywheel's own; choose another name")
        if isinstance(self.gate, Floor) and not self.higher_is_better:
            raise ValueError("gate: a floor needs a metric of which more is better")
        return self

    def config_file(self, folder: Path) -> Path | None:
        """The configuration in the domain's `folder`; None where OpenCompass brings it."""
        return folder / self.config if self.config else None

    def data_folder(self, folder: Path) -> Path:
        """Where the data lie; by default beside the configuration, or where OpenCompass looks of its own accord.

        Raises SettingsError: neither evaluation.yaml nor the environment says.
        """
        if self.data:
            return folder / self.data
        if path := self.config_file(folder):
            return path.parent
        if known := os.environ.get(DATA_VARIABLE):
            return Path(known)
        raise SettingsError(
            f"{folder / FILE}: {self.name}: nothing is fetched, so say in `data:` (or in {DATA_VARIABLE}) which folder "
            "holds OpenCompass's folder `data`"
        )

    def definition(self, folder: Path) -> str:
        """The digest of what is asked: configuration, data, and what is taken of them; not what the gate makes of it.

        Raises SettingsError: the data are not there.
        """
        data = self.data_folder(folder)
        found = folder_digest(data)
        if found is None:
            raise SettingsError(f"{folder / FILE}: {self.name}: there is no folder {data}; nothing is fetched")
        asked = self.model_dump(mode="json", exclude={"gate", "higher_is_better", "data", "config"})
        path = self.config_file(folder)
        # A configuration may read others beside it.
        beside = {one.name: sha256_file(one) for one in sorted(path.parent.glob("*.py"))} if path else {}
        return digest_of([asked, path.name if path else "", beside, found])


def load_benchmarks(name: str, root: Path = Path()) -> tuple[Benchmark, ...]:
    """The benchmarks of a domain of the repository `root`; raises SettingsError with every mistake by name."""
    folder = root / layout.DOMAINS / name
    if not (folder / FILE).is_file():
        return ()
    try:
        found = TypeAdapter(tuple[Benchmark, ...]).validate_python(read_yaml(folder / FILE) or ())
    except ValidationError as error:
        raise SettingsError("\n".join(f"{folder / FILE}: {line}" for line in mistakes(error))) from None
    if problems := _problems(found, folder):
        raise SettingsError("\n".join(f"{folder / FILE}: {problem}" for problem in problems))
    return found


def _problems(found: tuple[Benchmark, ...], folder: Path) -> list[str]:
    names = [one.name for one in found]
    problems = [f"{name} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for one in found:
        if one.config and not one.data and Path(one.config).parent == Path():
            problems.append(f"{one.name}: config: its data are what lies beside it, so it needs a folder of its own")
        for key, value in (("config", one.config), ("data", one.data)):
            outside = ".." in Path(value).parts or (key == "config" and Path(value).is_absolute())
            if outside:
                problems.append(f"{one.name}: {key}: {value} must lie inside {folder.name}")
            elif value and not ((folder / value).is_file() if key == "config" else (folder / value).is_dir()):
                problems.append(f"{one.name}: {key}: {folder / value} does not exist; nothing is fetched")
    return problems
