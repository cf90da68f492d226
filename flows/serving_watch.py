"""After a promotion: wait until the gateway serves the new champion, or go back to the one before.

Gateway and flow meet at the database: the gateway writes `served` or `serve_failed` into the ledger. Where no gateway
answers on its address there is nothing to wait for.
"""

from __future__ import annotations

import contextlib
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.core.params import Params
    from tasks.registry.versions import Registry, Version
    from tasks.store.store import Store

LOOK_SECONDS = 0.1  # a look is one small query


def gateway_answers(params: Params) -> bool:
    """Whether a gateway is alive at the configured address."""
    scheme = "https" if params.serving.tls_certificate else "http"
    host = "127.0.0.1" if params.serving.host == "0.0.0.0" else params.serving.host  # noqa: S104 - asked on loopback
    context = ssl._create_unverified_context() if scheme == "https" else None  # noqa: S323 - only "is it alive"
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"{scheme}://{host}:{params.serving.port}/healthz", timeout=3, context=context) as reply,  # noqa: S310
    ):
        return bool(reply.status == 200)
    return False


def wait_until_served(store: Store, domain: str, version: Version, seconds: float) -> tuple[bool, str]:
    """(served, last failure): whether the ledger says within `seconds` that this version is served."""
    from tasks.store import ledger

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


def serving_words(store: Store, version: Version, params: Params) -> tuple[bool | None, str]:
    """(served, or None where no gateway answers; what happened, as the end of a sentence)."""
    if not gateway_answers(params):
        return None, "; no gateway answers"
    began = time.monotonic()
    done, failure = wait_until_served(store, params.domain, version, params.nightly.serve_minutes * 60)
    return done, f"; served after {time.monotonic() - began:.1f} s" if done else f"; NOT SERVED ({failure})"


def serve_or_go_back(registry: Registry, store: Store, version: Version, params: Params) -> str:
    """What became of a promotion at the gateway, as the end of a sentence; see the module."""
    from tasks.registry.deploy import roll_back
    from tasks.registry.versions import NOT_SERVED, PromotionRefused

    served, words = serving_words(store, version, params)
    if served is None:
        return ""
    if served:
        return words
    reason = f"version {version.number} could not be served{words}"
    try:
        champion, _ = roll_back(registry, store, "release", reason, NOT_SERVED)
    except PromotionRefused:
        return f"{words}, and there is no version to go back to"
    return f"{words}, so version {champion.number} is champion again"
