"""The rollback flow: the previous champion is champion again, and seen to be served; as `flywheel rollback` does."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from prefect import flow
from prefect.states import Completed, Failed, State

from flows.serving_watch import serving_words
from tasks import layout
from tasks.params import load_params


@flow(name="rollback", retries=0, persist_result=False)
def rollback(reason: str = "rolled back from Prefect") -> State:
    """Exchange `champion` and `previous`; Failed if a running gateway does not serve it."""
    from tasks.registry.deploy import roll_back, this_person
    from tasks.registry.versions import Registry
    from tasks.store.store import Store

    home = Path(os.environ.get("FLYWHEEL_ROOT") or ".").absolute()
    with contextlib.chdir(home), contextlib.closing(Store.open(home=home)) as store:
        params = load_params(layout.PARAMS)
        champion, previous = roll_back(Registry(params.domain, home), store, this_person(), reason)
        words = f"version {champion.number} is champion again; version {previous.number} is previous"
        served, said = serving_words(store, champion, params)
        return Failed(message=words + said) if served is False else Completed(message=words + said)
