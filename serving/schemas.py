"""What goes in and out over HTTP: OpenAI's fields where OpenAI has them, and a few of ours beside them.

Requests are strict: unknown fields, wrong types, NUL characters and lone surrogates are refused by name.
Sizes that are settings (messages, tokens, n) are checked by the service, which knows the settings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_TEXT = 20_000
MAX_KEY = 200


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold the NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_storable)]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY, pattern=r"^[!-~]+$")]
Stop = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]


class Request(BaseModel):
    """Base of request bodies: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Request):
    """A part of a message; only text is understood here."""

    type: Literal["text"]
    text: Text


class Message(Request):
    """One message of the conversation so far."""

    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)]

    @property
    def text(self) -> str:
        """Its content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Request):
    """What a stream holds besides text."""

    include_usage: bool = False


class ChatRequest(Request):
    """POST /v1/chat/completions. `conversation_id` is ours: it groups the turns of one conversation."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = None
    stop: Stop | Annotated[list[Stop], Field(min_length=1, max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    user: Annotated[str, Field(max_length=MAX_KEY), AfterValidator(_storable)] | None = None
    conversation_id: Id | None = None

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true")
        return self

    @property
    def limit(self) -> int | None:
        """The most tokens the client wants."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


def _up_or_down(thumb: int) -> int:
    if thumb not in (-1, 1):
        raise ValueError("must be 1 (up) or -1 (down)")
    return thumb


# Not Literal[-1, 1]: true equals 1, and would pass.
Thumb = Annotated[int, AfterValidator(_up_or_down), Field(json_schema_extra={"enum": [-1, 1]})]
FeedbackKind = Literal["thumb", "rating", "correction", "comment", "choice"]


class FeedbackRequest(Request):
    """POST /v1/feedback. `idempotency_key` may come as the Idempotency-Key header instead."""

    answer_id: Id
    kind: FeedbackKind
    thumb: Thumb | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_storable)] | None = None
    idempotency_key: Key | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> FeedbackRequest:
        wanted = {"thumb": "thumb", "rating": "rating", "correction": "text", "comment": "text"}.get(self.kind)
        for name in ("thumb", "rating", "text"):
            if name == wanted and getattr(self, name) is None:
                raise ValueError(f"kind {self.kind} needs {name}")
            if name != wanted and getattr(self, name) is not None:
                raise ValueError(f"kind {self.kind} takes no {name}")
        if wanted == "text" and not (self.text or "").strip():
            raise ValueError("text must not be blank")
        return self


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """The model's message."""

    role: Literal["assistant"]
    content: str


class Choice(BaseModel):
    """One answer. `answer_id` is what feedback refers to."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: None = None
    answer_id: str


class ChatCompletion(BaseModel):
    """A whole completion. `id` is the first choice's answer_id."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    version: str
    conversation_id: str


class ModelCard(BaseModel):
    """A model that can be asked, with the version behind its name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: str
    digest: str


class ModelList(BaseModel):
    """GET /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class FeedbackReply(BaseModel):
    """A stored reaction."""

    id: str
    object: Literal["feedback"]
    answer_id: str
    kind: str
    idempotency_key: str
    created: int


class AnswerReply(BaseModel):
    """GET /v1/answers/{id}."""

    id: str
    object: Literal["answer"]
    conversation_id: str
    messages: list[dict[str, Any]]
    text: str
    version: str
    digest: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    created: int


class Health(BaseModel):
    """GET /healthz."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """GET /readyz. `problems` can be there while an older version is served: they say why not the newer one."""

    ready: bool
    version: str | None
    digest: str | None
    challenger: str | None
    problems: dict[str, str]
