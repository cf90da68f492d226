"""kill -9 at three random moments each of sft, reward, dpo and ppo: is the curve the same, and how much was lost?

    python tests/bench/bench_resume.py [--stages sft reward dpo ppo] [--seed 0] [--again]

Runs of about 60 steps of two processes on the default base model cut to two layers, a checkpoint every 10 steps. Each
kill takes the stage, its launcher and its workers at a random step and a random fraction of a second into it; then the
stage is started again. Equal: every figure of the curve, to four decimals. Lost: steps done at the kill since the last
complete checkpoint. What was measured is kept in .flywheel/bench/resume.json and not measured again, so that the
bench itself may be killed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json
from tasks.core.records import Example, Message, Preference, make_example, make_preference, write_jsonl
from tasks.train.run.checkpoints import step_of
from tests import kills
from tests.kills import PPO, PREFERENCE, REWARD, SFT, Trained
from tests.training import lay_training

KEPT = layout.HOME / "bench/resume.json"
KILLS, STEPS, SAVE_EVERY = 3, 60, 10
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}
STAGES = {"sft": SFT, "reward": REWARD, "dpo": PREFERENCE, "ppo": PPO}
COMMON = {"save_every": SAVE_EVERY, "epochs": 1, "batch_size": 2, "precision": "fp32"}


def an_example(number: int) -> Example:
    """Answers of different lengths."""
    return make_example(
        instruction=f"What is rule {number}?",
        output="Build well. " * (number % 5 + 1),
        language="en",
        origin="human",
        source=("bench",),
    )


def a_preference(number: int) -> Preference:
    """A pair of its own prompt."""
    prompt = (Message(role="user", content=f"What is rule {number}?"),)
    better = f"Rule {number}: " + "build well. " * (number % 4 + 1)
    return make_preference(prompt, better, "Nobody knows. " * (number % 3 + 1), ("bench",))


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
    examples = map(an_example, range(4 * STEPS)), map(an_example, range(900, 903))
    lay_training(folder, root, model, *examples, {**COMMON, "lora": LORA}, sections)
    write_jsonl(folder / "data/pairs/train.jsonl", map(a_preference, range(4 * STEPS)))
    write_jsonl(folder / "data/pairs/validation.jsonl", map(a_preference, range(900, 904)))
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


def table(kept: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| Stage | Steps | Killed after step | Steps lost | Equal to four decimals | Same bytes |"]
    lines.append("|---|---|---|---|---|---|")
    for name, found in kept.items():
        columns = [[str(kill[key]) for kill in found["kills"]] for key in ("killed at", "lost", "equal", "same bytes")]
        lines.append(f"| {name} | {found.get('steps', '')} | " + " | ".join(map(", ".join, columns)) + " |")
    return "\n".join(lines)


def two_layers(target: Path) -> Path:
    """The default domain's base model cut to two layers, as the tests have it."""
    from tasks.core.files import write_manifest

    source = layout.BASE_MODEL
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("MANIFEST.json", "model.safetensors"))
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(source, num_hidden_layers=2).save_pretrained(target)
    write_manifest(target)
    return target


def main() -> None:
    """Measure what is asked for and print all there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    options = parser.parse_args()
    os.environ.update(layout.OFFLINE)
    kept: dict[str, Any] = {} if options.again or not KEPT.exists() else json.loads(KEPT.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        model = two_layers(Path(scratch) / "model")
        for name in options.stages:
            if len(kept.get(name, {}).get("kills", [])) < KILLS:
                measure(name, Path.cwd(), model, kept, options.seed)
    print(table(kept))
    bad = [
        name
        for name, found in kept.items()
        if not all(kill["equal"] and kill["lost"] <= SAVE_EVERY for kill in found["kills"])
    ]
    if bad:
        sys.exit(f"not the same, or too much lost: {', '.join(bad)}")


if __name__ == "__main__":
    main()
