"""The ledger is the truth, the alias `champion` a request: what follows from an alias that somebody moved.

Our own commands move the alias and write the ledger. Whoever moves it in MLflow asks for the same: a version that may
be honoured is recorded, and one that may not is refused and the alias put back. Safe to run again at any moment.
"""

from __future__ import annotations

from tasks.registry.versions import ROLLED_BACK, PromotionRefused, Registry, Version, check_verdict, unservable
from tasks.store import ledger
from tasks.store.schema import LedgerEntry
from tasks.store.store import Store

MADE_CHAMPION = ("promoted", "rolled_back", "override", "restored")
BY_HAND = "alias moved in the registry"


def ledger_champion(store: Store, domain: str) -> LedgerEntry | None:
    """The ledger's line that says who is champion."""
    return ledger.last(store, domain, *MADE_CHAMPION)


def may_serve(store: Store, registry: Registry, version: Version) -> str | None:
    """None where the alias on this version may be honoured, else the reason in words."""
    truth = ledger_champion(store, registry.domain)
    if truth is not None and (truth.version, truth.digest) == (version.number, version.manifest):
        return None
    if reason := unservable(version):
        return reason
    if version.tags.get("override", "").strip():
        return None
    if version.tags.get(ROLLED_BACK):
        return f"version {version.number} was rolled back; only an `override` tag with a reason lifts this"
    if _was_champion(store, registry.domain, version):
        return None
    if truth is None:  # a registry that is older than its ledger
        passed = version.tags.get("verdict") == "promote"
        return None if passed else f"version {version.number} has no passing verdict and no `override` tag"
    return _judged(registry, version, truth)


def _was_champion(store: Store, domain: str, version: Version) -> bool:
    return any(
        entry.event in MADE_CHAMPION and (entry.version, entry.digest) == (version.number, version.manifest)
        for entry in ledger.entries(store, domain, limit=1000)
    )


def _judged(registry: Registry, version: Version, truth: LedgerEntry) -> str | None:
    try:
        check_verdict(version, registry.verdict(version), _version_of(registry, truth))
    except PromotionRefused as refused:
        return str(refused)
    return None


def settled_champion(store: Store, registry: Registry) -> Version | None:
    """The version that may be served as champion, after recording or undoing what was done by hand."""
    asked, truth = registry.alias("champion"), ledger_champion(store, registry.domain)
    if asked is not None and truth is not None and (truth.version, truth.digest) == (asked.number, asked.manifest):
        return asked
    if asked is None:
        return _put_back(store, registry, truth, "the alias champion was removed")
    if reason := may_serve(store, registry, asked):
        ledger.append(store, registry.domain, "refused", asked.number, asked.manifest, BY_HAND, reason)
        return _put_back(store, registry, truth, reason)
    _record(store, registry, asked, truth)
    return asked


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
    ledger.append(store, registry.domain, event, version.number, version.manifest, BY_HAND, reason)


def _put_back(store: Store, registry: Registry, truth: LedgerEntry | None, reason: str) -> Version | None:
    champion = _version_of(registry, truth)
    if champion is not None:
        registry.client.set_registered_model_alias(registry.domain, "champion", champion.number)
        ledger.append(store, registry.domain, "restored", champion.number, champion.manifest, "flywheel", reason)
    elif registry.alias("champion") is not None:
        registry.client.delete_registered_model_alias(registry.domain, "champion")
    return champion


def _version_of(registry: Registry, entry: LedgerEntry | None) -> Version | None:
    if entry is None:
        return None
    return next((version for version in registry.versions() if version.number == entry.version), None)
