"""The HTTP API around chat completions: who is signed in, conversations as they are stored, drafts for a blind choice.

What the chat page needs beside OpenAI's fields, and any other client may use.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving import schemas
from serving.answering import begin_drafts, release
from serving.errors import ServiceError, documented
from serving.page.examples import domain_examples
from serving.routes import BODY_ERRORS, SECURITY, IdInPath, Service, Who, check_model, reply, wanted_of
from serving.sse import EventStream, stream_of
from tasks.store.schema import AnswerRow, FeedbackRow

router = APIRouter(prefix="/v1", dependencies=SECURITY, default_response_class=Response)


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

    Drafts that nobody has chosen between have no version.
    """
    answers, said = await service.read_conversation(identity, conversation_id)
    chosen = {row.answer_id for row in said if row.kind == "choice"}
    decided = {None, *(answer.draft_id for answer in answers if answer.id in chosen)}
    found = [_answered(answer, said, answer.draft_id in decided) for answer in answers]
    return reply({"id": conversation_id, "object": "conversation", "answers": found})


def _answered(answer: AnswerRow, said: list[FeedbackRow], open_: bool) -> dict[str, Any]:
    names = ("id", "text", "finish_reason", "draft_id", "position")
    own = [row for row in said if row.answer_id == answer.id]
    return {name: getattr(answer, name) for name in names} | {
        "question": answer.messages[-1]["content"],
        "version": answer.version if open_ else None,
        "feedback": [{name: getattr(row, name) for name in ("kind", "thumb", "rating", "text")} for row in own],
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
