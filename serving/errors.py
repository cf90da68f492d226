"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}, whatever went wrong.

A message says what is wrong and what would be right; it never repeats a text, a key or a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
_PATH = re.compile(r"(?:/[\w.@+~-]+)+/(?=[\w.@+~-])")


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(BaseModel):
    """The body of every reply that is not a success."""

    error: ErrorBody


class ServiceError(Exception):
    """A request that cannot be answered. `retry_after` is in seconds and becomes the Retry-After header."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """OpenAI's name for this kind of error."""
        return TYPES.get(self.status, "server_error")

    def body(self) -> dict[str, Any]:
        """The reply's body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """The headers that belong to it."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, self.retry_after))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error replies of a route, for /openapi.json."""
    retry = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
    replies: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        replies[status] = {"model": ErrorReply, "description": TYPES[status]}
        if status in (429, 503):
            replies[status]["headers"] = retry
    return replies


# The validator's kinds of error in plain words; what it says itself speaks of its own types.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "no such field is known here: leave it out",
    "json_invalid": "the body is not valid JSON",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "string_too_short": "must not be empty",
    "string_too_long": "must have {max_length} characters or fewer",
    "string_pattern_mismatch": "holds characters that are not allowed: it must match {pattern}",
    "too_short": "must not be empty",
    "too_long": "must have {max_length} entries or fewer",
    "value_error": "{error}",
}


def validation_message(errors: list[Mapping[str, Any]]) -> tuple[str, str | None]:
    """What is wrong with a body, in words, and the first field it concerns. The values themselves are left out."""
    lines, first = [], None
    for item in errors[:5]:
        place = [str(part)[:80] for part in item["loc"] if part not in ("body", "query", "path", "header")]
        field = None if item["type"] == "json_invalid" else ".".join(place).encode(errors="replace").decode() or None
        first = first or field
        message = _WORDS.get(item["type"], "is not what is wanted here; see /openapi.json").format(
            **item.get("ctx", {})
        )
        lines.append(f"{field}: {message}" if field else message)
    if len(errors) > 5:
        lines.append(f"and {len(errors) - 5} more")
    return "; ".join(lines), first


def without_paths(text: str) -> str:
    """A reason for people outside: folders of this machine are cut down to the last name."""
    return _PATH.sub("", text)
