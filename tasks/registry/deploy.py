"""Make a version champion, or go back to the one before; and what follows from an alias that somebody moved.

The ledger is the truth, the alias `champion` a request. Our own commands move the alias first, then write the ledger.
Whoever moves it in MLflow, or was killed between the two, asks for the same: a version that may be honoured is
recorded, and one that may not is refused and the alias put back. Safe to run again at any moment.
"""

from __future__ import annotations

import getpass
from contextlib import AbstractContextManager

from tasks.registry.signing import evidence
from tasks.registry.versions import (
    BY_PERSON,
    FORGET,
    ROLLED_BACK,
    PromotionRefused,
    Registry,
    Version,
    check_verdict,
    unservable,
)
from tasks.store import ledger
from tasks.store.schema import LedgerEntry
from tasks.store.store import Store

MADE_CHAMPION = ("promoted", "rolled_back", "override", "restored")
BY_HAND = "alias moved in the registry"


def promote(registry: Registry, store: Store, version: Version, actor: str, reason: str) -> Version | None:
    """Make a version champion; returns the champion before it, or the version itself where it was champion already.

    Raises:
        PromotionRefused: its verdict, or a person who was asked, does not allow it, and it carries no override.
    """
    override = version.tags.get("override", "").strip()
    if not override and (stands := not_approved(store, registry, version)):
        raise PromotionRefused(stands)
    with one_decides(store, registry):
        before = registry.promote(version)
        if not _agree(version, ledger_champion(store, registry.domain)):
            _append(store, registry, "override" if override else "promoted", version, actor, override or reason)
    return before


def roll_back(
    registry: Registry, store: Store, actor: str, reason: str, mark: str = BY_PERSON
) -> tuple[Version, Version]:
    """Make the champion before champion again; returns (new champion, old champion). See Registry.roll_back.

    Raises:
        PromotionRefused: there is no previous champion that was not rolled back itself.
    """
    with one_decides(store, registry):
        history = ledger.entries(store, registry.domain, *MADE_CHAMPION, limit=1000)
        earlier = [entry.version for entry in history if entry.version]
        champion, previous = registry.roll_back(earlier, mark)
        _append(store, registry, "rolled_back", champion, actor, reason)
    return champion, previous


def one_decides(store: Store, registry: Registry) -> AbstractContextManager[None]:
    """Who is champion is read, decided and written by one at a time, so that no verdict is of a champion that was."""
    return store.alone(f"champion-{registry.domain}")


def approve(
    registry: Registry, store: Store, version: Version, actor: str, reason: str, hours: float
) -> Version | None:
    """Answer yes to the question whether this version may be promoted, and promote it; see promote.

    Raises:
        PromotionRefused: nobody asked, the question is older than `hours`, or it was answered no.
    """
    question = ledger.question(store, registry.domain, version.number)
    if question is None or question.digest != version.manifest:
        raise PromotionRefused(f"nobody asked whether version {version.number} may be promoted; use `flywheel promote`")
    if words := ledger.refusal(question, hours):
        raise PromotionRefused(f"{words}; promote it with an override and a reason")
    ledger.decide(store, registry.domain, version.number, True, actor, reason)
    before = promote(registry, store, version, actor, reason or "approved")
    ledger.append(store, registry.domain, "approved", version.number, version.manifest, actor, reason)
    return before


def not_approved(store: Store, registry: Registry, version: Version) -> str:
    """Why a version may not be promoted where a person was asked; "" where nobody was, or the answer was yes."""
    asked = ledger.question(store, registry.domain, version.number)
    if asked is None or asked.digest != version.manifest or asked.approved:
        return ""
    return ledger.refusal(asked) or ledger.WAITS.format(version.number)


def _append(store: Store, registry: Registry, event: str, version: Version, actor: str, reason: str) -> None:
    """Into the ledger, with what the version's signature says."""
    detail = evidence(version.tags)
    ledger.append(store, registry.domain, event, version.number, version.manifest, actor, reason, detail)


def this_person() -> str:
    """Who gives a command on this machine, for the ledger."""
    return getpass.getuser()


def ledger_champion(store: Store, domain: str) -> LedgerEntry | None:
    """The ledger's line that says who is champion."""
    return ledger.last(store, domain, *MADE_CHAMPION)


def may_serve(store: Store, registry: Registry, version: Version) -> str | None:
    """None where the alias on this version may be honoured, else the reason in words."""
    truth = ledger_champion(store, registry.domain)
    if reason := unservable(version) or registry.untrusted(version):
        return reason
    if version.tags.get("override", "").strip():
        return None
    if version.tags.get(ROLLED_BACK):
        return f"version {version.number} was rolled back; only an `override` tag with a reason lifts this"
    if version.tags.get(FORGET):
        return f"version {version.number} knows what was forgotten; only an `override` tag with a reason lifts this"
    if _was_champion(store, registry.domain, version):
        return None
    if reason := not_approved(store, registry, version):
        return reason
    if truth is None:  # a registry that is older than its ledger
        passed = version.tags.get("verdict") == "promote"
        return None if passed else f"version {version.number} has no passing verdict and no `override` tag"
    try:
        check_verdict(version, registry.verdict(version), _version_of(registry, truth))
    except PromotionRefused as refused:
        return str(refused)
    return None


def _was_champion(store: Store, domain: str, version: Version) -> bool:
    champions = ledger.entries(store, domain, *MADE_CHAMPION, limit=1000)
    return (version.number, version.manifest) in ((entry.version, entry.digest) for entry in champions)


def settled_champion(store: Store, registry: Registry) -> Version | None:
    """The version that may be served as champion, after recording or undoing what was done by hand."""
    asked, truth = registry.alias("champion"), ledger_champion(store, registry.domain)
    if _agree(asked, truth):
        return asked
    with one_decides(store, registry):
        asked, truth = registry.alias("champion"), ledger_champion(store, registry.domain)
        if _agree(asked, truth):
            return asked
        if asked is None:
            return _put_back(store, registry, truth, "the alias champion was removed")
        if reason := may_serve(store, registry, asked):
            ledger.append(store, registry.domain, "refused", asked.number, asked.manifest, BY_HAND, reason)
            return _put_back(store, registry, truth, reason)
        _record(store, registry, asked, truth)
        return asked


def _agree(asked: Version | None, truth: LedgerEntry | None) -> bool:
    """Whether alias and ledger name the same champion."""
    if asked is None or truth is None:
        return False
    return (truth.version, truth.digest) == (asked.number, asked.manifest)


def _record(store: Store, registry: Registry, version: Version, truth: LedgerEntry | None) -> None:
    """Write down a move that is honoured, and keep `previous` for the way back."""
    before = _version_of(registry, truth)
    if _was_champion(store, registry.domain, version):
        event, reason = "rolled_back", "an earlier champion again"
    elif override := version.tags.get("override", "").strip():
        event, reason = "override", override
    else:
        event, reason = "promoted", "its verdict passes"
    if before is not None and before.number != version.number:
        registry.client.set_registered_model_alias(registry.domain, "previous", before.number)
        if event == "rolled_back":
            registry.mark_rolled_back(before)
    _append(store, registry, event, version, BY_HAND, reason)


def _put_back(store: Store, registry: Registry, truth: LedgerEntry | None, reason: str) -> Version | None:
    champion = _version_of(registry, truth)
    if champion is not None:
        registry.client.set_registered_model_alias(registry.domain, "champion", champion.number)
        _append(store, registry, "restored", champion, "flywheel", reason)
    elif registry.alias("champion") is not None:
        registry.client.delete_registered_model_alias(registry.domain, "champion")
    return champion


def _version_of(registry: Registry, entry: LedgerEntry | None) -> Version | None:
    if entry is None:
        return None
    return next((version for version in registry.versions() if version.number == entry.version), None)
