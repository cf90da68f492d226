"""The alarm: has a night finished lately? Asked by `flywheel status`, the gateway's metrics and the flow `alarm` alike.

A night counts if it ended with any outcome but `failed`; a reasoned skip is a night too. Before the first night the
clock starts with the first identity, which `flywheel up` makes: a new installation is quiet on its first day.
"""

from __future__ import annotations

from datetime import datetime

from tasks.store.identities import list_identities
from tasks.store.nights import last_nights
from tasks.store.store import Store

LOOK_BACK = 60


def last_finished(store: Store, domain: str) -> datetime | None:
    """When the last night that did not fail ended."""
    nights = last_nights(store, domain, LOOK_BACK)
    return max((night.closed_at for night in nights if night.closed_at and night.outcome != "failed"), default=None)


def overdue(store: Store, domain: str, hours: float, now: datetime) -> str | None:
    """Why somebody should look, in a sentence, or None. `hours` is params.nightly.alarm_hours."""
    finished = last_finished(store, domain)
    days = [identity.created_at for identity in list_identities(store) if identity.created_at is not None]
    since = finished or min(days, default=None)
    if since is None or (now - since).total_seconds() <= hours * 3600:
        return None
    ago = f"{(now - since).total_seconds() / 3600:.0f} h"
    what = f"the last night that finished ended {ago} ago" if finished else f"no night has finished in the first {ago}"
    newest = last_nights(store, domain, 1)
    if newest and newest[0].outcome == "failed":
        what += f"; night {newest[0].number} failed: {newest[0].reason}"
    elif newest and newest[0].outcome is None:
        what += f"; night {newest[0].number} was begun and has not ended"
    return f"{what} (the alarm is set to {hours:g} h)"
