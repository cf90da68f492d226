"""The promote flow: a version becomes champion, and is seen to be served. `flywheel promote` does the same."""

from __future__ import annotations

import contextlib

from prefect import flow
from prefect.states import Completed, State

from flows.serving_watch import serve_or_go_back
from tasks.core import layout
from tasks.core.params import load_params


@flow(name="promote", retries=0, persist_result=False)
def promote(version: str = "candidate", reason: str = "promoted from Prefect", override: bool = False) -> State:
    """Make a version champion.

    Args:
        version: its number, or an alias.
        reason: kept in the ledger; with `override` also with the version, in place of a passing verdict.
        override: promote although there is no passing verdict.
    """
    from tasks.registry import deploy
    from tasks.registry.versions import Registry
    from tasks.store.store import Store

    home = layout.home()
    with contextlib.chdir(home), contextlib.closing(Store.open(home=home)) as store:
        params = load_params(layout.PARAMS)
        registry = Registry(params.domain, home)
        chosen = registry.get(version)
        if override:
            chosen = registry.override(chosen, reason)
        deploy.promote(registry, store, chosen, deploy.this_person(), reason)
        words = f"version {chosen.number} is champion"
        return Completed(message=words + serve_or_go_back(registry, store, chosen, params))
