"""How a stage starts and ends: what it says to people, and what it keeps from them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core import graph as code
from tasks.core.errors import FlywheelError
from tasks.core.graph import code_digest
from tasks.core.stage import run_stage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a stage silences is silent in its process only."""
    with warnings.catch_warnings():
        yield
    logging.disable(logging.NOTSET)


def test_a_stage_ends_with_one_line_of_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    run_stage("mix", lambda: "12 examples")
    assert capsys.readouterr().out == "mix: 12 examples\n"


def test_an_error_meant_for_a_person_comes_without_a_traceback() -> None:
    def fails() -> str:
        raise FlywheelError("raise the limit")

    with pytest.raises(SystemExit) as ended:
        run_stage("mix", fails)
    assert ended.value.code == "mix: raise the limit"


def test_a_library_s_warning_of_what_nothing_needs_is_dropped_and_its_errors_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The logger that warns is below bitsandbytes' own, and comes to be when peft is imported in the stage."""
    seen: list[tuple[bool, bool, str]] = []
    monkeypatch.setattr(logging.getLogger("bitsandbytes"), "level", logging.NOTSET)

    def stage() -> str:
        child = logging.getLogger("bitsandbytes.backends.test")
        seen.append(
            (child.isEnabledFor(logging.WARNING), child.isEnabledFor(logging.ERROR), os.environ["HF_HUB_OFFLINE"])
        )
        return "done"

    run_stage("package", stage)
    assert not logging.getLogger("DeepSpeed").isEnabledFor(logging.INFO)
    assert seen == [(False, True, "1")]


def test_a_changed_a_new_and_a_renamed_file_are_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "TASKS", tmp_path)
    for folder in ("room/__pycache__", "other"):
        (tmp_path / folder).mkdir(parents=True)
    module = tmp_path / "room/module.py"
    seen = set()
    for change in (
        lambda: module.write_text("a = 1"),
        lambda: module.write_text("a = 2"),
        lambda: (tmp_path / "room/second.py").write_text(""),
        lambda: module.rename(tmp_path / "room/renamed.py"),
        lambda: (tmp_path / "other/module.py").write_text("a = 1"),  # another folder is not this one's code
        lambda: (tmp_path / "room/__pycache__/module.pyc").write_bytes(b"compiled"),
    ):
        change()
        seen.add(code_digest("room"))
    assert len(seen) == 4


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        code_digest("core", "nowhere")
