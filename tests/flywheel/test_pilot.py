"""`flywheel pilot`: what the items of a set can settle, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from flywheel.cli import main
from tasks.core import layout
from tasks.core.params import load_params
from tasks.core.records import Score, write_jsonl
from tasks.evaluate.pilot import PilotError, pilot_of

ITEMS = 100


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """Two evaluations of a hundred items whose differences are 0.1 and −0.1 in turn: a spread of 0.1 · √(100 / 99)."""
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    (tmp_path / "infra").symlink_to(root / "infra")
    for who, shift in (("candidate", 0.1), ("champion", 0.0)):
        scores = [
            Score(id=f"{number:064x}", set="sums", metric="correct", value=0.5 + (shift if number % 2 else -shift))
            for number in range(ITEMS)
        ]
        write_jsonl(tmp_path / layout.EVALUATION / who / "scores.jsonl", scores)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYWHEEL_ROOT", str(tmp_path))
    return tmp_path


def pilot(*arguments: str) -> dict[str, float]:
    ended = CliRunner().invoke(main, ["pilot", "sums", *arguments, "--json"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    (row,) = found["metrics"]
    return dict(row)


def test_spread_half_width_and_margin_are_those_worked_out_by_hand(repository: Path) -> None:
    """(1.96 + 0.8416) · 0.1005 / 10 = 0.0282 is settled; 0.02 needs (2.8016 · 0.1005 / 0.02)² = 198.2 items. Student's
    half width is 1.984 · 0.01005 = 0.0199; one item more, two spreads away, moves the mean by another 0.002."""
    found = pilot("--margin", "0.02")
    assert (found["metric"], found["items"], found["needed"]) == ("correct", ITEMS, 199)
    assert found["spread"] == pytest.approx(0.1 * math.sqrt(100 / 99), abs=1e-6)
    assert found["margin"] == pytest.approx(0.02816, abs=1e-4)
    assert found["half_width"] == pytest.approx(0.0199 + 0.002, abs=1e-3)


def test_four_times_the_items_settle_half_the_margin(repository: Path) -> None:
    few, many = pilot(), pilot("--items", str(4 * ITEMS))
    assert many["margin"] == pytest.approx(few["margin"] / 2, abs=1e-6)
    assert (many["items"], few["needed"]) == (4 * ITEMS, None)


def test_the_table_has_a_line_for_each_metric_with_what_was_asked(repository: Path) -> None:
    ended = CliRunner().invoke(main, ["pilot", "sums", "--margin", "0.02"])
    head, line = ended.output.splitlines()
    assert "items for 0.02" in head and line.split()[:2] == ["correct", "100"] and line.split()[-1] == "199"


@pytest.mark.parametrize("arguments", [["nothing"], ["sums", "1"], ["sums", "--items", "4"], ["sums", "--margin", "0"]])
def test_what_cannot_be_answered_is_refused(repository: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["pilot", *arguments]).exit_code != 0


def test_evaluations_of_different_items_are_refused(repository: Path) -> None:
    path = repository / layout.EVALUATION / "champion/scores.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    candidate = repository / layout.EVALUATION / "candidate/scores.jsonl"
    with pytest.raises(PilotError, match="of different items"):
        pilot_of("sums", candidate, path, load_params().gate, 1)
    with pytest.raises(PilotError, match="no set nothing in common; there are sums"):
        pilot_of("nothing", candidate, path, load_params().gate, 1)
