"""The verbs of the platform: up, down, keys, backup, restore. Each imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flywheel.answers import Answer, end_in_order, is_quiet, verb
from tasks.core import layout
from tasks.core.layout import home

if TYPE_CHECKING:
    from flywheel.platform.platform import Platform
    from flywheel.platform.up import Step


@verb
def up() -> Answer:
    """Start the platform in the background, and wait until all of it is ready."""
    from flywheel.platform.platform import load
    from flywheel.platform.up import up as bring_up

    end_in_order(signal.SIGTERM)  # so that a half-started platform is stopped again
    platform, started = load(home()), time.monotonic()
    with _progress() as say:
        began = bring_up(platform, say)
    found = {"started": began, **_addresses(platform), "seconds": round(time.monotonic() - started, 1)}
    first = f"The platform is up, after {found['seconds']:.0f} s." if began else "The platform is up already."
    return Answer(found, first + "\n" + _table(found))


def _addresses(platform: Platform) -> dict[str, Any]:
    from flywheel.platform.up import read_key, secret_path

    key = read_key(platform.root, "chat")
    return {
        "chat": f"{platform.params.serving.address}/login?key={key}" if key else None,
        "services": {service.name: service.address for service in platform.services()},
        "logs": str(platform.state),
        "keys": str(secret_path(platform.root, "chat").parent),
    }


def _table(found: dict[str, Any]) -> str:
    services = found["services"]
    lost = f"{services['gateway']}/ (the key is not in {found['keys']}: `flywheel keys add NAME` makes one)"
    rows = {
        "chat page": found["chat"] or lost,
        "API": f"{services['gateway']}/v1 (OpenAI-compatible; keys in {found['keys']})",
        "MLflow": services["mlflow"],
        "Prefect": services["prefect"],
        "engine": services["engine"],
        "logs": found["logs"],
        "stop": "make down",
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in rows.items())


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[list[Step]], None]]:
    """A line a service that changes in place; where the output is no terminal, a line when a service is ready."""
    if is_quiet() or not sys.stdout.isatty():
        told: set[str] = set()

        def tell(steps: list[Step]) -> None:
            for step in steps:
                if step.ready and step.name not in told and not is_quiet():
                    told.add(step.name)
                    click.echo(f"  {step.name:<12} ready after {step.seconds:.0f} s")

        yield tell
        return
    from rich.live import Live
    from rich.text import Text

    def line(step: Step) -> str:
        return f"  {step.name:<12} {step.seconds:>4.0f} s  {'ready' if step.ready else step.note}"

    with Live(Text("Starting …"), refresh_per_second=4, transient=False) as shown:
        yield lambda steps: shown.update(Text("\n".join(map(line, steps))))


@verb
def down() -> Answer:
    """Stop the platform, with everything it started."""
    from flywheel.platform.platform import load
    from flywheel.platform.up import down as bring_down

    ended = bring_down(load(home()))
    words = f"Stopped {ended} processes; nothing is left running." if ended else "Nothing was running."
    return Answer({"stopped": ended, "left": 0}, words)


@verb
@click.argument("action", type=click.Choice(["add", "list", "disable"]))
@click.argument("name", required=False)
@click.option("--role", type=click.Choice(["chat", "review", "admin"]), default="chat", show_default=True)
def keys(action: str, name: str | None, role: str) -> Answer:
    """Make, list and disable the keys that the gateway takes: `keys add NAME --role chat`.

    A new key is shown this once; the store keeps its hash only.
    """
    from tasks.core.params import load_params
    from tasks.store.identities import create_identity, disable_identity, list_identities
    from tasks.store.migrate import migrate
    from tasks.store.store import Store

    if (name is None) != (action == "list"):
        raise click.UsageError("`list` takes no name" if action == "list" else f"{action} whom? Give a name")
    load_params(home() / layout.PARAMS)  # a store in any other folder is one that no gateway reads
    migrate(home=home())
    with contextlib.closing(Store.open(home=home())) as store:
        if action == "add":
            identity, key = create_identity(store, str(name), role)
            found = {"name": identity.name, "role": identity.role, "id": identity.id, "key": key}
            return Answer(found, f"{identity.name}, {identity.role}. The key, shown this once:\n{key}")
        if action == "disable":
            identity = disable_identity(store, str(name))
            return Answer({"name": identity.name, "disabled": True}, f"the key of {identity.name} is worthless now")
        rows = [
            {"name": one.name, "role": one.role, "id": one.id, "disabled": one.disabled_at is not None}
            for one in list_identities(store)
        ]
    lines = [f"{row['name']:<24} {row['role']:<8}{' disabled' if row['disabled'] else ''}".rstrip() for row in rows]
    return Answer({"identities": rows}, "\n".join(lines) or "nobody yet")


existing = click.Path(path_type=Path, dir_okay=False, exists=True)
passphrase_option = click.option(
    "--passphrase-file",
    type=existing,
    help="The passphrase is this file's first line; else it is FLYWHEEL_BACKUP_PASSPHRASE.",
)


@verb
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--recipient", multiple=True, metavar="AGE1…", help="Encrypt for this age public key; may be repeated.")
@passphrase_option
def backup(file: Path, recipient: tuple[str, ...], passphrase_file: Path | None) -> Answer:
    """Write store, registry, state, settings and secrets to FILE, encrypted with age.

    The platform may be up meanwhile.
    """
    from tasks.registry.backup import back_up
    from tasks.registry.sealing import read_passphrase

    end_in_order(signal.SIGTERM)  # what is not encrypted must not stay behind
    passphrase = None if recipient else read_passphrase(passphrase_file, "--recipient")
    found = back_up(home(), file.absolute(), list(recipient), passphrase)
    line = f"{file}: {found['bytes'] / 1e6:.1f} MB, {found['files']} files, {found['versions']} versions"
    return Answer(found, _with_omissions(line, found))


@verb
@click.argument("file", type=existing)
@click.option(
    "--identity-file",
    type=existing,
    help="The age identity (AGE-SECRET-KEY-…) that a backup made with --recipient needs.",
)
@passphrase_option
@click.option("--force", is_flag=True, help="Replace the store, registry and secrets that are here.")
def restore(file: Path, identity_file: Path | None, passphrase_file: Path | None, force: bool) -> Answer:
    """Put back what `flywheel backup` wrote to FILE. All of it is checked before anything is replaced."""
    from flywheel.platform.up import PlatformFailed, running
    from tasks.registry.backup import put_back
    from tasks.registry.sealing import read_identity, read_passphrase

    if running(home()):
        raise PlatformFailed("the platform is up; `make down` stops it, then restore")
    identity = read_identity(identity_file) if identity_file else None
    end_in_order(signal.SIGTERM)
    passphrase = None if identity else read_passphrase(passphrase_file, "--identity-file")
    found = put_back(home(), file.absolute(), identity, passphrase, force)
    line = f"restored {found['files']} files of {found['taken_at']}: {', '.join(found['restored'])}"
    return Answer(found, _with_omissions(line, found))


def _with_omissions(line: str, found: dict[str, Any]) -> str:
    return "\n".join([line, *(f"not included: {text}" for text in found["not_included"])])


VERBS = (up, down, keys, backup, restore)
