"""Feedback at a steady rate: 100 posts a second for a minute through the store, on PostgreSQL and on SQLite.

Run by `make bench`. The load is open-loop: a post is due at its moment whether or not the ones before it are done, and
its latency counts from that moment, so waiting in line is not left out. All commits wait for the disk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tasks.store.answers import FeedbackIn, feedback_on, record_feedback
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.answers import serve_answer
from tests.bench.table import options, show
from tests.postgres import PostgresServer

RATE, THREADS = 100, 12


def measure(database: str, url: str, seconds: int) -> list[str]:
    """Post at the rate for so long, each with a correction of 500 characters; a row of the table, in milliseconds."""
    migrate(url)
    store = Store.open(url)
    anna, _ = create_identity(store, "anna", "chat")
    question = [{"role": "user", "content": "What is AB 04? " * 20}]
    answer = serve_answer(store, anna, messages=question, text="A contract. " * 50)
    latencies: list[float] = []
    lock = threading.Lock()

    def post(number: int, due: float) -> None:
        given = FeedbackIn(f"key-{number}", answer.id, "correction", text=f"{number} " + "更好。" * 160)
        record_feedback(store, anna, given)
        with lock:
            latencies.append((time.perf_counter() - due) * 1000)

    count = RATE * seconds
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: store.ready(), range(THREADS)))  # connections made before the clock starts
        start = time.perf_counter()
        futures = []
        for number in range(count):
            due = start + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            futures.append(pool.submit(post, number, due))
        for future in futures:
            future.result()
        took = time.perf_counter() - start
    stored = len(feedback_on(store, answer.id))
    store.close()
    times = [f"{value:.1f}" for value in np.percentile(latencies, (50, 99, 100))]
    return [database, str(count), str(stored), f"{count / took:.1f}", *times]


def main() -> None:
    """Print the table."""
    seconds = options(__doc__, seconds=60).seconds
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as server:
        urls = {"PostgreSQL": server.new_database(), "SQLite": f"sqlite:///{Path(folder)}/bench/store.db"}
        rows = [measure(database, url, seconds) for database, url in urls.items()]
    title = f"Feedback, {RATE} posts a second for {seconds} s, every commit on the disk"
    show(title, "database | posts | stored | achieved /s | p50 ms | p99 ms | worst ms", rows)


if __name__ == "__main__":
    main()
