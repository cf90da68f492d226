"""PPO on the real base model and the default domain: does the reward rise on prompts that it never saw?

Run by `make bench`, after `make run` has left data/base_model and data/mix; about half an hour on two cores. It works
in .flywheel/bench/ppo_real, a repository of its own in which the stages pairs, reward and align run as they would in a
release, with SFT switched off; one that is killed goes on where it was when the bench is started again. Remove the
folder to begin anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.core.params import load_params
from tasks.core.records import Example, Preference, read_own_jsonl, write_jsonl
from tests.bench.table import show

ROOT = Path(__file__).resolve().parent.parent.parent
PLACE = ROOT / ".flywheel/bench/ppo_real"
LINKED = ("infra", "domains", "data/base_model", "data/ingest", "data/embed", ".flywheel/packages")
EVERY = 4  # one in so many of the examples that the reward model knows nothing of is held out beside the validation's
SETTINGS: dict[str, dict[str, Any]] = {
    "reward": {"precision": "bf16", "epochs": 2},
    "align": {
        "alignment": "ppo",
        "precision": "bf16",
        "learning_rate": 2e-4,
        "batch_size": 4,
        "save_every": 8,
        "rollout": {"prompts": 16, "answers": 2, "updates": 24, "max_answer_tokens": 32},
        "ppo": {"epochs": 2, "minibatches": 2, "kl_coefficient": 0.05, "kl_target": 6.0},
        "bounds": {"max_kl": 25.0},
    },
}


def lay() -> None:
    """A repository to work in; what lies there already stays."""
    if (PLACE / "params.yaml").is_file():
        return
    for name in LINKED:
        (PLACE / name).parent.mkdir(parents=True, exist_ok=True)
        (PLACE / name).symlink_to(ROOT / name)
    for stage in ("pretrain", "sft"):
        write_json(PLACE / f"models/{stage}/none/why.json", {"why": "not part of this bench"})
        write_manifest(PLACE / f"models/{stage}/none")
    write_json(PLACE / "data/start/start.json", {"digest": None})
    write_manifest(PLACE / "data/start")
    train = read_own_jsonl(ROOT / layout.MIX / "train.jsonl", Example)
    domain = [example for example in train if example.origin != "general"]
    pairs = ROOT / layout.DOMAINS / load_params(ROOT / "params.yaml").domain / "preferences.jsonl"
    rewarded = {one.prompt[-1].content for one in read_own_jsonl(pairs, Preference)}
    unknown = [example for example in domain if example.prompt not in rewarded]
    held_out = unknown[::EVERY] + read_own_jsonl(ROOT / layout.MIX / "validation.jsonl", Example)
    asked = {example.prompt for example in held_out}
    write_jsonl(PLACE / layout.MIX / "train.jsonl", [one for one in domain if one.prompt not in asked])
    write_jsonl(PLACE / layout.MIX / "validation.jsonl", held_out)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in SETTINGS.items():
        for name, value in changes.items():
            settings[section][name] = settings[section][name] | value if isinstance(value, dict) else value
    (PLACE / "params.yaml").write_text(yaml.safe_dump(settings))


def run(module: str, output: str) -> float:
    """Run a stage unless it is done; returns the seconds it took now."""
    if (PLACE / output).exists():
        return 0.0
    began = time.perf_counter()
    environment = layout.child_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-m", module], cwd=PLACE, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{module} failed")
    return time.perf_counter() - began


def main() -> None:
    """Run what is not done yet, and print what came out."""
    if not (ROOT / layout.BASE_MODEL / "MANIFEST.json").is_file():
        sys.exit("data/base_model is missing; run `make run` first")
    lay()
    run("tasks.curate.pairs.stage", "data/pairs/MANIFEST.json")
    run("tasks.train.reward.stage", "reports/details/reward.json")
    seconds = run("tasks.train.align.stage", "reports/details/align.json")
    metrics = json.loads((PLACE / "reports/details/align.json").read_text())
    names = sorted(key for key in metrics if key.startswith(("held_out", "stopped", "kl", "reward", "steps")))
    rows = [*((name, metrics[name]) for name in names), ("seconds of align in this start", f"{seconds:.0f}")]
    show("PPO on the default domain, real base model", ("figure", "value"), rows)
    if metrics["held_out_gain_low"] <= 0.0:
        sys.exit("the interval of the gain does not lie above zero")


if __name__ == "__main__":
    main()
