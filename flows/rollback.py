"""The rollback flow: the previous champion is champion again, and seen to be served; as `flywheel rollback` does."""

from __future__ import annotations

import contextlib

from prefect import flow
from prefect.states import Completed, Failed, State

from flows.serving_watch import serving_words
from tasks.core import layout
from tasks.core.params import load_params


@flow(name="rollback", retries=0, persist_result=False)
def rollback(reason: str = "rolled back from Prefect") -> State:
    """Exchange `champion` and `previous`; Failed if a running gateway does not serve it."""
    from tasks.registry.deploy import roll_back, this_person
    from tasks.registry.versions import Registry
    from tasks.store.store import Store

    home = layout.home()
    with contextlib.chdir(home), contextlib.closing(Store.open(home=home)) as store:
        params = load_params(layout.PARAMS)
        champion, previous = roll_back(Registry(params.domain, home), store, this_person(), reason)
        words = f"version {champion.number} is champion again; version {previous.number} is previous"
        served, said = serving_words(store, champion, params)
        return Failed(message=words + said) if served is False else Completed(message=words + said)
