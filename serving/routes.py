"""The HTTP API: OpenAI's chat completions and models; ours for feedback, answers, conversations, drafts, the session.

Routes translate between HTTP and ChatService; they decide nothing. Everything here needs an identity.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.types import Receive

from serving import schemas
from serving.answering import Answering, begin, begin_drafts, release
from serving.auth import COOKIE, refuse_other_sites
from serving.errors import ServiceError, documented
from serving.page.pages import domain_examples
from serving.passages import sources_of
from serving.prompt_checks import Wanted
from serving.service import ChatService
from serving.sse import EventStream, stream_of, until_gone, usage_of
from tasks.store.answers import MAX_KEY, FeedbackIn
from tasks.store.schema import AnswerRow, FeedbackRow, Identity

SECURITY = [
    Depends(HTTPBearer(auto_error=False, description="an API key, fw_…", scheme_name="key")),
    Depends(APIKeyCookie(name=COOKIE, auto_error=False, description="set by /login", scheme_name="login")),
]
BODY_ERRORS = (400, 401, 403, 408, 413, 415, 429, 503)


def service_of(request: Request) -> ChatService:
    """The gateway's service."""
    service: ChatService = request.app.state.service
    return service


async def identified(request: Request) -> Identity:
    """Who asks.

    Raises:
        ServiceError: 401 nobody known; 403 a page of another site.
    """
    identity = await service_of(request).auth.identity(request)
    if identity is None:
        message = (
            "give an API key: Authorization: Bearer fw_…" if "authorization" not in request.headers else "wrong key"
        )
        raise ServiceError(401, "invalid_api_key", message)
    if request.method != "GET":
        refuse_other_sites(request)
    request.scope["flywheel"]["identity"] = identity.id
    return identity


Service = Annotated[ChatService, Depends(service_of)]
Who = Annotated[Identity, Depends(identified)]
IdInPath = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
router = APIRouter(prefix="/v1", dependencies=SECURITY, default_response_class=Response)


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON reply."""
    return Response(orjson.dumps(content), status, headers, "application/json")


@router.post(
    "/chat/completions",
    operation_id="createChatCompletion",
    summary="Answer a conversation",
    responses={
        200: {
            "model": schemas.ChatCompletion,
            "description": "the answer, or with stream: true its chunks as server-sent events",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(*BODY_ERRORS, 404),
    },
)
async def create_completion(asked: schemas.ChatRequest, request: Request, service: Service, identity: Who) -> Any:
    """OpenAI's chat completion. Without a temperature the answer is greedy, as the version was evaluated."""
    check_model(asked.model, service)
    n = asked.n or 1
    if n > service.settings.serving.max_n:
        message = f"at most {service.settings.serving.max_n} answers at once, not {n}"
        raise ServiceError(400, "invalid_value", message, param="n")
    answers = await begin(service, identity, wanted_of(asked), n)
    headers = {"x-flywheel-version": answers[0].served.version, "x-flywheel-conversation": answers[0].conversation}
    request.scope["flywheel"] |= {"version": answers[0].served.version, "answer": answers[0].id, "n": n}
    if asked.stream:
        source, seconds = stream_of(answers, asked.model, asked.wants_usage), service.settings.serving.timeout_seconds
        return EventStream(source, headers, seconds, ended=lambda: release(answers))
    await _all_done(answers, request.receive)
    return reply(_completion(answers, asked.model), headers=headers)


def check_model(name: str, service: ChatService) -> None:
    """Raise ServiceError 404 where the gateway has no model of this name."""
    if name != service.settings.domain:
        message = f"the model is called {service.settings.domain}; see GET /v1/models"
        raise ServiceError(404, "model_not_found", message, param="model")


def wanted_of(asked: schemas.ChatRequest) -> Wanted:
    """A request in the service's own words."""
    return Wanted(
        # OpenAI's newer name for the role system is understood too.
        messages=[
            {"role": message.role.replace("developer", "system"), "content": message.content}
            for message in asked.messages
        ],
        conversation=asked.conversation_id,
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_tokens=asked.limit,
        seed=asked.seed,
        stop=asked.stop,
    )


async def _all_done(answers: list[Answering], receive: Receive) -> None:
    """Read every answer to its end, unless the client goes away first."""

    async def finish(answer: Answering) -> None:
        async for _ in answer.events():
            pass

    leaving = asyncio.ensure_future(until_gone(receive))
    reading: asyncio.Future[list[None]] = asyncio.gather(*map(finish, answers))
    try:
        both: set[asyncio.Future[Any]] = {leaving, reading}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise ServiceError(400, "disconnected", "the client went away")
        reading.result()
    finally:
        leaving.cancel()
        reading.cancel()
        await asyncio.gather(leaving, reading, return_exceptions=True)
        release(answers)


def _completion(answers: list[Answering], model: str) -> dict[str, Any]:
    return {
        "id": answers[0].id,
        "object": "chat.completion",
        "created": int(answers[0].created.timestamp()),
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "annotations": answer.annotations},
                "finish_reason": answer.finish,
                "logprobs": None,
                "answer_id": answer.id,
                "sources": answer.sources,
            }
            for index, answer in enumerate(answers)
        ],
        "usage": usage_of(answers),
        "version": answers[0].served.version,
        "conversation_id": answers[0].conversation,
    }


@router.get(
    "/models",
    operation_id="listModels",
    summary="The model of this gateway and the version behind it",
    responses={200: {"model": schemas.ModelList}, **documented(401, 503)},
)
async def list_models(service: Service, identity: Who) -> Any:
    """One model, named after the domain. `version` and `digest` say what answers now."""
    return reply({"object": "list", "data": [_model_card(service)]})


@router.get(
    "/models/{model}",
    operation_id="retrieveModel",
    summary="The model of this gateway, by its name",
    responses={200: {"model": schemas.ModelCard}, **documented(401, 404, 503)},
)
async def retrieve_model(model: str, service: Service, identity: Who) -> Any:
    """What listModels says of it."""
    check_model(model, service)
    return reply(_model_card(service))


def _model_card(service: ChatService) -> dict[str, Any]:
    served = service.traffic.champion
    if served is None:
        raise ServiceError(503, "not_ready", "no version is served yet; see /readyz", retry_after=5)
    card = {"id": service.settings.domain, "object": "model", "created": int(time.time()), "owned_by": "flywheel"}
    return card | {"version": served.version, "digest": served.digest}


@router.post(
    "/feedback",
    operation_id="createFeedback",
    summary="React to an answer that was served to you",
    status_code=201,
    responses={
        201: {"model": schemas.FeedbackReply, "description": "stored, durably"},
        200: {"model": schemas.FeedbackReply, "description": "it was stored before under the same key"},
        **documented(*BODY_ERRORS, 404, 409),
    },
)
async def create_feedback(
    given: schemas.FeedbackRequest,
    request: Request,
    service: Service,
    identity: Who,
    idempotency_key: Annotated[str | None, Header(max_length=MAX_KEY, pattern=r"^[!-~]*$")] = None,
) -> Any:
    """A thumb, rating, correction, comment or choice. The same key again, with the same content, changes nothing.

    A correction may come with its question in `other_words`: they check what was learnt, and are never trained on.
    """
    key = given.idempotency_key or idempotency_key
    if key is None or (idempotency_key or key) != key:
        message = "give one idempotency key, as idempotency_key or in the Idempotency-Key header"
        raise ServiceError(400, "idempotency_key", message, param="idempotency_key")
    reaction = given.model_dump(exclude={"idempotency_key"})
    row, new = await service.give_feedback(identity, FeedbackIn(key, **reaction))
    request.scope["flywheel"] |= {"feedback": row.id, "kind": row.kind, "new": new}
    stored: dict[str, Any] = {"id": row.id, "object": "feedback", "answer_id": row.answer_id, "kind": row.kind}
    stored |= {"idempotency_key": row.key, "created": int(row.created_at.timestamp())}
    return reply(stored, 201 if new else 200)


@router.delete(
    "/feedback/{feedback_id}",
    operation_id="withdrawFeedback",
    summary="Take a reaction back",
    responses={200: {"model": schemas.FeedbackState}, **documented(400, 401, 403, 404, 408, 413, 429, 503)},
)
async def withdraw_feedback(feedback_id: IdInPath, request: Request, service: Service, identity: Who) -> Any:
    """One's own; anybody's for the roles review and admin. It counts nowhere any more, and no night learns it.

    Again is no change.
    """
    return _state(request, await service.take_back(identity, feedback_id))


@router.post(
    "/feedback/{feedback_id}/accept",
    operation_id="acceptFeedback",
    summary="Let a correction count for everybody at once",
    responses={200: {"model": schemas.FeedbackState}, **documented(*BODY_ERRORS, 404)},
)
async def accept_feedback(feedback_id: IdInPath, request: Request, service: Service, identity: Who) -> Any:
    """For the roles review and admin. Again is no change."""
    return _state(request, await service.accept(identity, feedback_id))


def _state(request: Request, row: FeedbackRow) -> Response:
    withdrawn, accepted = row.withdrawn_at is not None, row.accepted_at is not None
    request.scope["flywheel"] |= {"feedback": row.id, "withdrawn": withdrawn, "accepted": accepted}
    told = {"id": row.id, "object": "feedback", "answer_id": row.answer_id, "kind": row.kind}
    return reply(told | {"withdrawn": withdrawn, "accepted": accepted})


@router.get(
    "/answers/{answer_id}",
    operation_id="getAnswer",
    summary="An answer that was served",
    responses={200: {"model": schemas.AnswerReply}, **documented(400, 401, 404, 429, 503)},
)
async def get_answer(answer_id: IdInPath, service: Service, identity: Who) -> Any:
    """One's own; anybody's for the roles review and admin."""
    record = await service.find_answer(identity, answer_id)
    names = ("id", "conversation_id", "messages", "text", "version", "digest", "finish_reason")
    tokens = {"prompt_tokens": record.prompt_tokens or 0, "completion_tokens": record.completion_tokens or 0}
    found = {name: getattr(record, name) for name in names} | {"sources": sources_of(record.text, record.passages)}
    return reply(found | tokens | {"object": "answer", "created": int(record.created_at.timestamp())})


@router.get(
    "/session",
    operation_id="getSession",
    summary="Who asks, and what the domain is called",
    responses={200: {"model": schemas.SessionReply}, **documented(401, 403, 503)},
)
async def get_session(service: Service, identity: Who) -> Any:
    """`domain` is the model's name; `examples` are questions to begin with, none of which is evaluated on."""
    domain = service.settings.domain
    title, examples = domain_examples(domain)
    found = {"object": "session", "name": identity.name, "role": identity.role, "domain": domain}
    return reply(found | {"title": title, "examples": examples})


@router.get(
    "/conversations/{conversation_id}",
    operation_id="getConversation",
    summary="A conversation of one's own, as it is stored",
    responses={200: {"model": schemas.ConversationReply}, **documented(400, 401, 403, 404, 503)},
)
async def get_conversation(conversation_id: IdInPath, service: Service, identity: Who) -> Any:
    """Every answer in order, with its question and what was said about it.

    Drafts that nobody has chosen between have no version and no sources.
    """
    answers, reactions = await service.read_conversation(identity, conversation_id)
    chosen = {row.answer_id for row in reactions if row.kind == "choice"}
    decided = {None, *(answer.draft_id for answer in answers if answer.id in chosen)}
    found = [_answered(answer, reactions, answer.draft_id in decided) for answer in answers]
    return reply({"id": conversation_id, "object": "conversation", "answers": found})


def _answered(answer: AnswerRow, reactions: list[FeedbackRow], open_: bool) -> dict[str, Any]:
    names = ("id", "text", "finish_reason", "draft_id", "position")
    said = ("id", "kind", "thumb", "rating", "text", "other_words")
    own = [row for row in reactions if row.answer_id == answer.id]
    return {name: getattr(answer, name) for name in names} | {
        "question": answer.messages[-1]["content"],
        "version": answer.version if open_ else None,
        "sources": sources_of(answer.text, answer.passages) if open_ else None,
        "feedback": [{name: getattr(row, name) for name in said} for row in own],
        "created": int(answer.created_at.timestamp()),
    }


@router.post(
    "/drafts",
    operation_id="createDrafts",
    summary="Two answers to one question, for a blind choice",
    responses={
        200: {
            "description": "chunks as of a chat completion, choices 0 and 1, as server-sent events",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(*BODY_ERRORS, 404),
    },
)
async def create_drafts(asked: schemas.ChatRequest, request: Request, service: Service, identity: Who) -> Any:
    """Two drafts in random order, in a conversation that is there already; feedback of the kind choice decides.

    Nothing in the reply says which version wrote which.
    """
    check_model(asked.model, service)
    if asked.conversation_id is None or not asked.stream:
        field = "stream" if asked.conversation_id else "conversation_id"
        message = f"drafts are streamed, in a conversation that is there: give {field}"
        raise ServiceError(400, "invalid_value", message, param=field)
    answers = await begin_drafts(service, identity, wanted_of(asked))
    request.scope["flywheel"] |= {"answer": answers[0].id, "n": 2}
    source = stream_of(answers, asked.model, asked.wants_usage, blind=True)
    return EventStream(source, {}, service.settings.serving.timeout_seconds, ended=lambda: release(answers))
