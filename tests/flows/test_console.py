"""Progress and times as a person sees them."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from flows.console import RunProgress
from flows.stages import StageRun, keep_duration, read_durations, seconds_left


def test_time_left_is_what_remains_of_this_stage_and_all_of_the_next() -> None:
    """sft took 100 s and has run for 30; gate took 10: 70 + 10."""
    known = {"sft": 100.0, "gate": 10.0}
    assert seconds_left(["gate"], "sft", 30.0, known) == 80.0
    assert seconds_left(["gate"], "sft", 300.0, known) == 10.0
    assert seconds_left(["new"], "sft", 30.0, known) is None


def test_durations_are_kept_across_runs_and_a_torn_file_is_no_error(tmp_path: Path) -> None:
    keep_duration(tmp_path, "sft", 12.34)
    keep_duration(tmp_path, "gate", 1)
    assert read_durations(tmp_path) == {"sft": 12.3, "gate": 1.0}
    (tmp_path / ".flywheel/durations.json").write_text("{")
    assert read_durations(tmp_path) == {}


def test_without_a_terminal_progress_is_plain_lines() -> None:
    console = Console(file=io.StringIO(), width=80)
    progress = RunProgress(console)
    progress.plan(["sft", "gate"], {"sft": 60.0, "gate": 5.0})
    progress.stage_started("sft")
    progress.stage_ended(StageRun("sft", False, 61.0))
    progress.stage_ended(StageRun("gate", True, 0.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == [
        "  … sft   about 1:05 left of the run",
        "  ✓ sft                        1:01",
        "  = gate                     cached",
    ]
