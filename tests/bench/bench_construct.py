"""10,000 requests to a teacher that fails: throughput beside the bare client, and what a kill in the middle costs.

Run by `make bench`. The teacher is a local server that takes 20 ms for an answer; in the second part one request in
seven fails on its way. The peer is the public `openai` client asked directly, as many at once, without cache, budget
or order: the difference is what these cost.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai

from tasks.core.params import TeacherParams
from tasks.corpus.teacher.teacher import Ask, Endpoint, ReplyCache, Teacher, dialogue
from tests.bench.table import show, timed
from tests.teacher_server import Fault, TeacherServer

REQUESTS, CONCURRENCY, DELAY = 10_000, 64, 0.02
CHILD = "--child"


def faults(number: int) -> Fault:
    """About one request in seven fails on its way."""
    return "drop" if number % 200 == 50 else {3: 429, 7: 500}.get(number % 15)


def asks(count: int) -> list[Ask]:
    return [Ask(messages=dialogue(f"Question {n}"), max_tokens=64, temperature=0.7) for n in range(count)]


def teacher(url: str, folder: Path) -> Teacher:
    settings = TeacherParams(
        kind="url", url=url, model="teacher", temperature=0.7, max_tokens=64, concurrency=CONCURRENCY, retries=8,
        timeout_seconds=30, budget_tokens=10**9, budget_cost=0, price_input=0, price_output=0,
    )  # fmt: skip

    @contextmanager
    def serve() -> Iterator[Endpoint]:
        yield Endpoint(url, "teacher")

    return Teacher(settings, ReplyCache(folder, {"url": "bench", "model": "teacher"}), serve)


def ours(url: str, folder: Path, count: int) -> None:
    """All replies by our client."""
    with teacher(url, folder) as one:
        assert all(reply.error is None for reply in one.ask(asks(count), "bench"))


def bare(url: str, count: int) -> None:
    """The same by the client alone."""

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(CONCURRENCY)
        async with openai.AsyncOpenAI(base_url=url, api_key="EMPTY", max_retries=8) as client:

            async def one(ask: Ask) -> None:
                async with gate:
                    await client.chat.completions.create(
                        model="teacher", messages=[{"role": "user", "content": ask.messages[0].content}], max_tokens=64
                    )

            await asyncio.gather(*(one(ask) for ask in asks(count)))

    asyncio.run(all_of_them())


def throughput(count: int) -> tuple[str, ...]:
    """What requests cost beside the bare client, and a rerun that finds everything in the cache."""
    with TeacherServer(delay=DELAY) as server, tempfile.TemporaryDirectory() as folder:
        peer, _ = timed(lambda: bare(server.url, count))
        first, _ = timed(lambda: ours(server.url, Path(folder), count))
        again, _ = timed(lambda: ours(server.url, Path(folder), count))
    return f"{count:,}", f"{peer:.1f}", f"{first:.1f}", f"{peer / first:.2f}", f"{again:.1f}"


def child(url: str, folder: Path, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, CHILD, url, str(folder), str(count)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "."}, stderr=subprocess.DEVNULL)


def killed() -> tuple[str, ...]:
    """Half of the requests, kill -9, then all of them."""
    with TeacherServer(faults=faults, delay=DELAY) as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        process = child(server.url, folder, REQUESTS)
        while sum(server.paid.values()) < REQUESTS // 2 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.wait()
        kept = {path.stem for path in folder.rglob("*.json")}
        child(server.url, folder, REQUESTS).wait()
        seconds = time.perf_counter() - began
        again = sum(server.paid[key] > 1 for key in kept)
        under_way = sum(server.paid.values()) - len(server.paid)
        replies = len(list(folder.rglob("*.json")))
        failed = server.requests - sum(server.paid.values())
    return f"{seconds:.1f}", *(f"{value:,}" for value in (len(kept), replies, failed, again, under_way))


def main() -> None:
    """Both parts, as tables."""
    title = f"Teacher, {CONCURRENCY} requests at once, {DELAY * 1000:.0f} ms an answer; seconds"
    columns = "requests | bare openai client | ours | of the bare client's throughput | rerun from the cache"
    show(title, columns, map(throughput, (REQUESTS // 8, REQUESTS // 4, REQUESTS // 2)))
    columns = "s | kept at the kill | kept at the end | failed on the way | kept and paid again | paid twice"
    show(f"{REQUESTS:,} requests, one in seven failing, kill -9 half-way, then again", columns, [killed()])


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        ours(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
