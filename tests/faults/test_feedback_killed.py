"""Feedback that was acknowledged is there exactly once, whoever is killed in between. Real processes, real kills.

A client of four threads posts 300 times and notes each acknowledgement on disk. At random moments it, or the whole
PostgreSQL server, is killed with signal 9 and started again; what was not acknowledged is posted again under its key.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.store.answers import feedback_on
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.answers import serve_answer
from tests.postgres import PostgresServer

POSTS, KILLS, LIMIT_SECONDS = 300, 8, 240

# Posts what is not acknowledged yet; a line is one write to a file opened for appending, so it is whole or not there.
CLIENT = """
import os, random, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tasks.store.errors import StoreUnavailable
from tasks.store.answers import FeedbackIn, record_feedback
from tasks.store.identities import list_identities
from tasks.store.store import Store

url, answer, acknowledged, posts = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
out = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def patiently(call):
    while True:
        try:
            return call()
        except StoreUnavailable:
            time.sleep(0.05)

store = patiently(lambda: Store.open(url))
anna = patiently(lambda: list_identities(store))[0]

def post(number):
    given = FeedbackIn(f"key-{number}", answer, "correction", text=f"更正 {number}")
    row, _ = patiently(lambda: record_feedback(store, anna, given))
    os.write(out, f"{number} {row.id}\\n".encode())
    time.sleep(random.random() / 100)

done = {int(line.split()[0]) for line in acknowledged.read_text().splitlines()}
with ThreadPoolExecutor(4) as pool:
    list(pool.map(post, [number for number in range(posts) if number not in done]))
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own: others must not see it die."""
    with PostgresServer() as started:
        yield started


def prepare(url: str) -> tuple[Store, str]:
    """A store with one answer served to one person."""
    migrate(url)
    store = Store.open(url)
    anna, _ = create_identity(store, "anna", "chat")
    return store, serve_answer(store, anna).id


def run(url: str, answer: str, folder: Path, root: Path, crashes: list[Callable[[], None] | None]) -> list[str]:
    """Post everything through all the kills (None: the client); returns the acknowledgements' lines."""
    acknowledged = folder / "acknowledged"
    acknowledged.touch()
    generator = random.Random(20261122)
    moments = sorted(generator.sample(range(5, POSTS - 20), len(crashes)))
    command = [sys.executable, "-c", CLIENT, url, answer, str(acknowledged), str(POSTS)]
    deadline = time.monotonic() + LIMIT_SECONDS
    client = subprocess.Popen(command, cwd=root)
    try:
        for moment, crash in zip(moments, crashes, strict=True):
            while acknowledged.read_bytes().count(b"\n") < moment:
                assert client.poll() is None, "the client ended by itself"
                assert time.monotonic() < deadline
                time.sleep(generator.random() / 200)
            if crash is not None:
                crash()
            else:
                client.send_signal(signal.SIGKILL)
                assert client.wait() == -signal.SIGKILL
                client = subprocess.Popen(command, cwd=root)
        assert client.wait(LIMIT_SECONDS) == 0
    finally:
        client.kill()
        client.wait()
    return acknowledged.read_text().splitlines()


def check(store: Store, answer: str, lines: list[str]) -> None:
    """Each post has one row, and every acknowledgement names that row."""
    rows = {row.key: row for row in feedback_on(store, answer)}
    assert len(feedback_on(store, answer)) == len(rows) == POSTS
    assert {rows[f"key-{number}"].text for number in range(POSTS)} == {f"更正 {number}" for number in range(POSTS)}
    acknowledged = [line.split() for line in lines]
    assert {int(number) for number, _ in acknowledged} == set(range(POSTS))
    assert all(rows[f"key-{number}"].id == row_id for number, row_id in acknowledged)
    assert [row.seq for row in rows.values()] == sorted(row.seq for row in rows.values())


def test_on_sqlite_through_kills_of_the_client(tmp_path: Path, root: Path) -> None:
    url = f"sqlite:///{tmp_path}/store/flywheel.db"
    store, answer = prepare(url)
    check(store, answer, run(url, answer, tmp_path, root, [None] * KILLS))
    store.close()


def test_on_postgresql_through_kills_of_the_client_and_of_the_server(
    tmp_path: Path, root: Path, server: PostgresServer
) -> None:
    url = server.new_database()
    store, answer = prepare(url)

    def crash() -> None:
        server.kill()
        server.start()

    check(store, answer, run(url, answer, tmp_path, root, [None, crash] * (KILLS // 2)))
    store.close()
