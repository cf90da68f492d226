"""The tables, typed; what the store gives back are their rows, loaded whole. A test compares them with the migrations.

What must never be wrong is a constraint of the database, not a habit of the code: one row for an identity and key, one
unfinished night a domain, one open question an approval, feedback only on an answer that is there.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from sqlalchemy.types import TypeDecorator

from tasks.store.errors import BadValue

# The newest migration. Kept here so that opening a store needs no Alembic.
HEAD = "0006"

ROLES = ("chat", "review", "admin")
FINISH_REASONS = ("stop", "length", "cancelled", "error")
WHO = ("champion", "challenger", "sample")
HOW = ("sample", "challenger")
KINDS = ("thumb", "rating", "correction", "comment", "choice")
OUTCOMES = ("skip", "promote", "hold", "reject", "failed", "nothing")

Number = BigInteger().with_variant(Integer, "sqlite")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for every NUL and lone surrogate. For what a model wrote, never for what people say."""
    return UNSTORABLE.sub("�", text)


def check_text(value: str, what: str = "the text") -> str:
    """The text as it is.

    Raises:
        BadValue: it is no text, or holds a NUL character or a lone surrogate; the message says where.
    """
    if not isinstance(value, str):
        raise BadValue(f"{what} must be text, not {type(value).__name__}")
    found = UNSTORABLE.search(value)
    if found is not None:
        kind = "a NUL character" if found.group() == "\x00" else "half of a surrogate pair"
        raise BadValue(f"{what} holds {kind} at position {found.start()}, which cannot be stored; remove it")
    return value


class Words(TypeDecorator[str]):
    """Text of any length, checked."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Check before it is sent."""
        return None if value is None else check_text(value)


class Json(TypeDecorator[Any]):
    """JSON as text: the same bytes in both databases, so a dump of one is a dump of the other."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write it with sorted keys; NaN is refused, and so are texts that `check_text` refuses."""
        if value is None:
            return None
        try:
            written = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadValue(f"a JSON field cannot be written: {error}") from None
        check_text(written.replace("\\\\", "").replace("\\u0000", "\0"), "a JSON field")
        return written

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read it back."""
        return None if value is None else json.loads(value)


class Moment(TypeDecorator[datetime]):
    """A point in time, in UTC and aware of it. SQLite has no time zones, so there UTC is what is stored."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a time without a zone is refused, since it could be anybody's."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise BadValue(f"the time {value.isoformat()} has no time zone; give one, such as UTC")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """As UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """A check that a column holds one of these words."""
    words = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=f"{column}_known")


def at_most_one(name: str, *columns: str, where: str) -> Index:
    """An index that allows one row with these values where a condition holds."""
    return Index(name, *columns, unique=True, sqlite_where=text(where), postgresql_where=text(where))


def owner(column: str) -> ForeignKey:
    """A foreign key whose row goes with its owner."""
    return ForeignKey(column, ondelete="CASCADE")


class Base(MappedAsDataclass, DeclarativeBase):
    """Base of all tables. Constraints have names, so that a later migration can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Words, datetime: Moment}  # noqa: RUF012  (SQLAlchemy's own form)


class Identity(Base):
    """Somebody who may use the gateway. Only the hash of a key is here."""

    __tablename__ = "identities"
    __table_args__ = (one_of("role", ROLES),)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    key_sha256: Mapped[str] = mapped_column(repr=False)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None] = mapped_column(default=None, compare=False)


class ConversationRow(Base):
    """A conversation belongs to one identity and one domain."""

    __tablename__ = "conversations"
    id: Mapped[str] = mapped_column(primary_key=True)
    identity_id: Mapped[str] = mapped_column(owner("identities.id"), index=True)
    domain: Mapped[str]
    created_at: Mapped[datetime]


class DraftRow(Base):
    """Two answers to one prompt, shown side by side to choose from."""

    __tablename__ = "drafts"
    __table_args__ = (one_of("how", HOW),)
    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(owner("conversations.id"), index=True)
    how: Mapped[str]
    created_at: Mapped[datetime]


class AnswerRow(Base):
    """A served completion. `messages` is what was asked, under the system prompt; times are in milliseconds.

    `passages` are those that it was answered from, each with its score; None where nothing was looked up.
    """

    __tablename__ = "answers"
    __table_args__ = (
        UniqueConstraint("draft_id", "position"),
        CheckConstraint("(draft_id IS NULL) = (position IS NULL)", name="position_in_draft"),
        CheckConstraint("position IN (0, 1)", name="position_known"),
        one_of("finish_reason", FINISH_REASONS),
        one_of("who", WHO),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(owner("conversations.id"), index=True)
    identity_id: Mapped[str] = mapped_column(owner("identities.id"), index=True)
    domain: Mapped[str]
    messages: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    text: Mapped[str]
    version: Mapped[str]
    digest: Mapped[str]
    prompt_sha256: Mapped[str]
    finish_reason: Mapped[str]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    first_token_ms: Mapped[float | None]
    latency_ms: Mapped[float | None]
    draft_id: Mapped[str | None] = mapped_column(owner("drafts.id"))
    position: Mapped[int | None]
    who: Mapped[str]
    created_at: Mapped[datetime]
    passages: Mapped[list[dict[str, Any]] | None] = mapped_column(Json, default=None)


class Night(Base):
    """One run of the nightly flow. `rows` is how many it claimed."""

    __tablename__ = "nights"
    __table_args__ = (
        one_of("outcome", OUTCOMES),
        CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name="closed_with_outcome"),
        at_most_one("uq_nights_unfinished", "domain", where="closed_at IS NULL"),
        {"sqlite_autoincrement": True},
    )
    number: Mapped[int] = mapped_column(Number, primary_key=True, init=False)
    domain: Mapped[str]
    started_at: Mapped[datetime]
    flow_run_id: Mapped[str]
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    outcome: Mapped[str | None] = mapped_column(default=None)
    snapshot: Mapped[str | None] = mapped_column(default=None)
    version: Mapped[str | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(default="")
    rows: Mapped[int] = mapped_column(default=0)


class FeedbackRow(Base):
    """What somebody said about an answer. `seq` is the order of arrival, `night` the one that claimed it, for good.

    A row that was withdrawn counts nowhere; a correction that was accepted counts for everybody. `other_words` are the
    corrected question put differently: they check what was learnt, and are never learnt from.
    """

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("identity_id", "key"),
        one_of("kind", KINDS),
        CheckConstraint("thumb IN (-1, 1)", name="thumb_known"),
        CheckConstraint("rating BETWEEN 1 AND 5", name="rating_known"),
        Index("ix_feedback_domain_night", "domain", "night"),
        {"sqlite_autoincrement": True},
    )
    seq: Mapped[int] = mapped_column(Number, primary_key=True, init=False)
    id: Mapped[str] = mapped_column(unique=True)
    key: Mapped[str]
    answer_id: Mapped[str] = mapped_column(owner("answers.id"), index=True)
    identity_id: Mapped[str] = mapped_column(owner("identities.id"))
    domain: Mapped[str]
    kind: Mapped[str]
    thumb: Mapped[int | None]
    rating: Mapped[int | None]
    text: Mapped[str | None]
    created_at: Mapped[datetime]
    night: Mapped[int | None] = mapped_column(Number, ForeignKey("nights.number"), default=None)
    withdrawn_at: Mapped[datetime | None] = mapped_column(default=None)
    accepted_at: Mapped[datetime | None] = mapped_column(default=None)
    accepted_by: Mapped[str | None] = mapped_column(default=None)
    other_words: Mapped[str | None] = mapped_column(
        CheckConstraint("other_words IS NULL OR kind = 'correction'", name="other_words_of_correction"), default=None
    )


class LedgerEntry(Base):
    """What happened to a domain's versions, in order; rows are only ever added."""

    __tablename__ = "ledger"
    __table_args__ = (Index("ix_ledger_domain_seq", "domain", "seq"), {"sqlite_autoincrement": True})
    seq: Mapped[int] = mapped_column(Number, primary_key=True, init=False)
    domain: Mapped[str]
    event: Mapped[str]
    version: Mapped[str | None]
    digest: Mapped[str | None]
    actor: Mapped[str]
    reason: Mapped[str]
    detail: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime]


class Approval(Base):
    """A question to a person: may this version be promoted? `approved` is None while it is open."""

    __tablename__ = "approvals"
    __table_args__ = (
        CheckConstraint("(decided_at IS NULL) = (approved IS NULL)", name="decided_with_answer"),
        at_most_one("uq_approvals_open", "domain", "version", where="decided_at IS NULL"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(Number, primary_key=True, init=False)
    domain: Mapped[str]
    version: Mapped[str]
    digest: Mapped[str]
    night: Mapped[int | None] = mapped_column(Number, ForeignKey("nights.number"))
    asked_at: Mapped[datetime]
    decided_at: Mapped[datetime | None] = mapped_column(default=None)
    approved: Mapped[bool | None] = mapped_column(default=None)
    decided_by: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")


class Forgotten(Base):
    """That something was forgotten: the SHA-256 of its name, never what it said; see tasks/store/forgotten.py."""

    __tablename__ = "forgotten"
    certificate: Mapped[str] = mapped_column(primary_key=True)
    domain: Mapped[str] = mapped_column(primary_key=True)
    name_sha256: Mapped[str] = mapped_column(primary_key=True)
