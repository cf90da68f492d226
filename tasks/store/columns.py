"""Column types that mean the same on SQLite and PostgreSQL, and the check that both can hold a text.

PostgreSQL refuses NUL in text and neither database can hold half of a surrogate pair; both are refused here, by
name, before anything is sent. Text is otherwise stored as it is, never normalised or trimmed.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from tasks.store.errors import BadValue

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


def check_json(value: Any, what: str) -> None:
    """Check every text of a JSON value, keys too, as check_text does."""
    if isinstance(value, str):
        check_text(value, what)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, f"a key of {what}")
            check_json(item, what)
    elif isinstance(value, list | tuple):
        for item in value:
            check_json(item, what)


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
        """Write it with sorted keys; NaN is refused."""
        if value is None:
            return None
        check_json(value, "a JSON field")
        try:
            return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadValue(f"a JSON field cannot be written: {error}") from None

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
