"""The verbs of the loop: nightly, approve, promote, rollback, trace. Each imports what it needs when it runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from datetime import datetime

import click

from flywheel.answers import Answer, brief, is_quiet, verb
from tasks.core import layout
from tasks.core.layout import home


@verb
@click.argument("version")
@click.option(
    "--override", metavar="REASON", help="Promote without a passing verdict; the reason is kept with the version."
)
def promote(version: str, override: str | None) -> Answer:
    """Make VERSION (a number, or an alias such as candidate) the champion, and wait until it is served.

    Refused unless its verdict says promote, for this very package, against the present champion.
    """
    from flows.live import live, promoted
    from tasks.registry import deploy

    with live(home()) as (params, registry, store):
        chosen = registry.get(version)
        if override is not None:
            chosen = registry.override(chosen, override)
        before = deploy.promote(registry, store, chosen, deploy.this_person(), "flywheel promote")
        previous, words = promoted(registry, store, params, chosen, before)
        return Answer({"champion": brief(registry.get("champion")), "previous": previous}, words)


@verb
@click.argument("version")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--refuse", is_flag=True, help="Answer no: the version is not promoted.")
def approve(version: str, reason: str, refuse: bool) -> Answer:
    """Answer the question whether VERSION may become champion; a yes promotes it."""
    from flows.live import live, promoted
    from tasks.registry import deploy
    from tasks.store import ledger

    with live(home()) as (params, registry, store):
        chosen = registry.get(version)
        if refuse:
            ledger.decide(store, registry.domain, chosen.number, False, deploy.this_person(), reason)
            return Answer({"refused": chosen.number}, f"version {chosen.number} is refused; the champion stays")
        hours = params.nightly.approval_hours
        before = deploy.approve(registry, store, chosen, deploy.this_person(), reason, hours)
        previous, words = promoted(registry, store, params, chosen, before)
        return Answer({"champion": brief(registry.get("champion")), "previous": previous}, words)


@verb
@click.option("--reason", default="flywheel rollback", help="Kept in the ledger.")
def rollback(reason: str) -> Answer:
    """Make the previous champion the champion again, and wait until it is served."""
    from flows.live import live, rolled_back

    with live(home()) as (params, registry, store):
        champion, previous, served, words = rolled_back(registry, store, params, reason)
        return Answer({"champion": brief(champion), "previous": previous.number, "served": served}, words)


@verb
@click.option("--force", is_flag=True, help="Release even if fewer corrections than nightly.min_examples are new.")
def nightly(force: bool) -> Answer:
    """Run one night now: what users said since the last one becomes a version, is judged, and served if it passes.

    With the platform up the night runs there, as the deployment nightly/nightly; otherwise in this process.
    """
    from flows.live import live
    from flywheel.platform.platform import load
    from flywheel.platform.up import is_up
    from tasks.store.nights import last_nights

    platform = load(home())
    if is_up(platform):
        run = [
            "prefect",
            "--no-prompt",
            "deployment",
            "run",
            "nightly/nightly",
            "--watch",
            "-p",
            f"force={force}".lower(),
        ]
        environment = platform.environment()
    else:
        run = ["flows.run", "--nightly", *(["--force"] if force else [])]
        environment = layout.child_environment()
    output = subprocess.DEVNULL if is_quiet() else None
    done = subprocess.run([sys.executable, "-m", *run], cwd=home(), env=environment, stdout=output)
    with live(home()) as (params, _, store):
        newest = last_nights(store, params.domain, 1)
    rows = asdict(newest[0]).items() if newest else ()
    found = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in rows}
    return Answer(found, f"card: {home() / '.flywheel/nights'}", done.returncode)


@verb
@click.argument("identity", metavar="ID")
@click.option("--all", "everything", is_flag=True, help="Of a version, every setting it was made with.")
def trace(identity: str, everything: bool) -> Answer:
    """Show the story of ID: a version, an answer (chatcmpl-…), a feedback row, or an example.

    A version leads to its commit, data, base and settings; an answer to the corrections that its version had learnt.
    """
    from flows.live import live
    from flywheel.trace import trace as story_of
    from flywheel.trace import words

    with live(home()) as (_, registry, store):
        found = story_of(registry, store, identity, home() / layout.RECEIPT)
    return Answer(found, "\n".join(words(found, everything, home() / layout.PARAMS)))


VERBS = (nightly, approve, promote, rollback, trace)
