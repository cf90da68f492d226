"""kill -9 of the gateway between feedback posts: what was acknowledged is there, exactly once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasks.core import layout
from tasks.core.processes import free_port
from tests.serving.gateways import DOMAIN, ROOT, make_keys, wait_for

POSTS, KILLS = 60, 3
SERVE = """
import sys
from serving.app import create_app
from serving.server import configuration
from serving.settings import GatewaySettings, load_settings
import uvicorn
settings = load_settings()
uvicorn.Server(configuration(settings, create_app(settings))).run()
"""


class Process:
    """A gateway in a process of its own, which can be killed and started again on its port."""

    def __init__(self, home: Path, engine_url: str) -> None:
        self.home, self.port, self.engine_url = home, free_port(), engine_url
        settings = yaml.safe_load((ROOT / layout.PARAMS).read_text(encoding="utf-8"))
        settings["serving"] |= {"port": self.port}
        (home / layout.PARAMS).write_text(yaml.safe_dump(settings), encoding="utf-8")
        shutil.copytree(ROOT / "infra/accelerate", home / "infra/accelerate")
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        ours = {"FLYWHEEL_ROOT": str(self.home), "FLYWHEEL_ENGINE_URL": self.engine_url, "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, **ours}
        environment.pop("FLYWHEEL_DATABASE_URL", None)
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], env=environment)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.slow
def test_acknowledged_feedback_survives_kills_exactly_once(stub: Any, plain: Any, home: Path) -> None:
    keys = make_keys(home)
    gateway = Process(home, stub.url)
    gateway.start()
    headers = {"authorization": f"Bearer {keys['ann']}"}
    acknowledged: dict[str, str] = {}
    posting = threading.Event()

    def post(number: int) -> None:
        body = {"answer_id": answer, "kind": "comment", "text": f"comment {number}", "idempotency_key": f"key-{number}"}
        while True:
            try:
                reply = httpx.post(f"{gateway.url}/v1/feedback", headers=headers, json=body, timeout=5)
            except httpx.HTTPError:
                time.sleep(0.1)
                continue
            if reply.status_code in (200, 201):
                acknowledged[f"key-{number}"] = reply.json()["id"]
                return
            assert reply.status_code == 503, reply.text
            time.sleep(0.1)

    def post_all() -> None:
        for number in range(POSTS):
            post(number)
        posting.set()

    try:
        wait_for(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200, seconds=90)
        body = {"model": DOMAIN, "messages": [{"role": "user", "content": "How?"}]}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body).json()["id"]
        client = threading.Thread(target=post_all)
        client.start()
        for kill in range(KILLS):
            wait_for(lambda kill=kill: len(acknowledged) >= (kill + 1) * POSTS // (KILLS + 2), seconds=60)
            gateway.kill()
            gateway.start()
        client.join(timeout=120)
    finally:
        gateway.kill()
    assert posting.is_set()
    with sqlite3.connect(home / layout.STORE / "flywheel.db") as connection:
        rows = connection.execute("SELECT key, id FROM feedback").fetchall()
    assert len(rows) == POSTS
    assert dict(rows) == acknowledged
