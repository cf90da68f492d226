"""A gateway on a real socket, a stub engine in a process of its own, a store and four identities."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn

from tasks.core import layout
from tasks.core.files import write_manifest
from tasks.core.params import Params, load_params
from tasks.core.processes import free_port
from tasks.core.records import Passage, make_passage
from tests.mlflow_store import lay_mlflow

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).parent / "stub_engine.py"
DOMAIN = "construction"


def wait_for(condition: Callable[[], Any], seconds: float = 600.0, what: str = "it") -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError, httpx.HTTPError, psutil.Error):
            if found := condition():
                return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


@dataclass
class Stub:
    """A stub engine's process, which can be killed and started again on the same port."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> Stub:
        self.process = subprocess.Popen([sys.executable, str(STUB), str(self.port)])
        wait_for(self.seen, what="the stub engine's start")
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stub", timeout=5) as reply:
            return dict(json.load(reply))

    def behave(self, **values: Any) -> None:
        content = json.dumps(values).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/stub", data=content, method="POST")
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310


PENALTY = 1.1


def params(**serving: Any) -> Params:
    """The repository's settings with a quick follower, and whatever a test changes in the serving section."""
    loaded = load_params(ROOT / layout.PARAMS)
    changed = {"follow_seconds": 0.1, "timeout_seconds": 20.0} | serving
    evaluate = loaded.evaluate.model_copy(update={"repetition_penalty": PENALTY})
    return loaded.model_copy(update={"serving": loaded.serving.model_copy(update=changed), "evaluate": evaluate})


def make_home(folder: Path, base_model: Path) -> Path:
    """A repository root with what the gateway reads: the domain, the base model's tokenizer and a fresh store."""
    from tasks.store.migrate import migrate

    (folder / layout.BASE_MODEL).mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        shutil.copy(base_model / name, folder / layout.BASE_MODEL / name)
    write_manifest(folder / layout.BASE_MODEL)
    shutil.copytree(ROOT / "domains", folder / "domains")
    migrate(None, folder)
    return lay_mlflow(folder)


PASSAGES = [
    make_passage(kind="question", question="Do I need a permit for a shed?", text="Not up to 30 m2.", source="faq/7"),
    make_passage(kind="document", text="A shed keeps 4.5 metres from the boundary. " * 8, source="law/pbl.txt#0-344"),
    make_passage(kind="correction", question="How high may a shed be?", text="4 metres.", source="fb_1"),
    make_passage(kind="triple", text="Permits are given by the committee.", source="graph.csv:2"),
]


def make_index(folder: Path, passages: Sequence[Passage] = PASSAGES, **settings: Any) -> Path:
    """An index that is searched by words alone, so that it needs no embedder."""
    from tasks.core.tables import write_records
    from tasks.knowledge.search import PASSAGES as ROWS
    from tasks.knowledge.search import SETTINGS, RetrievalSettings

    folder.mkdir(parents=True)
    write_records(folder / ROWS, passages, Passage)
    made = RetrievalSettings(**{"k": 3, "tokens": 400, "threshold": 0.05, "language": "en"} | settings)
    (folder / SETTINGS).write_text(made.model_dump_json())
    return folder


@dataclass
class Gateway:
    """A gateway that runs in a thread of the test."""

    url: str
    home: Path
    app: Any
    keys: dict[str, str]

    @property
    def service(self) -> Any:
        return self.app.state.service

    def headers(self, who: str = "ann") -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[who]}"}


def make_keys(home: Path) -> dict[str, str]:
    from tasks.store.identities import create_identity
    from tasks.store.store import Store

    store = Store.open(None, home)
    roles = {"ann": "chat", "bob": "chat", "rita": "review", "adam": "admin"}
    keys = {name: create_identity(store, name, role)[1] for name, role in roles.items()}
    store.close()
    return keys


@contextlib.contextmanager
def running(
    home: Path, engine_url: str, keys: dict[str, str] | None = None, database_url: str | None = None, **serving: Any
) -> Iterator[Gateway]:
    """A gateway on a free port, until the block ends."""
    from serving.app import create_app
    from serving.server import configuration
    from serving.settings import GatewaySettings

    port = free_port()
    settings = GatewaySettings(params(port=port, **serving), home, database_url, engine_url, None)
    app = create_app(settings)
    server = uvicorn.Server(configuration(settings, app))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), what="the gateway's start")
    assert thread.is_alive(), "the gateway ended at its start"
    scheme = "https" if settings.tls else "http"
    try:
        yield Gateway(f"{scheme}://127.0.0.1:{port}", home, app, make_keys(home) if keys is None else keys)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()
