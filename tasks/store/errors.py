"""What can go wrong with the store, each as its own class, so that a caller can answer each in its own way.

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
    """A value cannot be stored: NUL characters, lone surrogates, an unknown kind, a number out of range."""


class NameTaken(StoreError):
    """There is an identity of this name."""


class UnknownIdentity(StoreError):
    """There is no identity of this name."""


class UnknownConversation(StoreError):
    """There is no such conversation."""


class NotYours(StoreError):
    """The conversation is another identity's."""


class UnknownAnswer(StoreError):
    """No such answer was served to this identity."""


class AnswerExists(StoreError):
    """Another answer was recorded under this id."""


class NotADraft(StoreError):
    """A choice was made on an answer that was not one of several drafts."""


class KeyReused(StoreError):
    """The idempotency key was used by this identity for something else."""


class UnknownNight(StoreError):
    """There is no night of this number."""


class NightClosed(StoreError):
    """The night was closed with another outcome."""


class UnknownApproval(StoreError):
    """Nobody asked for this approval."""


class AlreadyDecided(StoreError):
    """The approval was decided the other way."""


class StoreNotEmpty(StoreError):
    """A dump can only be loaded into an empty store."""


class BadDump(StoreError):
    """The dump is damaged, cut off, or not one of ours."""
