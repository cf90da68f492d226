"""The card's table of predicted against actual."""

from __future__ import annotations

from pathlib import Path

from tasks.core import layout
from tasks.core.files import write_json
from tasks.evaluate.card.card import read_costs

ACTUAL = {
    "attempts": 1,
    "seconds": 80.0,
    "peak_bytes": 2 << 30,
    "energy_kwh": None,
    "trainable_parameters": 1000,
}
PREDICTED = {
    "time": {"seconds": 100.0},
    "memory": {"needed": 1 << 30},
    "energy_kwh": 0.002,
    "parameters": {"trained": 1000},
}


def row(*cells: str) -> dict[str, str]:
    return dict(zip(("stage", "what", "predicted", "actual", "off"), cells, strict=True))


def test_each_figure_stands_beside_what_was_predicted(tmp_path: Path) -> None:
    """100 s for 80 is a quarter too much, 1 GiB for 2 half too little; energy that was not measured has no row."""
    write_json(tmp_path / layout.MEASURED / "sft.json", ACTUAL)
    write_json(tmp_path / layout.MEASURED / "sft.predicted.json", PREDICTED)
    assert read_costs(tmp_path) == [
        row("sft", "time", "100 s", "80 s", "+25%"),
        row("sft", "peak memory", "1.00 GiB", "2.00 GiB", "-50%"),
        row("sft", "trained parameters", "1,000", "1,000", "+0%"),
    ]


def test_on_gpus_the_fullest_one_counts_because_a_prediction_is_for_each(tmp_path: Path) -> None:
    processes = [{"rank": 0, "peak_gpu_bytes": 1 << 30}, {"rank": 1, "peak_gpu_bytes": 2 << 30}]
    write_json(tmp_path / layout.MEASURED / "sft.json", {**ACTUAL, "peak_gpu_bytes": 3 << 30, "processes": processes})
    write_json(tmp_path / layout.MEASURED / "sft.predicted.json", PREDICTED)
    assert read_costs(tmp_path)[1] == row("sft", "peak memory", "1.00 GiB", "2.00 GiB", "-50%")


def test_what_was_not_predicted_is_a_dash_and_a_run_that_went_on_says_so(tmp_path: Path) -> None:
    write_json(tmp_path / layout.MEASURED / "sft.json", {**ACTUAL, "attempts": 2})
    assert read_costs(tmp_path)[0] == row("sft", "time (2 attempts)", "–", "80 s", "–")


def test_nothing_trained_or_a_torn_file_gives_no_row(tmp_path: Path) -> None:
    assert read_costs(tmp_path) == []
    (tmp_path / layout.MEASURED).mkdir(parents=True)
    (tmp_path / layout.MEASURED / "sft.json").write_text('{"sec')
    assert read_costs(tmp_path) == []
