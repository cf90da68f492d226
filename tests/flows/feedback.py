"""Served answers and reactions to them, put into a project's database as the gateway does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tasks.store.feedback import FeedbackIn, record_feedback
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.store import Store, new_id, now
from tests.answers import serve_answer


@contextlib.contextmanager
def store_of(root: Path) -> Iterator[Store]:
    """The project's own database, brought up to date."""
    url = f"sqlite:///{root / '.flywheel/store/flywheel.db'}"
    migrate(url)
    with contextlib.closing(Store.open(url)) as store:
        yield store


def correct(root: Path, count: int, domain: str = "toy", text: str = "Better.") -> list[str]:
    """`count` answers are served to a new person, who corrects each; returns the feedback's ids."""
    with store_of(root) as store:
        person, _ = create_identity(store, new_id("person"), "chat")
        made = []
        for number in range(count):
            question = [{"role": "user", "content": f"Question {number} of {person.name}?"}]
            served = {"text": "Poor.", "version": "base", "digest": "", "created_at": now()}
            answer = serve_answer(store, person, id=new_id("chatcmpl"), domain=domain, messages=question, **served)
            said = FeedbackIn(key=answer.id, answer_id=answer.id, kind="correction", text=f"{text} {number}")
            made.append(record_feedback(store, person, said)[0].id)
        return made
