"""Jobs of the online methods on the task of tests/online_toy.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.core.records import Example, make_example, write_jsonl
from tasks.core.training_params import AlignParams
from tasks.train.align.stage import OnlineJob
from tests.online_toy import ANSWER_TOKENS, PROMPTS, save_model, save_reward_model

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"


def online_job(folder: Path, settings: dict[str, Any], processes: int = 1, seed: int = 1) -> OnlineJob:
    """A job on this task, its model, reward model and data laid out in `folder` (absolute paths).

    `settings` are changes to section align, with those of its own sections inside, and of `methods.lora`.
    """
    params = yaml.safe_load(PARAMS.read_text())
    align, methods = params["align"], params["methods"]
    align |= {"alignment": "ppo", "method": "full", "learning_rate": 1e-3, "batch_size": 64, "warmup_ratio": 0.0}
    align["rollout"] |= {"prompts": PROMPTS, "answers": 16, "max_prompt_tokens": 8, "max_answer_tokens": ANSWER_TOKENS}
    align["bounds"] |= {"min_entropy": 0.0, "max_kl": 100.0, "max_ratio": 100.0}
    for name, value in settings.items():
        section = methods if name == "lora" else align
        section[name] = section[name] | value if isinstance(value, dict) else value
    asked = AlignParams.model_validate(align)
    data = folder / "prompts.jsonl"
    write_jsonl(data, [_example(f"w{number}") for number in range(PROMPTS)])
    reward = save_reward_model(folder / "reward")
    return OnlineJob(
        stage="align",
        base_model=save_model(folder / "model"),
        base_digest="toy",
        data={"prompts": data, "held_out": data},
        system="",
        seed=seed,
        processes=processes,
        settings=asked,
        method=methods[asked.method],
        launch_files={},
        reward=reward,
        reward_digest="toy",
        reward_base=folder / "model",
        reward_base_digest="toy",
    )


def _example(word: str) -> Example:
    return make_example(instruction=word, output="w0", language="en", origin="human", source=("test",))
