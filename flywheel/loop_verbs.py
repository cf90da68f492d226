"""The verbs of the loop: nightly, approve, promote, rollback, trace. Each imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from flywheel.answers import Answer, answer, brief, json_option
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.core.params import Params
    from tasks.registry.versions import Registry, Version
    from tasks.store.store import Store


@contextlib.contextmanager
def _live() -> Iterator[tuple[Params, Registry, Store]]:
    """Settings, registry and store of this repository."""
    from tasks.core.params import load_params
    from tasks.registry.versions import Registry
    from tasks.store.migrate import migrate
    from tasks.store.store import Store

    params = load_params(home() / "params.yaml")
    migrate(home=home())
    with contextlib.closing(Store.open(home=home())) as store:
        yield params, Registry(params.domain, home()), store


@click.command()
@click.argument("version")
@click.option(
    "--override", metavar="REASON", help="Promote without a passing verdict; the reason is kept with the version."
)
@json_option
def promote(version: str, override: str | None, as_json: bool) -> None:
    """Make VERSION (a number, or an alias such as candidate) the champion, and wait until it is served.

    Refused unless its verdict says promote, for this very package, against the present champion.
    """

    def work() -> Answer:
        from flows.serving_watch import serve_or_go_back
        from tasks.registry import deploy

        with _live() as (params, registry, store):
            chosen = registry.get(version)
            if override is not None:
                chosen = registry.override(chosen, override)
            before = deploy.promote(registry, store, chosen, deploy.this_person(), "flywheel promote")
            return _promoted(registry, store, chosen, before, serve_or_go_back(registry, store, chosen, params))

    answer(work, as_json)


@click.command()
@click.argument("version")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--refuse", is_flag=True, help="Answer no: the version is not promoted.")
@json_option
def approve(version: str, reason: str, refuse: bool, as_json: bool) -> None:
    """Answer the question whether VERSION may become champion; a yes promotes it."""

    def work() -> Answer:
        from flows.serving_watch import serve_or_go_back
        from tasks.registry import deploy
        from tasks.store import approvals

        with _live() as (params, registry, store):
            chosen = registry.get(version)
            if refuse:
                approvals.decide(store, registry.domain, chosen.number, False, deploy.this_person(), reason)
                return {"refused": chosen.number}, f"version {chosen.number} is refused; the champion stays"
            hours = params.nightly.approval_hours
            before = deploy.approve(registry, store, chosen, deploy.this_person(), reason, hours)
            return _promoted(registry, store, chosen, before, serve_or_go_back(registry, store, chosen, params))

    answer(work, as_json)


def _promoted(registry: Registry, store: Store, chosen: Version, before: Version | None, served: str) -> Answer:
    after = registry.get("champion")
    previous = before.number if before and before.number != chosen.number else None
    words = f"version {chosen.number} is champion" + (f"; version {previous} is previous" if previous else "") + served
    return {"champion": brief(after), "previous": previous}, words


@click.command()
@click.option("--reason", default="flywheel rollback", help="Kept in the ledger.")
@json_option
def rollback(reason: str, as_json: bool) -> None:
    """Make the previous champion the champion again, and wait until it is served."""

    def work() -> Answer:
        from flows.serving_watch import serving_words
        from tasks.registry import deploy

        with _live() as (params, registry, store):
            champion, previous = deploy.roll_back(registry, store, deploy.this_person(), reason)
            words = f"version {champion.number} is champion again; version {previous.number} is previous"
            served, said = serving_words(store, champion, params)
            return {"champion": brief(champion), "previous": previous.number, "served": served}, words + said

    answer(work, as_json)


@click.command()
@click.option("--force", is_flag=True, help="Release even if fewer corrections than nightly.min_examples are new.")
@json_option
def nightly(force: bool, as_json: bool) -> None:
    """Run one night now: what users said since the last one becomes a version, is judged, and served if it passes.

    With the platform up the night runs there, as the deployment nightly/nightly; otherwise in this process.
    """
    status: list[int] = []

    def work() -> Answer:
        from flywheel.night import run_here, run_on_platform
        from flywheel.platform.platform import load
        from flywheel.platform.up import is_up
        from tasks.store.nights import last_nights

        platform = load(home())
        run = run_on_platform(platform, force, as_json) if is_up(platform) else run_here(home(), force, as_json)
        status.append(run)
        with _live() as (params, _, store):
            newest = last_nights(store, params.domain, 1)
        found = {key: _plain(value) for key, value in asdict(newest[0]).items()} if newest else {}
        return found, f"card: {home() / '.flywheel/nights'}"

    answer(work, as_json)
    sys.exit(status[0])


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


@click.command()
@click.argument("identity", metavar="ID")
@json_option
def trace(identity: str, as_json: bool) -> None:
    """Show the story of ID: a version, an answer (chatcmpl-…), a feedback row, or an example.

    A version leads to its commit, data, base and settings; an answer to the corrections that its version had learnt.
    """

    def work() -> Answer:
        from flywheel.trace import example_words
        from flywheel.trace import trace as story_of
        from tasks.core import layout

        with _live() as (_, registry, store):
            found = story_of(registry, store, identity, home() / layout.RECEIPT)
        return found, "\n".join(example_words(found) if found["kind"] == "example" else _lines(found))

    answer(work, as_json)


def _lines(value: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield f"{indent}{key}"
            yield from _lines(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            yield f"{indent}{key}"
            for entry in item:
                yield from _lines(entry, indent + "    ")
                yield ""
        else:
            words = ", ".join(map(str, item)) if isinstance(item, list) else item
            yield f"{indent}{key:<24} {'' if words is None else words}"


VERBS = (nightly, approve, promote, rollback, trace)
