"""The live systems, opened for flows and verbs; and what becomes of a promotion at the gateway.

Gateway and flow meet at the database: the gateway writes `served` or `serve_failed` into the ledger. A promotion waits
for that, and is taken back where the new champion cannot be served. Where no gateway answers on its address there is
nothing to wait for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.server import answers
from tasks.core import layout
from tasks.core.params import Params, load_params
from tasks.registry.deploy import approve, promote, roll_back, this_person
from tasks.registry.versions import NOT_SERVED, PromotionRefused, Registry, Version
from tasks.store import ledger
from tasks.store.answers import usage
from tasks.store.migrate import migrate
from tasks.store.store import Store

LOOK_SECONDS = 0.1  # a look is one small query


@contextlib.contextmanager
def live(home: Path, root: Path | None = None) -> Iterator[tuple[Params, Registry, Store]]:
    """Registry and store of the repository at `home`, brought to this version's schema; settings of `root`, or its own.

    Raises:
        SettingsError: params.yaml is wrong.
    """
    params = load_params((root or home) / layout.PARAMS)
    migrate(home=home)
    with contextlib.closing(Store.open(home=home)) as store:
        yield params, Registry(params.domain, home), store


def used(registry: Registry, store: Store) -> dict[str, dict[str, Any]]:
    """What users did with the champion, and with the version before; see tasks.store.answers."""
    named = {name: one for name in ("champion", "previous") if (one := registry.alias(name))}
    return {k: {"version": v.number, **usage(store, v.manifest)} for k, v in named.items()}


def wait_until_served(store: Store, domain: str, version: Version, seconds: float) -> tuple[bool, str]:
    """(served, last failure): whether the ledger says within `seconds` that this version is served."""
    deadline, failure = time.monotonic() + seconds, ""
    while True:
        last = ledger.last(store, domain, "served", "serve_failed")
        if last is not None and last.version == version.number and last.digest == version.manifest:
            if last.event == "served":
                return True, ""
            failure = last.reason
        if time.monotonic() > deadline:
            return False, failure or "the gateway did not take it up in time"
        time.sleep(LOOK_SECONDS)


def _served(store: Store, version: Version, params: Params) -> tuple[bool | None, str]:
    """(served, or None where no gateway answers; what happened, as the end of a sentence)."""
    if not answers(f"{params.serving.address}/healthz", ours=True):
        return None, "; no gateway answers"
    began = time.monotonic()
    done, failure = wait_until_served(store, params.domain, version, params.nightly.serve_minutes * 60)
    return done, f"; served after {time.monotonic() - began:.1f} s" if done else f"; NOT SERVED ({failure})"


def promoted(
    registry: Registry, store: Store, params: Params, version: Version, before: Version | None
) -> tuple[str | None, str]:
    """Wait until a new champion is served, or go back to the one before; see the module.

    Returns:
        The number of the champion before, where there was another, and what happened, in a sentence.
    """
    previous = before.number if before is not None and before.number != version.number else None
    words = f"version {version.number} is champion" + (f"; version {previous} is previous" if previous else "")
    served, problem = _served(store, version, params)
    if served is None:
        return previous, words
    if served:
        return previous, words + problem
    try:
        champion, _ = roll_back(
            registry, store, "release", f"version {version.number} could not be served{problem}", NOT_SERVED
        )
    except PromotionRefused:
        return previous, f"{words}{problem}, and there is no version to go back to"
    return previous, f"{words}{problem}, so version {champion.number} is champion again"


def promoted_by_hand(
    registry: Registry, store: Store, params: Params, name: str, override: str | None, reason: str
) -> tuple[str | None, str]:
    """Make a version champion by this person's command; see `promoted`. `override` stands in for a passing verdict."""
    chosen = registry.get(name)
    if override is not None:
        chosen = registry.override(chosen, override)
    return promoted(registry, store, params, chosen, promote(registry, store, chosen, this_person(), reason))


def decided(registry: Registry, store: Store, params: Params, name: str, yes: bool, why: str) -> tuple[str | None, str]:
    """Answer as this person whether a version may become champion; a yes promotes it. Returns what `promoted` does."""
    chosen = registry.get(name)
    if not yes:
        ledger.decide(store, registry.domain, chosen.number, False, this_person(), why)
        return None, f"version {chosen.number} is refused; the champion stays"
    before = approve(registry, store, chosen, this_person(), why, params.nightly.approval_hours)
    return promoted(registry, store, params, chosen, before)


def rolled_back(
    registry: Registry, store: Store, params: Params, reason: str
) -> tuple[Version, Version, bool | None, str]:
    """Exchange `champion` and `previous` by this person's command, and wait until it is served.

    Returns:
        The new champion, the old one, whether it is served (None: no gateway answers), and all that in a sentence.
    """
    champion, previous = roll_back(registry, store, this_person(), reason)
    served, problem = _served(store, champion, params)
    words = f"version {champion.number} is champion again; version {previous.number} is previous"
    return champion, previous, served, words + problem
