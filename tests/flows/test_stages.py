"""DVC's graph as the flow reads it, and one stage as a child process, on a real DVC repository."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows import stages as dvc
from tests.flows.toy import STAGES, environment, set_wanted


@pytest.fixture
def lines() -> list[str]:
    return []


def run(project: Path, name: str, lines: list[str], **options: bool) -> dvc.StageRun:
    return dvc.run_stage(project, name, environment(project), lambda text, whole: lines.append(text), **options)


def test_the_graph_is_dvcs_own(toy: Path) -> None:
    """The gate waits for exactly the stages that write what it depends on; each comes after those it waits for."""
    with dvc.open_repo(toy) as repo:
        stages = dvc.read_stages(repo)
        upstream = {stage.name: set(stage.upstream) for stage in stages}
        assert upstream.keys() == STAGES.keys()
        assert upstream["gate"] == {"champion", "package", "evaluate_candidate", "evaluate_champion"}
        assert dvc.with_upstream(stages, "package") == {"package", "sft", "mix", "base_model"}
        seen: set[str] = set()
        for stage in stages:
            assert set(stage.upstream) <= seen
            seen.add(stage.name)
        assert dvc.changed_stages(repo, stages) == [stage.name for stage in stages]


def test_a_stage_runs_once_and_is_cached_after(toy: Path, lines: list[str]) -> None:
    assert not run(toy, "base_model", lines).cached
    assert run(toy, "base_model", lines).cached
    assert not run(toy, "base_model", lines, force=True).cached
    with dvc.open_repo(toy) as repo:
        assert dvc.is_current(repo, "base_model") and not dvc.is_current(repo, "sft")


def test_outputs_that_dvc_can_bring_back_count_as_cached(toy: Path, lines: list[str]) -> None:
    run(toy, "mix", lines)
    (toy / "data/mix/train.jsonl").unlink()
    assert run(toy, "mix", lines).cached
    assert (toy / "data/mix/train.jsonl").read_text() == "{}\n"


def test_a_torn_rwlock_file_is_removed_and_a_whole_one_kept(toy: Path) -> None:
    rwlock = toy / ".dvc/tmp/rwlock"
    with dvc.open_repo(toy) as repo:
        rwlock.parent.mkdir(exist_ok=True)
        rwlock.write_text('{"read": {}}')
        assert not dvc.fix_rwlock(repo)
        rwlock.write_text('{"read": {"/x')
        assert dvc.fix_rwlock(repo) and not rwlock.exists()


def test_another_dvc_command_on_the_same_files_is_waited_for(toy: Path, lines: list[str]) -> None:
    for name in ("base_model", "mix"):
        run(toy, name, lines)
    set_wanted(toy, sleep=300)
    command = [sys.executable, "-m", "dvc", "repro", "-s", "sft"]
    other = subprocess.Popen(
        command, cwd=toy, env=environment(toy), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (toy / "worker.pid").exists():
        time.sleep(0.1)

    def let_it_end(text: str, whole: bool) -> None:
        if "waiting for it" in text:
            (toy / "go").touch()

    assert dvc.run_stage(toy, "sft", environment(toy), let_it_end).cached and (toy / "go").exists()
    assert other.wait(120) == 0
    os.kill(int((toy / "worker.pid").read_text()), 9)  # a bare `dvc repro` leaves the stage's worker behind


def test_stopping_from_another_thread_ends_the_stage(toy: Path, lines: list[str]) -> None:
    for name in ("base_model", "mix"):
        run(toy, name, lines)
    set_wanted(toy, sleep=300)

    def stop_soon(process: subprocess.Popen[bytes]) -> None:
        threading.Timer(3.0, process.terminate).start()

    with pytest.raises(dvc.StageFailed, match=r"exit 143"):
        dvc.run_stage(toy, "sft", environment(toy), lambda text, whole: None, on_start=stop_soon)


def test_redrawn_lines_are_told_from_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"one\n10%\r20%\r100%\r\nlast")
    with path.open("rb") as stream:
        assert list(dvc.split_lines(stream)) == [
            ("one", True),
            ("10%", False),
            ("20%", False),
            ("100%", True),
            ("last", True),
        ]
