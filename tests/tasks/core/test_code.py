"""What our own code is known by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core import code
from tasks.core.code import code_digest


def test_a_changed_a_new_and_a_renamed_file_are_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "TASKS", tmp_path)
    (tmp_path / "room").mkdir()
    (tmp_path / "other").mkdir()
    module = tmp_path / "room/module.py"
    module.write_text("a = 1")
    seen = {code_digest("room")}
    (tmp_path / "other/module.py").write_text("a = 1")
    assert code_digest("room") in seen, "another folder is not this one's code"
    module.write_text("a = 2")
    seen.add(code_digest("room"))
    (tmp_path / "room/second.py").write_text("")
    seen.add(code_digest("room"))
    module.rename(tmp_path / "room/renamed.py")
    seen.add(code_digest("room"))
    assert len(seen) == 4
    (tmp_path / "room/__pycache__").mkdir()
    (tmp_path / "room/__pycache__/module.pyc").write_bytes(b"compiled")
    assert code_digest("room") in seen


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        code_digest("core", "nowhere")
