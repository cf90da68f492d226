"""The child process: progress, failures, time limits, and its end together with ours. A script stands in for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.evaluate.run.opencompass_process import EvaluationError, ProgressLines, run_opencompass

Standin = Callable[[str], None]


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standin:
    """Puts a shell script where the evaluation environment's Python is."""
    monkeypatch.chdir(tmp_path)
    python = tmp_path / "python"
    monkeypatch.setattr(layout, "EVALUATION_PYTHON", Path("python"))

    def write(script: str) -> None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)

    return write


def run(folder: Path, minutes: float = 1) -> None:
    run_opencompass(folder / "config.py", folder, "candidate", minutes)


def test_the_child_is_offline_works_in_its_folder_and_asks_for_debug_mode(standin: Standin, tmp_path: Path) -> None:
    standin('echo "$HF_HUB_OFFLINE $OMP_NUM_THREADS $(pwd -P) $*"; echo err >&2')
    run(tmp_path)
    said = (tmp_path / "opencompass.log").read_text()
    assert said.endswith("err\n") and said.startswith(
        f"1 1 {tmp_path.resolve()} -m opencompass.cli.main {tmp_path}/config.py"
    )
    assert "--debug" in said


def test_progress_is_shown_while_it_runs(standin: Standin, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    standin("echo 'Start inferencing [candidate/domain_nll]'; printf '\\r 50%%|## | 1/2 [00:02<00:02, 2s/it]\\r'")
    run(tmp_path)
    assert capsys.readouterr().out == "candidate: domain_nll 1/2 steps in 00:02, 00:02 left\n"


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("echo first; echo 'ValueError: bad thing'; exit 3", ("status 3", "ValueError: bad thing")),
        ("kill -9 $$", ("killed by signal 9",)),
    ],
)
def test_a_child_that_fails_is_an_error_that_names_the_log_and_its_last_words(
    standin: Standin, tmp_path: Path, script: str, parts: tuple[str, ...]
) -> None:
    with pytest.raises(EvaluationError, match="python is missing"):
        run(tmp_path)
    standin(script)
    with pytest.raises(EvaluationError) as error:
        run(tmp_path)
    assert all(part in str(error.value) for part in (*parts, "opencompass.log"))


def test_a_child_that_takes_too_long_is_ended_with_its_children(standin: Standin, tmp_path: Path) -> None:
    """Also one that closed its output; tests/faults has the stage's own end."""
    standin("echo $$ > pid; exec >/dev/null 2>&1; sleep 600 & sleep 600")
    with pytest.raises(EvaluationError, match=r"evaluate\.timeout_minutes"):
        run(tmp_path, minutes=2 / 60)
    with pytest.raises(ProcessLookupError):
        os.killpg(int((tmp_path / "pid").read_text()), 0)


def test_a_bar_gives_a_line_every_few_seconds_and_one_at_its_end() -> None:
    """Not of other work; and one that the pipe cuts in two is read whole."""
    pieces = (
        (0.0, "Map: 100%|###| 9/9 [00:00<00:00, 9 examples/s]\n"),
        (0.0, "INFO - Start inferencing [champion/mmlu_choices]\n"),
        (1.0, "\r  0%|   | 0/9 [00:00<?, ?it/s]\r"),
        (2.0, " 11%|#  | 1/9 [00:01<00:08,  1.0s/it]\r"),
        (7.0, " 66%|## | 6"),
        (7.0, "/9 [00:06<00:03,  1.0s/it]\r"),
        (8.0, "100%|###| 9/9 [00:09<00:00,  1.0s/it]\n"),
    )
    progress = ProgressLines("champion")
    assert [line for now, text in pieces for line in progress.feed(text, now)] == [
        "champion: mmlu_choices 0/9 steps in 00:00, ? left",
        "champion: mmlu_choices 6/9 steps in 00:06, 00:03 left",
        "champion: mmlu_choices 9/9 steps in 00:09, done",
    ]
