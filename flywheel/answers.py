"""What all verbs share: how an answer is printed, the option --json, and the live systems that they ask."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tasks.core.errors import FlywheelError
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.registry.versions import Registry, Version


json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


class Answer(NamedTuple):
    """What a verb found, for --json; the same in words; its exit status."""

    found: dict[str, Any]
    words: str
    status: int = 0


def verb(function: Callable[..., Answer]) -> click.Command:
    """A command that prints what the function returns, as JSON or in words; its docstring is the help.

    An error meant for a person ends it with status 1, and so does a file that cannot be read or written.
    """

    @click.command(function.__name__.replace("_", "-"))
    @json_option
    @functools.wraps(function)
    def run(as_json: bool, **options: Any) -> None:
        # What is said on the way must not stand in the JSON.
        aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
        try:
            with aside:
                answer = function(**options)
        except (FlywheelError, OSError) as error:
            click.echo(_refusal(str(error)) if as_json else f"{error}", err=not as_json)
            sys.exit(1)
        click.echo(json.dumps(answer.found, indent=2, ensure_ascii=False) if as_json else answer.words)
        sys.exit(answer.status)

    return run


class Verbs(click.Group):
    """The verbs. With --json a wrong call is told in JSON too; whoever interrupts gets status 130, as from a shell."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a verb and end the process with its status."""
        try:
            sys.exit(super().main(args, *rest, **extra | {"standalone_mode": False}))
        except click.ClickException as error:
            error.show()
            if "--json" in (sys.argv[1:] if args is None else args):
                click.echo(_refusal(error.format_message()))
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Aborted!", err=True)
            sys.exit(128 + signal.SIGINT)


def _refusal(why: str) -> str:
    return json.dumps({"error": why}, ensure_ascii=False)


def end_in_order(*signals: signal.Signals) -> None:
    """End by SystemExit, so that what was begun is closed; an Exception would count a search's trial as failed."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in signals:
        signal.signal(number, leave)


def is_quiet() -> bool:
    """Whether nothing may be printed but the answer: it will be JSON."""
    return bool(click.get_current_context().params["as_json"])


def brief(version: Version) -> dict[str, Any]:
    """A version as --json shows it."""
    keys = ("verdict", "manifest_sha256", "git_sha", "override")
    return {"version": version.number, "aliases": list(version.aliases), **{k: version.tags.get(k) for k in keys}}


def registry() -> Registry:
    """The registry of the domain that params.yaml names."""
    from tasks.core.params import load_params
    from tasks.registry.versions import Registry

    return Registry(load_params(home() / "params.yaml").domain, home())
