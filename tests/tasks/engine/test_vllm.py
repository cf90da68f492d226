"""A real vLLM on the tiny model, run as the platform runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.core.processes import free_port
from tasks.engine.client import Engine, EngineError
from tasks.engine.parity import check
from tests.environments import need_engine
from tests.preferences import write_adapter

from .conftest import make_home, probes_of

pytestmark = pytest.mark.slow
# Nats a token: both sides count in fp32 and differ in the order of sums only.
TOLERANCE = 0.01
READY = 240


class Server:
    """`python -m tasks.engine.serve` in a folder, started where it does not run; its sockets are in another."""

    def __init__(self, home: Path, sockets: str, port: int) -> None:
        self.home, self.sockets, self.engine = home, sockets, Engine(f"http://127.0.0.1:{port}/v1")
        self.serve: subprocess.Popen[bytes] | None = None

    def ready(self) -> psutil.Process:
        """Its process, once it answers."""
        if self.serve is None or self.serve.poll() is not None:
            ours = {"PYTHONPATH": str(Path(__file__).parents[3]), "VLLM_RPC_BASE_PATH": self.sockets}
            command = [sys.executable, "-m", "tasks.engine.serve"]
            self.serve = subprocess.Popen(command, cwd=self.home, env=os.environ | ours, start_new_session=True)
        deadline = time.monotonic() + READY
        while not self.engine.ready():
            assert self.serve.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        return psutil.Process(self.serve.pid)

    def stop(self) -> None:
        if self.serve is not None:
            self.serve.terminate()
            self.serve.wait(60)


@pytest.fixture(scope="module")
def server(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_engine(root)
    port = free_port()
    home = make_home(tmp_path_factory.mktemp("home"), root, tiny_model, port=port, max_model_tokens=2048)
    with tempfile.TemporaryDirectory() as sockets:  # a socket's path has a hundred characters at most
        server = Server(home, sockets, port)
        with server.engine:
            yield server
            server.stop()


@pytest.fixture
def engine(server: Server) -> Iterator[Engine]:
    """The engine; what a test loads into it is unloaded after."""
    server.ready()
    yield server.engine
    for name in set(server.engine.models()) - {"base"}:
        server.engine.unload_adapter(name)


def test_an_adapter_is_loaded_and_unloaded_without_a_restart(engine: Engine, adapters: dict[str, Path]) -> None:
    assert engine.models() == ["base"]
    engine.load_adapter("first", adapters["first"])
    engine.load_adapter("first", adapters["first"])
    assert sorted(engine.models()) == ["base", "first"]
    engine.unload_adapter("first")
    engine.unload_adapter("first")
    assert engine.models() == ["base"]


def test_an_adapter_that_is_not_there_or_would_be_ignored_at_the_output_layer_is_refused(
    engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=str(tmp_path / "nothing")):
        engine.load_adapter("nothing", tmp_path / "nothing")
    wide = write_adapter(tmp_path / "wide", tiny_model, modules=("q_proj", "lm_head"))
    with pytest.raises(EngineError, match="lm_head"):
        engine.load_adapter("wide", wide)
    assert engine.models() == ["base"]


def test_base_and_both_adapters_answer_on_one_engine_as_they_were_evaluated(
    engine: Engine, adapters: dict[str, Path], tiny_model: Path
) -> None:
    for name, path in adapters.items():
        engine.load_adapter(name, path)
    reports = {name: check(engine, name, probes_of(tiny_model, path), TOLERANCE) for name, path in adapters.items()}
    # Every slot for an adapter is in use now, and the base model still is the base model.
    reports["base"] = check(engine, "base", probes_of(tiny_model, None), TOLERANCE)
    assert [name for name, report in reports.items() if not report.ok] == [], reports
    other = check(engine, "first", probes_of(tiny_model, adapters["second"]), 0.05)
    assert not other.ok and "loss" in other.reason


def test_requests_for_different_adapters_at_once_do_not_mix(
    engine: Engine, adapters: dict[str, Path], tiny_model: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for name, path in adapters.items():
        engine.load_adapter(name, path)
    paths = {"base": None, **adapters}
    asked = [(name, probe) for name, path in paths.items() for probe in probes_of(tiny_model, path)] * 4
    with ThreadPoolExecutor(len(asked)) as pool:
        losses = list(pool.map(lambda pair: engine.answer_nll(pair[0], pair[1].prompt, pair[1].reference), asked))
    differences = [abs(loss - probe.nll) for loss, (_, probe) in zip(losses, asked, strict=True) if loss is not None]
    assert len(differences) == len(asked) and max(differences) <= TOLERANCE


def test_a_prompt_of_ids_is_continued_as_the_same_chat_is(engine: Engine, tiny_model: Path) -> None:
    probe = probes_of(tiny_model, None)[0]
    assert engine.complete("base", probe.prompt_ids, 12) == engine.chat("base", probe.messages, 12)


def test_the_public_client_uses_it_as_a_teacher(engine: Engine) -> None:
    from openai import OpenAI

    teacher = OpenAI(base_url=f"{engine.root}/v1", api_key="none")
    messages = [{"role": "user", "content": "Write a question about building permits."}]
    reply = teacher.chat.completions.create(model="base", messages=messages, max_tokens=8, n=2, temperature=0.7, seed=1)
    assert len(reply.choices) == 2 and reply.usage is not None and reply.usage.completion_tokens <= 16
    stream = teacher.chat.completions.create(model="base", messages=messages, max_tokens=8, stream=True)
    assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1] in ("length", "stop")


def test_kill_9_of_the_engine_leaves_no_process_behind_and_ends_serve_with_1(server: Server) -> None:
    serve = server.ready()
    family = serve.children(recursive=True)
    servers = [process for process in family if "vllm.entrypoints.openai.api_server" in " ".join(process.cmdline())]
    assert len(servers) >= 1 and len(family) >= 3
    next(process for process in servers if process.ppid() != serve.pid).send_signal(signal.SIGKILL)
    assert server.serve is not None and server.serve.wait(60) == 1
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert not server.engine.ready()
