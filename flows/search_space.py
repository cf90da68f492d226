"""What a search for settings draws from: infra/search.yaml, typed, and one trial's settings out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter, ValidationError, model_validator

from tasks.core.settings import Section, SettingsError, mistakes

if TYPE_CHECKING:
    import optuna


class Range(Section):
    """Numbers from low to high, both included; whole ones where both are written as whole numbers."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 with log")
        return self

    def draw(self, trial: optuna.Trial, name: str) -> int | float:
        """A number for the setting of this name."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


Space = dict[str, Range | list[Any]]


def read_space(path: Path) -> Space:
    """The settings to search through.

    Raises:
        SettingsError: the file is missing or holds mistakes; all of them are listed.
    """
    try:
        space = TypeAdapter(dict[str, Range | list[Any]]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except FileNotFoundError:
        raise SettingsError(f"{path}: the file does not exist") from None
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in mistakes(error))) from None
    if empty := [name for name, of in space.items() if isinstance(of, list) and not of]:
        raise SettingsError(f"{path}: {', '.join(empty)}: nothing to choose from")
    return space


def drawn(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """The settings of one trial by dotted name."""
    return {
        name: trial.suggest_categorical(name, of) if isinstance(of, list) else of.draw(trial, name)
        for name, of in space.items()
    }


def plain(space: Space) -> dict[str, Any]:
    """The space as JSON values."""
    return {name: of if isinstance(of, list) else of.model_dump() for name, of in space.items()}
