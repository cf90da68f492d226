"""Every test of the store runs on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.store.answers import AnswerRecord, ensure_conversation, record_answer
from tasks.store.identities import Identity, create_identity
from tasks.store.migrate import migrate
from tasks.store.store import Store, new_id
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

AN_ANSWER = AnswerRecord(
    id="",
    conversation_id="",
    identity_id="",
    domain="construction",
    messages=[{"role": "system", "content": "Answer."}, {"role": "user", "content": "What is AB 04?"}],
    text="A contract.",
    version="3",
    digest="d" * 64,
    prompt_sha256="p" * 64,
    finish_reason="stop",
    prompt_tokens=12,
    completion_tokens=4,
    first_token_ms=80.5,
    latency_ms=210.0,
    draft_id=None,
    position=None,
    who="champion",
    created_at=datetime(2026, 11, 21, 22, 30, 0, 123456, tzinfo=UTC),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store/flywheel.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store."""
    migrate(url)
    opened = Store.open(url)
    yield opened
    opened.close()


@pytest.fixture
def anna(store: Store) -> Identity:
    """Somebody."""
    return create_identity(store, "anna", "chat")[0]


@pytest.fixture
def bo(store: Store) -> Identity:
    """Somebody else."""
    return create_identity(store, "bo", "chat")[0]


@pytest.fixture
def serve(store: Store) -> Callable[..., AnswerRecord]:
    """Store an answer for somebody, with one's own values for some fields."""

    def serve(identity: Identity, **changes: Any) -> AnswerRecord:
        domain = changes.get("domain", "construction")
        if "conversation_id" not in changes:
            changes["conversation_id"] = ensure_conversation(store, None, identity, domain)
        answer = replace(AN_ANSWER, id=new_id("ans"), identity_id=identity.id, **changes)
        record_answer(store, answer)
        return answer

    return serve
