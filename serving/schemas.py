"""What goes in and out over HTTP: OpenAI's fields where OpenAI has them, and a few of ours beside them.

Requests are strict about what asks for something: unknown fields, wrong types, NUL characters and lone surrogates are
refused by name. What asks for nothing is let pass: null, and the default values of OpenAI's other fields.
Sizes that are settings (messages, tokens, n) are checked by the service, which knows the settings.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from tasks.store.answers import MAX_KEY
from tasks.store.errors import BadValue
from tasks.store.schema import check_text

MAX_TEXT = 20_000


def _storable(text: str) -> str:
    try:
        return check_text(text)
    except BadValue as error:  # pydantic reports a ValueError only
        raise ValueError(str(error)) from None


Text = Annotated[str, Field(min_length=1), AfterValidator(_storable)]
Statement = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_storable)]
Label = Annotated[str, Field(max_length=MAX_KEY), AfterValidator(_storable)]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY, pattern=r"^[!-~]+$")]
Stop = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
Value = Annotated[str, Field(max_length=512), AfterValidator(_storable)]  # of a request's metadata
Whole = BeforeValidator(lambda given: int(given) if isinstance(given, float) and given.is_integer() else given)
Most = Annotated[int, Field(ge=1, le=1_000_000), Whole]


def _without_nulls(given: Any) -> Any:
    """An object without the keys that are null; anything else as it is."""
    return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given


class Only:
    """Takes null and the values that ask for nothing, of a field of OpenAI's whose purpose is not served here."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def _check(self, given: Any) -> Any:
        given = _without_nulls(given)
        for value in (*self.values, None):
            if given == value and isinstance(given, bool) == isinstance(value, bool):
                return given
        also = "".join(f" or send {json.dumps(value)}" for value in self.values[:1])
        raise ValueError(f"is not served here: leave it out{also}")

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """How pydantic checks it."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """How /openapi.json shows it."""
        return {"enum": [*self.values, None]}


class RequestBody(BaseModel):
    """Base of request bodies: nothing unknown, nothing converted, and null is as good as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, given: Any) -> Any:
        return _without_nulls(given)


class TextPart(BaseModel):
    """A part of a message; only text is understood here."""

    type: Literal["text"]
    text: str


def _joined(content: Any) -> Any:
    """The content as one text, where it comes in parts."""
    if content in ("", []):
        raise ValueError("is empty: write a text, or leave the message out")
    if not isinstance(content, list):
        return content
    texts = []
    for number, part in enumerate(content):
        given = _without_nulls(part) if isinstance(part, dict) else {}
        if given.keys() != {"type", "text"} or given["type"] != "text" or not isinstance(given["text"], str):
            raise ValueError(f'part {number} is no plain text: send {{"type": "text", "text": "…"}} only')
        texts.append(given["text"])
    return "".join(texts)


class ChatMessage(RequestBody):
    """One message of the conversation so far. What a client's library writes beside an assistant's text is let pass."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Text, BeforeValidator(_joined, json_schema_input_type=Text | Annotated[list[TextPart], Field(min_length=1)])
    ]
    name: Label | None = None
    annotations: list[Any] | None = None
    refusal: Annotated[Any, Only("")] = None
    audio: Annotated[Any, Only()] = None
    function_call: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only([])] = None


class StreamOptions(RequestBody):
    """What a stream holds besides text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class AsksNothing(RequestBody):
    """Fields of OpenAI's that change no answer here: what only labels a request is read over, what would ask for
    something is refused by name."""

    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_options: Annotated[Any, Only({}, {"mode": "implicit"})] = None
    prompt_cache_retention: Annotated[Any, Only("in_memory", "in-memory")] = None
    metadata: Annotated[dict[Label, Value], Field(max_length=16), BeforeValidator(_without_nulls)] | None = None
    store: Annotated[Any, Only(False)] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    frequency_penalty: Annotated[Any, Only(0)] = None
    presence_penalty: Annotated[Any, Only(0)] = None
    logit_bias: Annotated[Any, Only({})] = None
    logprobs: Annotated[Any, Only(False)] = None
    top_logprobs: Annotated[Any, Only(0)] = None
    response_format: Annotated[Any, Only({"type": "text"})] = None
    modalities: Annotated[Any, Only(["text"], [])] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only("none", "medium")] = None
    verbosity: Annotated[Any, Only("medium")] = None
    web_search_options: Annotated[Any, Only()] = None
    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, Only(True, False)] = None
    functions: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only("none", "auto")] = None


class ChatRequest(AsksNothing):
    """POST /v1/chat/completions. `conversation_id` is ours: it groups the turns of one conversation."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128), Whole] | None = None
    max_tokens: Most | None = None
    max_completion_tokens: Most | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = None
    stop: (
        Annotated[
            list[Stop],
            Field(max_length=4),
            BeforeValidator(
                lambda stop: [stop] if isinstance(stop, str) else stop,
                json_schema_input_type=Stop | Annotated[list[Stop], Field(max_length=4)],
            ),
        ]
        | None
    ) = None
    seed: Annotated[int, Whole] | None = None
    conversation_id: Id | None = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given is not None and info.data.get("max_tokens", given) not in (None, given):
            raise ValueError("differs from max_tokens; give one of them")
        return given

    @field_validator("stream_options")
    @classmethod
    def _streams(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given is not None and given.include_usage and not info.data.get("stream"):
            raise ValueError("include_usage goes with stream: true")
        return given

    @property
    def limit(self) -> int | None:
        """The most tokens the client wants."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the tokens it took."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


FeedbackKind = Literal["thumb", "rating", "correction", "comment", "choice"]


class FeedbackRequest(RequestBody):
    """POST /v1/feedback: the value of its kind and no other, which the store checks. The key may come as a header."""

    answer_id: Id
    kind: FeedbackKind
    thumb: Annotated[int, Field(json_schema_extra={"enum": [-1, 1]})] | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    text: Statement | None = None
    other_words: Statement | None = None
    idempotency_key: Key | None = None


class TokenUsage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Citation(BaseModel):
    """Which characters of an answer cite a source; the address is that of the answer, `#source-` and its number."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    """OpenAI's form of a citation."""

    type: Literal["url_citation"]
    url_citation: Citation


class AnswerMessage(BaseModel):
    """The model's message."""

    role: Literal["assistant"]
    content: str
    annotations: list[Annotation]


class Source(BaseModel):
    """A passage that an answer was given from; the answer cites it as [number]."""

    number: int
    kind: Literal["document", "question", "triple", "correction"]
    question: str
    text: str
    source: str
    score: float
    cited: bool


class Choice(BaseModel):
    """One answer. `answer_id` is what feedback refers to; `sources` is null where nothing was looked up."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: None = None
    answer_id: str
    sources: list[Source] | None


class ChatCompletion(BaseModel):
    """A whole completion. `id` is the first choice's answer_id."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage
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


class FeedbackState(BaseModel):
    """What became of a reaction: taken back, or as a correction accepted for everybody."""

    id: str
    object: Literal["feedback"]
    answer_id: str
    kind: FeedbackKind
    withdrawn: bool
    accepted: bool


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
    sources: list[Source] | None
    created: int


class SessionReply(BaseModel):
    """GET /v1/session."""

    object: Literal["session"]
    name: str
    role: str
    domain: str
    title: str
    examples: list[str]


class Said(BaseModel):
    """One reaction to an answer."""

    id: str
    kind: FeedbackKind
    thumb: int | None
    rating: int | None
    text: str | None
    other_words: str | None


class Answered(BaseModel):
    """An answer in its conversation. Drafts that nobody has chosen between have no version and no sources."""

    id: str
    question: str
    text: str
    version: str | None
    sources: list[Source] | None
    finish_reason: str
    draft_id: str | None
    position: int | None
    feedback: list[Said]
    created: int


class ConversationReply(BaseModel):
    """GET /v1/conversations/{id}."""

    id: str
    object: Literal["conversation"]
    answers: list[Answered]


class Readiness(BaseModel):
    """GET /readyz. `problems` can be there while an older version is served: they say why not the newer one."""

    ready: bool
    version: str | None
    digest: str | None
    challenger: str | None
    problems: dict[str, str]
