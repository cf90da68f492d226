"""An engine that needs no model: it speaks the HTTP of vLLM's server, adapters included, and says who answered.

Every answer begins with the name of the model that gave it, so that a test can see whether one answer came from one
version. `POST /stub` changes how it behaves: seconds to the first token, seconds between tokens, how many tokens,
where to break off, whether it is away, which answers it knows by heart. Run it alone with `python stub_engine.py PORT`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Behaviour:
    """How the stub answers."""

    first: float = 0.0
    between: float = 0.0
    tokens: int = 4
    break_after: int | None = None
    prompt_tokens: int = 7
    down: bool = False
    answers: dict[str, list[str]] = field(default_factory=dict)  # by question: greedy, and sampled
    adapters: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    gone: int = 0


STATE = web.AppKey("state", Behaviour)


def words(model: str, count: int) -> list[str]:
    """What the model says: its name, then numbers."""
    return [model, *(f" {number}" for number in range(1, count))]


async def models(request: web.Request) -> web.Response:
    names = ["base", *request.app[STATE].adapters]
    return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def load(request: web.Request) -> web.Response:
    state, body = request.app[STATE], await request.json()
    if body["lora_name"] in state.adapters:
        return web.json_response({"error": {"message": "already loaded"}}, status=400)
    state.adapters[body["lora_name"]] = body["lora_path"]
    return web.Response(text="Success")


async def unload(request: web.Request) -> web.Response:
    state, body = request.app[STATE], await request.json()
    if state.adapters.pop(body["lora_name"], None) is None:
        return web.json_response({"error": {"message": "not found"}}, status=404)
    return web.Response(text="Success")


async def health(request: web.Request) -> web.Response:
    return web.Response()


async def behave(request: web.Request) -> web.Response:
    for name, value in (await request.json()).items():
        setattr(request.app[STATE], name, value)
    return web.Response()


async def seen(request: web.Request) -> web.Response:
    state = request.app[STATE]
    return web.json_response({"asked": state.asked, "adapters": state.adapters, "gone": state.gone})


def event(model: str, delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-stub",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def chat(request: web.Request) -> web.StreamResponse:
    state, body = request.app[STATE], await request.json()
    state.asked = [*state.asked[-99:], body]
    model = body["model"]
    if model not in ("base", "other") and model not in state.adapters:
        return web.json_response({"error": {"message": f"The model `{model}` does not exist."}}, status=404)
    if state.down:
        return web.json_response({"error": {"message": "away"}}, status=503)
    count = min(state.tokens, body.get("max_tokens") or state.tokens)
    said = words(model, count)
    if known := state.answers.get(body["messages"][-1]["content"]):
        text = known[-1] if body.get("temperature") else known[0]
        said = [text[place : place + 6] for place in range(0, len(text), 6)]
    finish = "length" if count < state.tokens else "stop"
    usage = {"prompt_tokens": state.prompt_tokens, "completion_tokens": count, "total_tokens": count + 7}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(said)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    try:
        await asyncio.sleep(state.first)
        await response.write(event(model, {"role": "assistant", "content": ""}))
        for number, word in enumerate(said):
            if number == state.break_after:
                request.transport.close()  # type: ignore[union-attr]
                return response
            await response.write(event(model, {"content": word}))
            await asyncio.sleep(state.between)
        await response.write(event(model, {}, finish))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
    except (ConnectionResetError, asyncio.CancelledError):
        state.gone += 1
        raise
    return response


def stub_app() -> web.Application:
    app = web.Application()
    app[STATE] = Behaviour()
    app.add_routes(
        [
            web.get("/v1/models", models),
            web.post("/v1/chat/completions", chat),
            web.post("/v1/load_lora_adapter", load),
            web.post("/v1/unload_lora_adapter", unload),
            web.get("/health", health),
            web.post("/stub", behave),
            web.get("/stub", seen),
        ]
    )
    return app


def main() -> None:
    web.run_app(stub_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
