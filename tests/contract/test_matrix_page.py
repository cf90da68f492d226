"""docs/matrix.md names what params.yaml offers, as tests/matrix.py has it run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix import ALIGNMENTS, CELLS, METHODS, PAGE, Cell, page


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


def test_the_page_is_as_it_is_written() -> None:
    assert PAGE.read_text() == page(), "write it anew: .venv/bin/python -m tests.matrix"


def test_only_what_cannot_run_here_is_refused() -> None:
    """QLoRA needs a GPU; PiSSA's adapter cannot be copied, which all but PPO do."""
    qlora = {Cell("qlora", alignment) for alignment in ALIGNMENTS}
    pissa = {Cell("pissa", alignment) for alignment in ("dpo", "kto", "rloo", "grpo")}
    assert {cell for cell in CELLS if cell.refused} == qlora | pissa
    assert len(CELLS) == len(METHODS) * len(ALIGNMENTS)
