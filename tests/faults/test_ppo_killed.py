"""PPO that is killed goes on to the very same policy: what it sampled, its KL coefficient and its values included.

Real processes, a real kill; a policy of two layers and a reward model with a head that nobody trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.core.files import write_json, write_manifest
from tasks.core.records import Example, make_example
from tests import kills
from tests.kills import PPO
from tests.training import lay_training

pytestmark = pytest.mark.slow

ALIGN = {
    "alignment": "ppo",
    "precision": "fp32",
    "learning_rate": 1e-3,
    "save_every": 2,
    "rollout": {"prompts": 4, "max_answer_tokens": 6, "updates": 6},
    "ppo": {"epochs": 2, "kl_horizon": 20},
}


def an_example(number: int) -> Example:
    return make_example(
        instruction=f"What is rule {number}?", output="Build well.", language="en", origin="human", source=("test",)
    )


@pytest.fixture(scope="module")
def ready(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which stage align can run."""
    from transformers import AutoModelForSequenceClassification, set_seed

    folder = tmp_path_factory.mktemp("ppo") / "ready"
    folder.mkdir()
    examples = map(an_example, range(12)), map(an_example, range(50, 54))
    lay_training(folder, root, tiny_model, *examples, {}, {"align": ALIGN})
    write_json(folder / "models/sft/none/why.json", {"why": "test"})
    write_manifest(folder / "models/sft/none")
    set_seed(0)
    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(
        folder / "models/reward/model"
    )
    write_manifest(folder / "models/reward/model")
    return folder


@pytest.mark.timeout(600)
def test_a_killed_ppo_run_ends_with_the_bytes_of_an_undisturbed_one(ready: Path, root: Path) -> None:
    calm, disturbed = ready.with_name("calm"), ready.with_name("disturbed")
    shutil.copytree(ready, calm, symlinks=True)
    shutil.copytree(ready, disturbed, symlinks=True)
    kills.finish(kills.start(PPO, calm, root))
    stage = kills.start(PPO, disturbed, root)
    kills.wait_for_checkpoint(PPO, disturbed, stage, 4)
    kills.end_of(stage, lambda: kills.kill_all(PPO, stage))
    assert not (disturbed / "models/align").exists()
    assert "going on from step" in kills.finish(kills.start(PPO, disturbed, root))
    assert kills.outputs(PPO, disturbed) == kills.outputs(PPO, calm)
