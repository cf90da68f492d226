"""A gateway with its chat page, before a stub engine that knows some answers by heart: for the browser's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import text

from serving.follower import Served, Traffic
from serving.service import ChatService
from serving.settings import GatewaySettings
from tasks.store.answers import feedback_on, get_answer
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.schema import AnswerRow, FeedbackRow, Identity
from tasks.store.store import Store
from tests.serving.gateways import Stub, make_home, running


class FixedFollower:
    """In the registry follower's place: version 7 answers, version 8 challenges it."""

    def __init__(self, settings: GatewaySettings, store: Store, traffic: Traffic, *rest: Any) -> None:
        traffic.champion = Served("7", "7" * 64, "base", "You answer questions about building.")
        traffic.challenger = Served("8", "8" * 64, "other", "You answer questions about building.")
        traffic.engine_up = True

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass
class Gateway:
    """What a test needs of a running gateway."""

    address: str
    engine: Stub
    service: ChatService
    store: Store

    def new_person(self, name: str) -> tuple[Identity, str]:
        return create_identity(self.store, name, "chat")

    def said_by(self, identity: Identity) -> list[FeedbackRow]:
        """Everything an identity said, in order, straight from the database."""
        return [row for answer in self.answers_to(identity) for row in feedback_on(self.store, answer.id)]

    def answers_to(self, identity: Identity) -> list[AnswerRow]:
        """Every answer an identity was served, in order, straight from the database."""
        with self.store.read() as session:
            query = text("SELECT id FROM answers WHERE identity_id = :who ORDER BY created_at, id")
            ids = list(session.execute(query, {"who": identity.id}).scalars())
        return [found for answer in ids if (found := get_answer(self.store, answer)) is not None]


@contextlib.contextmanager
def running_gateway(home: Path, base_model: Path, database_url: str, drafts: str = "sample") -> Iterator[Gateway]:
    """The real gateway with its real store, before a stub engine and a fixed follower."""
    make_home(home, base_model)
    migrate(database_url, home)
    engine = Stub().start()
    try:
        with (
            mock.patch("serving.service.Follower", FixedFollower),
            contextlib.closing(Store.open(database_url, home)) as store,
            running(home, engine.url, {}, database_url, drafts=drafts, timeout_seconds=120.0) as gateway,
        ):
            yield Gateway(gateway.url, engine, gateway.service, store)
    finally:
        engine.kill()
