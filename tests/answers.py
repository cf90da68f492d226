"""Served answers, put into a store as the gateway does; every test changes the fields that it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tasks.store.answers import ensure_conversation, record_answer
from tasks.store.schema import AnswerRow, Identity
from tasks.store.store import Store, new_id

AN_ANSWER = AnswerRow(
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


def serve_answer(store: Store, identity: Identity, **changes: Any) -> AnswerRow:
    """Store an answer for somebody, in a new conversation unless `changes` names one."""
    fields = {"id": new_id("ans"), "identity_id": identity.id} | changes
    if "conversation_id" not in fields:
        domain = fields.get("domain", AN_ANSWER.domain)
        fields["conversation_id"] = ensure_conversation(store, None, identity, domain)
    answer = replace(AN_ANSWER, **fields)
    record_answer(store, answer)
    return answer
