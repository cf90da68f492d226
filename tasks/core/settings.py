"""How a settings file becomes typed values: every mistake in it is reported at once, by key, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.core.errors import FlywheelError

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Above = Annotated[float, Field(gt=0.0)]  # a number above zero
Text = Annotated[str, Field(min_length=1)]
Similarity = Annotated[float, Field(gt=0.0, le=1.0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Settings = TypeVar("Settings")


class SettingsError(FlywheelError):
    """A settings file is wrong; the message lists every mistake by file and key."""


class Section(BaseModel):
    """Base of all sections: unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_settings(path: Path, kind: type[Settings]) -> Settings:
    """Read a YAML file as values of a type; raises SettingsError with all mistakes, by key."""
    try:
        return TypeAdapter(kind).validate_python(read_yaml(path))
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in mistakes(error))) from None


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice; PyYAML would take the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if (first := lines.setdefault(key.value, line)) != line:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice, in line {first} and in line {line}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises SettingsError: it is missing, not YAML, or a key stands twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except FileNotFoundError:
        raise SettingsError(f"{path}: the file does not exist") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from None


def mistakes(error: ValidationError) -> list[str]:
    """One line for each mistake pydantic found: the key, then what is wrong with it."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        lines.append(f"{key}: {message}" if key else message)
    return lines
