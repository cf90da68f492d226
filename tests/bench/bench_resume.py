"""kill -9 at three random moments each of sft, reward, dpo and ppo: is the curve the same, and how much was lost?

    python tests/bench/bench_resume.py [--stages "sft reward dpo ppo"] [--seed 0] [--again]

Runs of about 60 steps of two processes on the default base model cut to two layers, a checkpoint every 10 steps. Each
kill takes the stage, its launcher and its workers at a random step and a random fraction of a second into it; then the
stage is started again. Equal: every figure of the curve, to four decimals. Lost: steps done at the kill since the last
complete checkpoint. What was measured is kept in .flywheel/bench/resume.json and not measured again, so that the
bench itself may be killed.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json
from tasks.core.records import Example, Preference, write_jsonl
from tasks.train.run.checkpoints import step_of
from tests import kills
from tests.bench.table import options, show
from tests.examples import an_example
from tests.kills import PPO, PREFERENCE, REWARD, SFT, Trained
from tests.preferences import some_preferences
from tests.training import lay_training, two_layers

KEPT = layout.HOME / "bench/resume.json"
KILLS, STEPS, SAVE_EVERY = 3, 60, 10
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}
STAGES = {"sft": SFT, "reward": REWARD, "dpo": PREFERENCE, "ppo": PPO}
COMMON = {"save_every": SAVE_EVERY, "epochs": 1, "batch_size": 2, "precision": "fp32"}


def examples(first: int, count: int) -> list[Example]:
    """Answers of different lengths."""
    numbers = range(first, first + count)
    return [an_example(f"What is rule {number}?", "Build well. " * (number % 5 + 1)) for number in numbers]


def preferences(first: int, count: int) -> list[Preference]:
    """A pair a prompt."""
    return [some_preferences(number, 1)[number % 2] for number in range(first, first + count)]


def lay(folder: Path, root: Path, model: Path, stage: str) -> Path:
    """A repository in which the stage takes about 60 steps; what comes before it has been trained undisturbed."""
    sections = {
        "reward": COMMON,
        "align": {
            **COMMON,
            "alignment": stage if stage in ("dpo", "ppo") else "ppo",  # the reward model is trained for ppo alone
            "rollout": {"prompts": 4, "max_answer_tokens": 8, "updates": STEPS},
            "ppo": {"epochs": 1, "minibatches": 1},  # one step an update
        },
    }
    shown = examples(0, 4 * STEPS), examples(900, 3)
    lay_training(folder, root, model, *shown, {**COMMON, "lora": LORA}, sections)
    write_jsonl(folder / "data/pairs/train.jsonl", preferences(0, 4 * STEPS))
    write_jsonl(folder / "data/pairs/validation.jsonl", preferences(900, 4))
    before = {"sft": (), "reward": (), "dpo": ("sft",), "ppo": ("sft", "reward")}[stage]
    for name in before:
        kills.finish(kills.start(STAGES[name], folder, root))
    return folder


def curve(trained: Trained, folder: Path) -> list[list[str]]:
    """The stage's plot with numbers to four decimals."""
    with (folder / trained.outputs[2]).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    return [[step, name, f"{float(value):.4f}"] for step, name, value in rows]


def killed(trained: Trained, folder: Path, root: Path, dice: random.Random) -> dict[str, Any]:
    """Kill the stage at a random moment, then let it end."""
    step, pause = dice.randrange(1, STEPS - 1), dice.random() / 2
    stage = kills.start(trained, folder, root)
    kills.wait_for_step(trained, folder, stage, step)
    time.sleep(pause)
    kills.end_of(stage, lambda: kills.kill_all(trained, stage))
    run = trained.run(folder)
    reached = json.loads((run / "beats/0.json").read_text())["step"]
    complete = [step_of(path.parent) for path in run.glob("checkpoint-*/MANIFEST.json")]
    kills.finish(kills.start(trained, folder, root))
    return {"killed at": reached, "lost": reached - max(complete, default=0)}


def measure(name: str, root: Path, model: Path, kept: dict[str, Any], seed: int) -> None:
    """The undisturbed run once, then each kill that was not measured yet."""
    trained = STAGES[name]
    found = kept.setdefault(name, {"kills": []})
    with tempfile.TemporaryDirectory() as scratch:
        ready = lay(Path(scratch) / "ready", root, model, name)
        calm = Path(scratch) / "calm"
        shutil.copytree(ready, calm, symlinks=True)
        kills.finish(kills.start(trained, calm, root))
        expected, whole = curve(trained, calm), kills.outputs(trained, calm)
        for number in range(len(found["kills"]), KILLS):
            folder = Path(scratch) / f"kill{number}"
            shutil.copytree(ready, folder, symlinks=True)
            result = killed(trained, folder, root, random.Random(f"{seed} {name} {number}"))
            result["equal"] = curve(trained, folder) == expected
            result["same bytes"] = kills.outputs(trained, folder) == whole
            found["kills"].append(result)
            found["steps"] = max(int(row[0]) for row in expected)
            write_json(KEPT, kept)
            shutil.rmtree(folder)


def row_of(name: str, found: dict[str, Any]) -> list[str]:
    """A stage's row of the table."""
    columns = [[str(kill[key]) for kill in found["kills"]] for key in ("killed at", "lost", "equal", "same bytes")]
    return [name, str(found.get("steps", "")), *map(", ".join, columns)]


def main() -> None:
    """Measure what is asked for and print all there is."""
    asked = options(__doc__, stages=" ".join(STAGES), seed=0, again=False)
    kept: dict[str, Any] = {} if asked.again or not KEPT.exists() else json.loads(KEPT.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        two_layers(layout.BASE_MODEL, model)
        for name in asked.stages.split():
            if len(kept.get(name, {}).get("kills", [])) < KILLS:
                measure(name, Path.cwd(), model, kept, asked.seed)
    columns = "Stage | Steps | Killed after step | Steps lost | Equal to four decimals | Same bytes"
    show("kill -9", columns, (row_of(name, found) for name, found in kept.items()))
    bad = [
        name
        for name, found in kept.items()
        if not all(kill["equal"] and kill["lost"] <= SAVE_EVERY for kill in found["kills"])
    ]
    if bad:
        sys.exit(f"not the same, or too much lost: {', '.join(bad)}")


if __name__ == "__main__":
    main()
