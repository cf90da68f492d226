"""How right the estimate is: predicted against actual time and peak memory of settings it has not seen.

Each setting is sized by formula and by its own probe, then trained for real, by the stage's own code, on the default
domain's base model and examples. Asked for: within 25% of the time and 20% of the peak memory, on five. GROWTH in
tasks/train/sizing/formula.py and the sizes of a checkpoint were fitted on `lora bf16`, which is none of the five.

    python tests/bench/bench_estimate.py            the table of what is measured so far
    python tests/bench/bench_estimate.py --run 1    measures that many settings that are still missing: 2 to 4 min each

Exit status: 1 where a measured setting is off by more than that, by name. Run it where the stages up to `mix` have been
run, on a machine that does nothing else. Kept under .flywheel/bench.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_json, write_text
from tasks.core.params import load_params
from tasks.core.prices import read_prices
from tasks.train.linked_copy import inside, link_copy
from tests.bench.table import options, show

HOME = layout.HOME / "bench" / "estimate"
TIME_OFF, MEMORY_OFF = 0.25, 0.20
FITTED = ("lora bf16",)
BF16 = {"sft.precision": "bf16", "sft.epochs": 1, "sft.min_steps": 0}  # epochs as they are written here
ALONE = {"sft.launch": "cpu1", "sft.gradient_accumulation": 2}
RANK_64 = {"methods.lora.rank": 64, "engine.max_adapter_rank": 64}
APART = {"sft.packing": False}
# Name: settings by dotted name, examples to train on, examples to validate on.
SETTINGS: dict[str, tuple[dict[str, Any], int, int]] = {
    "lora bf16": (BF16, 160, 16),
    "lora fp32, batches of 2": (BF16 | {"sft.precision": "fp32", "sft.batch_size": 2}, 72, 8),
    "full bf16": (BF16 | {"sft.method": "full", "sft.batch_size": 2}, 72, 8),
    "p_tuning_v2 bf16": (BF16 | APART | {"sft.method": "p_tuning_v2", "sft.epochs": 2}, 96, 8),
    "lora bf16, rank 64, one process": (BF16 | ALONE | RANK_64, 120, 8),
    "dora bf16, batches of 3, no packing": (BF16 | APART | {"sft.method": "dora", "sft.batch_size": 3}, 90, 8),
}


def size_and_train(name: str) -> dict[str, Any]:
    """What one setting was sized at, and what it took."""
    settings, train, validation = SETTINGS[name]
    folder = (HOME / name.replace(" ", "_").replace(",", "")).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    link_copy(Path(), folder, settings, keep_trained=False)
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
        return {"name": name, **_predicted_and_actual(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _predicted_and_actual(folder: Path) -> dict[str, Any]:
    from tasks.train.entry.training import execute, run_folder
    from tasks.train.sft.stage import describe
    from tasks.train.sizing.estimate import estimate_of, size

    with inside(folder):
        params = load_params()
        job = describe(params, load_domain(params.domain))
        formula, probed = (estimate_of(job, size(job, probe), read_prices()) for probe in ("known", "always"))
        if probed["time"]["source"] != "probe":
            sys.exit("the probe failed; what it said stands above")
        execute(job, run_folder(job))
        actual = json.loads((layout.MEASURED / "sft.json").read_text(encoding="utf-8"))
        return {"formula": _figures(formula), "probe": _figures(probed), "actual": actual}


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return {"seconds": found["time"]["seconds"], "bytes": found["memory"]["needed"]}


def off(row: dict[str, Any]) -> tuple[float, float]:
    """By what share of the actual time and peak memory the probe's prediction was off."""
    actual, probe = row["actual"], row["probe"]
    return probe["seconds"] / actual["seconds"] - 1, probe["bytes"] / actual["peak_bytes"] - 1


def cells(row: dict[str, Any]) -> list[str]:
    """A setting's row of the table."""
    actual, probe, formula = row["actual"], row["probe"], row["formula"]
    time_off, memory_off = off(row)
    return [
        row["name"] + (" (fitted)" if row["name"] in FITTED else ""),
        str(actual["steps"]),
        f"{actual['seconds']:.0f}, {probe['seconds']:.0f} ({time_off:+.0%}), {formula['seconds']:.0f}",
        ", ".join(f"{size / 2**30:.2f}" for size in (actual["peak_bytes"], probe["bytes"], formula["bytes"])),
        f"{memory_off:+.0%}",
    ]


def main() -> None:
    """Measure what is asked for, show everything, and say what was predicted too badly."""
    wanted, rows = options(__doc__, run=0).run, []
    for number, name in enumerate(SETTINGS):
        path = HOME / f"{number}.json"
        if wanted and not path.is_file():
            write_json(path, size_and_train(name))
            wanted -= 1
        if path.is_file():
            rows.append(json.loads(path.read_text(encoding="utf-8")))
    columns = ("setting", "steps", "s: actual, probe, formula", "GiB: actual, probe, formula", "off")
    show("Predicted against actual", columns, map(cells, rows))
    limits = ("time", TIME_OFF), ("peak memory", MEMORY_OFF)
    if missed := [
        f"{row['name']}: {what} is off by {share:+.0%}, more than {limit:.0%}"
        for row in rows
        for (what, limit), share in zip(limits, off(row), strict=True)
        if abs(share) > limit
    ]:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
