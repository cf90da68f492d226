"""What a release says of evaluation sets by which no candidate can pass."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from rich.console import Console

from flows.console import RunProgress, reporting
from flows.release import say_too_small
from tasks.core import layout
from tasks.core.records import make_item, write_jsonl


def test_the_sets_by_which_every_candidate_is_held_are_said_before_anything_is_trained(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "infra"):
        (tmp_path / name).symlink_to(root / name)
    for name, count in (("domain", 40), ("dialogue", 12), ("mmlu", 0), ("safety", 0)):
        items = [make_item(set=name, prompt=f"{number}?", reference="Yes.") for number in range(count)]
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", items)
    said = io.StringIO()
    with reporting(RunProgress(Console(file=said, width=300))), disable_run_logger():
        say_too_small()
    assert said.getvalue().count("evaluation set ") == 1
    assert "evaluation set dialogue: 12 items cannot show that little is lost" in said.getvalue()
