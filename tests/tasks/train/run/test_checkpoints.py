"""Checkpoints: only a complete one is ever used."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tasks.train.run.checkpoints import final_of, forget, last_complete, mark_complete


def a_checkpoint(run: Path, step: int, complete: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * step)
    if complete:
        mark_complete(folder)
    return folder


def test_the_latest_complete_checkpoint_is_used_and_steps_count_as_numbers(tmp_path: Path) -> None:
    """As text `checkpoint-9` would come after `checkpoint-10`."""
    a_checkpoint(tmp_path, 9)
    latest = a_checkpoint(tmp_path, 10)
    assert last_complete(tmp_path) == latest


def test_a_checkpoint_without_its_marker_is_ignored_and_removed(tmp_path: Path) -> None:
    good = a_checkpoint(tmp_path, 4)
    torn = a_checkpoint(tmp_path, 6, complete=False)
    assert last_complete(tmp_path) == good
    assert not torn.exists()


def test_a_checkpoint_that_changed_after_its_marker_is_ignored(tmp_path: Path) -> None:
    good = a_checkpoint(tmp_path, 4)
    (a_checkpoint(tmp_path, 6) / "weights").write_bytes(b"w" * 5)
    (a_checkpoint(tmp_path, 8) / "weights").unlink()
    assert last_complete(tmp_path) == good


def test_a_half_written_result_is_removed_and_a_whole_one_is_found(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "adapter").write_text("half")
    assert final_of(tmp_path) is None and not final.exists()
    final.mkdir()
    (final / "adapter").write_text("whole")
    mark_complete(final)
    assert final_of(tmp_path) == final


def lay_run(stage: Path, name: str, days: float, beat: float | None = None) -> Path:
    """A run last written so many days ago; `beat`: days since its worker's last sign of life."""
    run = stage / name
    (run / "checkpoint-20").mkdir(parents=True)
    (run / "checkpoint-20/weights").write_bytes(b"w")
    for path in (run / "checkpoint-20/weights", run / "checkpoint-20", run):
        os.utime(path, (time.time() - days * 86400,) * 2)
    if beat is not None:
        (run / "beat").write_text("")
        os.utime(run / "beat", (time.time() - beat * 86400,) * 2)
        os.utime(run, (time.time() - days * 86400,) * 2)
    return run


def test_a_run_that_ended_goes_with_those_of_its_stage_that_nobody_came_back_to(tmp_path: Path) -> None:
    """Eight days are more than a week; a run of yesterday may be gone on with, and one that still beats is at work."""
    stage = tmp_path / "sft"
    done = lay_run(stage, "done", 0)
    lay_run(stage, "old", 8)
    kept = [lay_run(stage, "recent", 1), lay_run(stage, "at work", 8, beat=0), lay_run(tmp_path / "align", "other", 8)]
    forget(done)
    assert sorted(tmp_path.glob("*/*")) == sorted(kept)
