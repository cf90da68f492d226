"""Our PPO against TRL 1.12.0's, the last one TRL had, on the same toy task with the same settings and five seeds each.

Run by `make bench`. Both begin from the same policy at random; what is compared is the mean reward of many answers of
the final policies, with 95% intervals by Student's t over the seeds, next to the best reward there is. The settings
were tuned on ours, so overlapping intervals say that the two learn alike, and nothing of which is better. TRL 1.12.0
lives in an environment of its own, .flywheel/bench-trl, built here from infra/locks/bench-trl.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.core import layout
from tests.bench.table import ROOT, show

PEER = ROOT / ".flywheel/bench-trl"
LOCK = ROOT / "infra/locks/bench-trl.txt"
UV = ROOT / ".flywheel/tools/bin/uv"
PPO = {
    "epochs": 4,
    "kl_coefficient": 0.02,
    "clip": 0.2,
    "value_clip": 0.2,
    "value_coefficient": 0.1,
    "gamma": 1.0,
    "gae_lambda": 0.95,
}
ROLLOUT = {"updates": 40, "prompts": 4, "answers": 32}
LEARNING_RATE, SEEDS = 3e-3, (1, 2, 3, 4, 5)


def peer_rewards(folder: Path) -> list[float]:
    """What TRL's final policies earn; its Python is installed once."""
    done, python = PEER / ".complete", PEER / "bin/python"
    if not done.exists() or done.read_text() != LOCK.read_text():
        subprocess.run([UV, "venv", "-q", "--clear", "--python", "3.11", PEER], check=True)
        subprocess.run([UV, "pip", "install", "-q", "--no-deps", "--python", python, "-r", LOCK], check=True)
        done.write_text(LOCK.read_text())
    settings = PPO | ROLLOUT | {"learning_rate": LEARNING_RATE, "seeds": SEEDS}
    (folder / "settings.json").write_text(json.dumps(settings))
    command: list[str | Path] = [python, "-m", "tests.bench.ppo_peer", folder / "settings.json", folder]
    environment = layout.child_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stderr[-4000:])
    return [float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("reward ")]


def our_rewards(folder: Path) -> list[float]:
    """What our final policies earn."""
    from tasks.train.align.online.ppo_trainer import build
    from tests import online_toy as toy
    from tests.online_jobs import online_job

    settings: dict[str, Any] = {
        "learning_rate": LEARNING_RATE,
        "batch_size": ROLLOUT["prompts"] * ROLLOUT["answers"],
        "save_every": 1000,
        "max_grad_norm": 1000.0,  # TRL's cuts no gradients
        "rollout": ROLLOUT,
        "ppo": {"minibatches": 1, "kl_horizon": 1e12} | PPO,
    }
    rewards = []
    for seed in SEEDS:
        job = online_job(folder, settings, seed=seed)
        trainer = build(job, folder / f"run{seed}", toy.tokenizer(), toy.prompts(), toy.earned)
        trainer.train()
        rewards.append(toy.mean_reward(trainer.policy, seed))
    return rewards


def main() -> None:
    """Train both, print the table; ends with an error where the intervals do not overlap."""
    from tasks.train.align.online.judging import paired_interval
    from tests import online_toy as toy

    os.environ["DS_ACCELERATOR"] = "cpu"
    rows, intervals = [], []
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        for trainer, rewards_of in (("ours", our_rewards), ("TRL 1.12.0", peer_rewards)):
            began = time.perf_counter()
            rewards = rewards_of(Path(name))
            intervals.append(paired_interval(rewards))
            each = " ".join(f"{reward:.3f}" for reward in rewards)
            figures = (sum(rewards) / len(rewards), *intervals[-1])
            rows.append((trainer, *(f"{value:.3f}" for value in figures), each, f"{time.perf_counter() - began:.0f}"))
        os.chdir(ROOT)
    best = toy.best_rewards()
    columns = ("trainer", "mean reward", "low", "high", "each seed", "seconds")
    show(f"PPO on the toy task; the best there is: {sum(best) / len(best):.3f}", columns, rows)
    (ours_low, ours_high), (peer_low, peer_high) = intervals
    if ours_low > peer_high or peer_low > ours_high:
        sys.exit("the intervals do not overlap")


if __name__ == "__main__":
    main()
