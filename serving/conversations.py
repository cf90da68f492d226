"""The HTTP API around chat completions: who is signed in, conversations as they are stored, drafts for a blind choice.

What the chat page needs beside OpenAI's fields, and any other client may use.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from serving import schemas
from serving.errors import ServiceError, documented
from serving.page.examples import domain_examples
from serving.routes import (
    BODY_ERRORS,
    COOKIE_SECURITY,
    KEY_SECURITY,
    Who,
    check_model,
    release,
    reply,
    service_of,
    wanted_of,
)
from serving.sse import EventStream, stream_of
from tasks.store.answers import AnswerRecord
from tasks.store.feedback import FeedbackRow

router = APIRouter(prefix="/v1", dependencies=[Depends(KEY_SECURITY), Depends(COOKIE_SECURITY)])
IdInPath = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]


@router.get(
    "/session",
    operation_id="getSession",
    summary="Who asks, and what the domain is called",
    response_class=Response,
    responses={200: {"model": schemas.SessionReply}, **documented(401, 403, 503)},
)
async def get_session(request: Request, identity: Who) -> Any:
    """`domain` is the model's name; `examples` are questions to begin with, none of which is evaluated on."""
    domain = service_of(request).settings.domain
    title, examples = domain_examples(domain)
    found = {"object": "session", "name": identity.name, "role": identity.role, "domain": domain}
    return reply(found | {"title": title, "examples": examples})


@router.get(
    "/conversations/{conversation_id}",
    operation_id="getConversation",
    summary="A conversation of one's own, as it is stored",
    response_class=Response,
    responses={200: {"model": schemas.ConversationReply}, **documented(400, 401, 403, 404, 503)},
)
async def get_conversation(conversation_id: IdInPath, request: Request, identity: Who) -> Any:
    """Every answer in order, with its question and what was said about it.

    Drafts that nobody has chosen between have no version.
    """
    rows = await service_of(request).find_conversation(identity, conversation_id)
    decided = {answer.draft_id for answer, said in rows if any(row.kind == "choice" for row in said)}
    answers = [_answered(answer, said, answer.draft_id in {None, *decided}) for answer, said in rows]
    return reply({"id": conversation_id, "object": "conversation", "answers": answers})


def _answered(answer: AnswerRecord, said: list[FeedbackRow], open_: bool) -> dict[str, Any]:
    return {
        "id": answer.id,
        "question": answer.messages[-1]["content"],
        "text": answer.text,
        "version": answer.version if open_ else None,
        "finish_reason": answer.finish_reason,
        "draft_id": answer.draft_id,
        "position": answer.position,
        "feedback": [{"kind": row.kind, "thumb": row.thumb, "rating": row.rating, "text": row.text} for row in said],
        "created": int(answer.created_at.timestamp()),
    }


@router.post(
    "/drafts",
    operation_id="createDrafts",
    summary="Two answers to one question, for a blind choice",
    response_class=Response,
    responses={
        200: {
            "description": "chunks as of a chat completion, choices 0 and 1, as server-sent events",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(*BODY_ERRORS, 404),
    },
)
async def create_drafts(asked: schemas.ChatRequest, request: Request, identity: Who) -> Any:
    """Two drafts in random order, in a conversation that is there already; feedback of the kind choice decides.

    Nothing in the reply says which version wrote which.
    """
    service = service_of(request)
    check_model(asked.model, service)
    if asked.conversation_id is None or not asked.stream:
        field = "stream" if asked.conversation_id else "conversation_id"
        message = f"drafts are streamed, in a conversation that is there: give {field}"
        raise ServiceError(400, "invalid_value", message, param=field)
    answers = await service.drafts(identity, wanted_of(asked))
    request.scope["flywheel"] |= {"answer": answers[0].id, "n": 2}
    source = stream_of(answers, asked.model, asked.wants_usage, blind=True)
    return EventStream(source, {}, service.settings.serving.timeout_seconds, ended=lambda: release(answers))
