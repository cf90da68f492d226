"""What the gateway costs: time to the first token and tokens a second, beside talking to the engine directly.

    .venv/bin/python -m tests.bench.bench_gateway                      # against a stub engine, 32 streams
    .venv/bin/python -m tests.bench.bench_gateway --burst              # all 32 in the same instant, again and again
    .venv/bin/python -m tests.bench.bench_gateway --engine http://127.0.0.1:8300/v1 --streams 16

Starts a gateway of its own (`python -m serving`, with its page, a fresh SQLite store and limits out of the way). Both
ways run in turn, several rounds, and the client's own cost is in both. Targets: 10 ms added to the first token at the
median of 32 streams; 95 % of a real engine's tokens a second at 16. --requests are of each stream in
each of the --rounds; --first and --between are the stub's seconds to a first token and between two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import yaml

from tasks.core import layout
from tasks.core.processes import free_port
from tests.bench.table import ROOT, options, show
from tests.serving.gateways import Stub, make_home, make_keys, wait_for

QUESTION = "Do I need a building permit for a shed of fifteen square metres in my garden?"


@dataclass
class Measured:
    """Of one way: seconds to the first token of each request, tokens in all, and the seconds they took."""

    first: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def add(self, other: Measured) -> None:
        self.first += other.first
        self.tokens += other.tokens
        self.seconds += other.seconds


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any], into: Measured) -> None:
    began = time.perf_counter()
    first = None
    async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as reply:
        if reply.status != 200:
            raise SystemExit(f"{url} answers {reply.status}: {(await reply.text())[:300]}")
        async for line in reply.content:
            if not line.startswith(b"data: {"):
                continue
            event = orjson.loads(line[6:])
            choice = event["choices"][0] if event["choices"] else {}
            if first is None and (choice.get("delta") or {}).get("content"):
                first = time.perf_counter() - began
                into.first.append(first)
            if event.get("usage"):
                into.tokens += event["usage"]["completion_tokens"]


async def round_of(url: str, model: str, key: str, options: argparse.Namespace) -> Measured:
    """Every stream asks again as soon as it was answered; they begin spread over one answer's time, or at once."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": options.tokens,
        "temperature": 0.0,
    }
    found = Measured()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await ask(session, url, body, Measured())

        async def one() -> None:
            if not options.burst and not options.engine:
                await asyncio.sleep(random.uniform(0, options.first + options.between * options.tokens))
            for _ in range(options.requests):
                await ask(session, url, body, found)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(options.streams)))
        found.seconds = time.perf_counter() - began
    return found


@contextlib.contextmanager
def child(command: list[str], ready: str, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: httpx.get(ready).is_success, 120, ready)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextlib.contextmanager
def gateway(engine_url: str, streams: int) -> Iterator[tuple[str, str]]:
    """A gateway of its own in front of the engine; yields its URL and a key."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = make_home(Path(folder) / "home", ROOT / layout.BASE_MODEL), free_port()
        shutil.copytree(ROOT / "infra/accelerate", home / "infra/accelerate")
        settings = yaml.safe_load((ROOT / layout.PARAMS).read_text(encoding="utf-8"))
        settings["serving"] |= {"port": port, "requests_per_minute": 10**6, "max_concurrent": 2 * streams}
        (home / layout.PARAMS).write_text(yaml.safe_dump(settings), encoding="utf-8")
        (home / layout.PACKAGES).symlink_to(ROOT / layout.PACKAGES)
        key = make_keys(home)["ann"]
        environment = {"FLYWHEEL_ROOT": str(home), "FLYWHEEL_ENGINE_URL": engine_url}
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "serving"]
        with child(command, f"http://127.0.0.1:{port}/readyz", **environment):
            yield f"http://127.0.0.1:{port}/v1", key


def milliseconds(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100)[round(share * 100) - 1] * 1000


def rows_of(direct: Measured, through: Measured) -> Iterator[tuple[str, ...]]:
    """The rows of the table: milliseconds to the first token, and tokens a second."""
    for name, share in (("first token, median", 0.5), ("first token, 90 %", 0.9), ("first token, 99 %", 0.99)):
        yield compared(f"{name}, ms", milliseconds(direct.first, share), milliseconds(through.first, share))
    yield compared("tokens a second", direct.tokens / direct.seconds, through.tokens / through.seconds)


def compared(name: str, direct: float, through: float) -> tuple[str, ...]:
    return name, f"{direct:.1f}", f"{through:.1f}", f"{through - direct:.1f}", f"{through / direct:.3f}"


def main() -> None:
    """Both ways in turn, then the table."""
    stub_times: dict[str, Any] = {"tokens": 64, "first": 0.1, "between": 0.03, "burst": False}
    asked = options(__doc__, engine="", model="base", streams=32, requests=3, rounds=3, **stub_times)
    direct, through = Measured(), Measured()
    with contextlib.ExitStack() as stack:
        engine = asked.engine
        if not engine:
            stub = Stub().start()
            stack.callback(stub.kill)
            stub.behave(first=asked.first, between=asked.between, tokens=asked.tokens)
            engine = stub.url
        address, key = stack.enter_context(gateway(engine, asked.streams))
        for _ in range(asked.rounds):
            direct.add(asyncio.run(round_of(engine, asked.model, "none", asked)))
            through.add(asyncio.run(round_of(address, "construction", key, asked)))
    title = f"{asked.streams} streams at once, {len(direct.first)} and {len(through.first)} requests"
    show(title, "of the first word and the rate | direct | gateway | added | ratio", rows_of(direct, through))


if __name__ == "__main__":
    main()
