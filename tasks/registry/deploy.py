"""Make a version champion, or go back to the one before, and write it into the ledger.

The alias moves first. A kill between the two leaves an alias that the reconciler (reconcile.py) honours and records.
"""

from __future__ import annotations

import getpass

from tasks.core.clock import now
from tasks.registry.reconcile import MADE_CHAMPION, ledger_champion
from tasks.registry.versions import BY_PERSON, PromotionRefused, Registry, Version
from tasks.store import approvals, ledger
from tasks.store.schema import Approval
from tasks.store.store import Store


def promote(registry: Registry, store: Store, version: Version, actor: str, reason: str) -> Version | None:
    """Make a version champion; returns the champion before it, or the version itself where it was champion already.

    Raises:
        PromotionRefused: its verdict does not allow it, and it carries no override.
    """
    before = registry.promote(version)
    override = version.tags.get("override", "").strip()
    _write(registry, store, "override" if override else "promoted", version, actor, override or reason)
    return before


def roll_back(
    registry: Registry, store: Store, actor: str, reason: str, mark: str = BY_PERSON
) -> tuple[Version, Version]:
    """Make the champion before champion again; returns (new champion, old champion). See Registry.roll_back.

    Raises:
        PromotionRefused: there is no previous champion that was not rolled back itself.
    """
    history = ledger.entries(store, registry.domain, limit=1000)
    earlier = [entry.version for entry in history if entry.event in MADE_CHAMPION and entry.version]
    champion, previous = registry.roll_back(earlier, mark)
    ledger.append(store, registry.domain, "rolled_back", champion.number, champion.manifest, actor, reason)
    return champion, previous


def approve(
    registry: Registry, store: Store, version: Version, actor: str, reason: str, hours: float
) -> Version | None:
    """Answer yes to the question whether this version may be promoted, and promote it; see promote.

    Raises:
        PromotionRefused: nobody asked, the question is older than `hours`, or it was answered no.
    """
    open_question(registry, store, version, hours)
    approvals.decide(store, registry.domain, version.number, True, actor, reason)
    before = promote(registry, store, version, actor, reason or "approved")
    ledger.append(store, registry.domain, "approved", version.number, version.manifest, actor, reason)
    return before


def open_question(registry: Registry, store: Store, version: Version, hours: float) -> Approval:
    """The question about a version, if it may still be answered with yes; see approve."""
    question = approvals.get(store, registry.domain, version.number)
    if question is None or question.digest != version.manifest:
        raise PromotionRefused(f"nobody asked whether version {version.number} may be promoted; use `flywheel promote`")
    if question.approved is False:
        raise PromotionRefused(f"version {version.number} was refused by {question.decided_by}: {question.reason}")
    if question.approved is None and (now() - question.asked_at).total_seconds() > hours * 3600:
        raise PromotionRefused(
            f"the question about version {version.number} is older than {hours:g} hours and has expired; "
            "release again, or promote it with --override and a reason"
        )
    return question


def _write(registry: Registry, store: Store, event: str, version: Version, actor: str, reason: str) -> None:
    truth = ledger_champion(store, registry.domain)
    if truth is None or (truth.version, truth.digest) != (version.number, version.manifest):
        ledger.append(store, registry.domain, event, version.number, version.manifest, actor, reason)


def this_person() -> str:
    """Who gives a command on this machine, for the ledger."""
    return getpass.getuser()
