"""A gateway with its chat page, in a thread, before an engine that answers from a list: for the browser's tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import text

from serving.served import Served, Traffic
from serving.service import ChatService
from serving.settings import GatewaySettings
from tasks.core import layout
from tasks.core.params import load_params
from tasks.core.processes import free_port
from tasks.store.answers import feedback_on, get_answer
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.schema import AnswerRow, FeedbackRow, Identity
from tasks.store.store import Store


class ListedEngine:
    """An OpenAI-compatible engine: the text for the last question, a word at a time; `down` makes it refuse."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[dict[str, Any]] = []
        self.down = False
        self.pause = 0.0
        self.app = FastAPI()
        self.app.get("/v1/models")(self._models)
        self.app.post("/v1/chat/completions")(self._chat)

    async def _models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "base", "object": "model"}]}

    async def _chat(self, request: Request) -> Any:
        body = await request.json()
        self.asked.append(body)
        if self.down:
            return JSONResponse({"error": {"message": "away"}}, 503)
        texts = self.answers.get(body["messages"][-1]["content"], ["I do not know."])
        return StreamingResponse(self._stream(texts[1 if body["temperature"] and len(texts) > 1 else 0]))

    async def _stream(self, text: str) -> AsyncIterator[str]:
        for number in range(0, len(text), 6):
            choice = {"index": 0, "delta": {"content": text[number : number + 6]}, "finish_reason": None}
            yield f"data: {json.dumps({'choices': [choice]})}\n\n"
            await asyncio.sleep(self.pause)
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield f"data: {json.dumps(last)}\n\n"
        usage = {"prompt_tokens": 20, "completion_tokens": len(text) // 4 + 1, "total_tokens": len(text)}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


class FixedFollower:
    """In the registry follower's place: version 7 answers, version 8 challenges it."""

    def __init__(self, settings: GatewaySettings, store: Store, traffic: Traffic, *rest: Any) -> None:
        traffic.champion = Served("7", "7" * 64, "champion", "You answer questions about building.")
        traffic.challenger = Served("8", "8" * 64, "challenger", "You answer questions about building.")
        traffic.engine_up = True

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass
class Gateway:
    """What a test needs of a running gateway."""

    address: str
    engine: ListedEngine
    service: ChatService
    store: Store

    def new_person(self, name: str) -> tuple[Identity, str]:
        return create_identity(self.store, name, "chat")

    def said_by(self, identity: Identity) -> list[FeedbackRow]:
        """Everything an identity said, in order, straight from the database."""
        return [row for answer in self.answers_to(identity) for row in feedback_on(self.store, answer.id)]

    def answers_to(self, identity: Identity) -> list[AnswerRow]:
        """Every answer an identity was served, in order, straight from the database."""
        with self.store.read() as session:
            query = text("SELECT id FROM answers WHERE identity_id = :who ORDER BY created_at, id")
            ids = list(session.execute(query, {"who": identity.id}).scalars())
        return [found for answer in ids if (found := get_answer(self.store, answer)) is not None]


@contextlib.contextmanager
def running_gateway(home: Path, base_model: Path, database_url: str, drafts: str = "sample") -> Iterator[Gateway]:
    """The real gateway with its real store, before a listed engine and a fixed follower."""
    from serving import app, service

    (home / "data").mkdir(parents=True)
    (home / layout.BASE_MODEL).symlink_to(base_model.resolve())
    migrate(database_url, home)
    store, engine = Store.open(database_url, home), ListedEngine()
    params = load_params(layout.PARAMS)
    params = params.model_copy(update={"serving": params.serving.model_copy(update={"drafts": drafts})})
    real, service.Follower = service.Follower, FixedFollower  # type: ignore[misc, assignment]
    try:
        with running(engine.app) as upstream:
            gateway = app.create_app(GatewaySettings(params, home, database_url, f"{upstream}/v1"))
            with running(gateway) as address:
                yield Gateway(address, engine, gateway.state.service, store)
    finally:
        service.Follower = real  # type: ignore[misc]
        store.close()


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application in a thread; gives its address."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server does not start"
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
