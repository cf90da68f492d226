"""What all verbs share: the registry they ask, how an answer is printed, and the option --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.registry.versions import Registry, Version

Answer = tuple[dict[str, Any], str]


def answer(work: Callable[[], Answer], as_json: bool) -> None:
    """Print what a verb found, as JSON or in words; errors meant for a person end with status 1."""
    from tasks.core.errors import FlywheelError

    try:
        found, words = work()
    except FlywheelError as error:
        click.echo(json.dumps({"error": str(error)}) if as_json else f"{error}", err=not as_json)
        sys.exit(1)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else words)


def brief(version: Version) -> dict[str, Any]:
    """A version as --json shows it."""
    keys = ("verdict", "manifest_sha256", "git_sha", "override")
    return {"version": version.number, "aliases": list(version.aliases), **{k: version.tags.get(k) for k in keys}}


json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def registry() -> Registry:
    """The registry of the domain that params.yaml names."""
    from tasks.core.params import load_params
    from tasks.registry.versions import Registry

    return Registry(load_params(home() / "params.yaml").domain, home())
