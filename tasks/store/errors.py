"""What can go wrong with the store; what a caller answers in its own way has a class of its own.

Every message is meant for a person. None of them holds a key, a text that was stored, or whether a row of somebody
else exists.
"""

from __future__ import annotations

from tasks.core.errors import FlywheelError


class StoreError(FlywheelError):
    """The base of everything the store refuses or fails at."""


class StoreOutdated(StoreError):
    """The database has no schema, or not the one this code needs."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, or did not answer in time. The same call may be tried again."""


class BadValue(StoreError):
    """A value cannot be stored; `field` is its name in the record where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnknownConversation(StoreError):
    """There is no such conversation or draft, or it is another identity's."""


class UnknownAnswer(StoreError):
    """No such answer was served to this identity."""


class UnknownFeedback(StoreError):
    """There is no such feedback, or it is another identity's."""


class NotADraft(StoreError):
    """A choice was made on an answer that was not one of several drafts."""


class KeyReused(StoreError):
    """The idempotency key was used by this identity for something else."""
