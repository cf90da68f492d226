"""How right the estimate is: predicted against actual time and peak memory of settings it has not seen.

Each setting is sized by formula and by its own three-step probe, then trained for real, by the stage's own code, on
the default domain's base model and examples. Asked for: within 25% of the time and 20% of the peak memory, on five.

    python tests/bench/bench_estimate.py            the table of what is measured so far
    python tests/bench/bench_estimate.py --run 1    measures that many settings that are still missing: 2 to 4 min each

Run it where the stages up to `mix` have been run, on a machine that does nothing else. Kept under .flywheel/bench.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks import layout
from tasks.domain import load_domain
from tasks.files import write_json, write_text
from tasks.params import load_params
from tasks.train.sizing.aside import inside, lay_aside

HOME = layout.HOME / "bench" / "estimate"
# Name: settings by dotted name, examples to train on, examples to validate on.
SETTINGS: dict[str, tuple[dict[str, Any], int, int]] = {
    "lora bf16": ({"sft.precision": "bf16", "sft.epochs": 1}, 160, 16),
    "lora fp32, batches of 2": ({"sft.precision": "fp32", "sft.batch_size": 2, "sft.epochs": 1}, 72, 8),
    "full bf16": ({"sft.method": "full", "sft.precision": "bf16", "sft.epochs": 1, "sft.batch_size": 2}, 72, 8),
    "p_tuning_v2 bf16": ({"sft.method": "p_tuning_v2", "sft.precision": "bf16", "sft.epochs": 2}, 96, 8),
    "lora bf16, rank 64, one process": (
        {
            "sft.precision": "bf16",
            "sft.launch": "cpu1",
            "sft.epochs": 1,
            "sft.gradient_accumulation": 2,
            "methods.lora.rank": 64,
            "engine.max_adapter_rank": 64,
        },
        120,
        8,
    ),
}


def measure(name: str) -> dict[str, Any]:
    """Size one setting, train it, and say both."""
    settings, train, validation = SETTINGS[name]
    folder = (HOME / name.replace(" ", "_").replace(",", "")).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    lay_aside(Path(), folder, settings, keep_trained=False)
    (folder / "data").unlink()
    for path in sorted(Path("data").absolute().iterdir()):
        if path.name != "mix":
            (folder / "data" / path.name).parent.mkdir(exist_ok=True)
            (folder / "data" / path.name).symlink_to(path)
    for split, count in (("train", train), ("validation", validation)):
        lines = (layout.MIX / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        every = max(1, len(lines) // count)
        write_text(folder / layout.MIX / f"{split}.jsonl", "".join(lines[::every][:count]))
    try:
        return {"name": name, **_both(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _both(folder: Path) -> dict[str, Any]:
    from tasks.train.execute import execute, run_folder
    from tasks.train.sft import describe
    from tasks.train.sizing.estimate import estimate_of, size
    from tasks.train.sizing.machines import read_prices

    with inside(folder):
        params = load_params()
        job = describe(params, load_domain(params.domain))
        formula = estimate_of(size(job), read_prices())
        probed = estimate_of(size(job, "always"), read_prices())
        execute(job, run_folder(job))
        actual = json.loads((layout.MEASURED / "sft.json").read_text(encoding="utf-8"))
        return {"formula": _figures(formula), "probe": _figures(probed), "time": probed["time"], "actual": actual}


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return {"seconds": found["time"]["seconds"], "bytes": found["memory"]["needed"]}


def table() -> None:
    """Print what has been measured."""
    shown = Table(title="Predicted against actual")
    for column in (
        "setting",
        "steps",
        "s actual",
        "s probe",
        "off",
        "GiB actual",
        "GiB probe",
        "off",
        "s, GiB formula",
    ):
        shown.add_column(column, justify="left" if column == "setting" else "right")
    for path in sorted(HOME.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        actual, probe, formula = row["actual"], row["probe"], row["formula"]
        shown.add_row(
            row["name"],
            str(actual["steps"]),
            f"{actual['seconds']:.0f}",
            f"{probe['seconds']:.0f}",
            f"{probe['seconds'] / actual['seconds'] - 1:+.0%}",
            f"{actual['peak_bytes'] / 2**30:.2f}",
            f"{probe['bytes'] / 2**30:.2f}",
            f"{probe['bytes'] / actual['peak_bytes'] - 1:+.0%}",
            f"{formula['seconds']:.0f}, {formula['bytes'] / 2**30:.2f}",
        )
    Console(width=140).print(shown)


def main() -> None:
    """Measure what is asked for, and show everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, default=0, help="settings to measure that are still missing")
    wanted = parser.parse_args().run
    for number, name in enumerate(SETTINGS):
        path = HOME / f"{number}.json"
        if wanted and not path.is_file():
            write_json(path, measure(name))
            wanted -= 1
    table()


if __name__ == "__main__":
    main()
