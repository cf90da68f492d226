"""`auto` takes what this machine has: bf16 only where it is multiplied, and the launch of its GPUs or processors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.core import hardware
from tasks.core.hardware import ask_gpus, launch_here, resolve_precision


def lay_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> Path:
    """An nvidia-smi that gives this answer, first on PATH; returns the file with what it was asked."""
    command = folder / "nvidia-smi"
    command.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n{answer}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder / "asked"


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("echo 8.0; echo 9.0", "bf16"),  # A100, H100
        ("echo 7.5", "fp32"),  # T4: emulated, slower than fp32
        ("echo 7.0; echo 8.0", "fp32"),  # the slowest decides: both would train
        ("echo 12.0", "bf16"),
        ("echo no devices; exit 6", "bf16"),  # planned for another machine
    ],
)
def test_gpus_decide_by_their_compute_capability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_gpus(tmp_path, monkeypatch, answer)
    assert resolve_precision("auto", {"use_cpu": False}) == chosen
    assert ("does not multiply bf16" in capsys.readouterr().out) == (chosen == "fp32")


def test_only_the_gpus_that_may_be_used_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = lay_gpus(tmp_path, monkeypatch, "echo 8.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert ask_gpus("compute_cap") == ["8.0"]
    assert asked.read_text().startswith("-i 1,2 ")


@pytest.mark.parametrize(("flags", "chosen"), [("fpu avx512_bf16", "bf16"), ("fpu amx_int8", "fp32"), (None, "fp32")])
def test_processors_decide_by_their_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, chosen: str
) -> None:
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    assert resolve_precision("auto", {"use_cpu": True}) == chosen


def test_what_is_asked_for_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_gpus(tmp_path, monkeypatch, "echo 7.5")
    assert resolve_precision("bf16", {}) == "bf16"
    assert resolve_precision("fp32", {"use_cpu": True}) == "fp32"


@pytest.mark.parametrize(
    ("answer", "processors", "chosen"),
    [
        ("exit 9", 1, "cpu1"),
        ("exit 9", 16, "cpu"),
        ("echo 0", 16, "gpu1"),
        ("echo 0; echo 1", 16, "gpu8"),  # by as many processes as there are GPUs: read_launch
    ],
)
def test_auto_is_the_launch_of_the_gpus_that_are_here_or_else_of_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, processors: int, chosen: str
) -> None:
    lay_gpus(tmp_path, monkeypatch, answer)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    launch_here.cache_clear()
    try:
        assert launch_here() == chosen
    finally:
        launch_here.cache_clear()
