"""Training that is killed goes on to the very same weights. Real processes, real kills; a model of two layers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks.core.files import verify_manifest
from tasks.core.records import Example, make_example
from tasks.train.run.checkpoints import step_of
from tests import kills
from tests.kills import SFT
from tests.training import lay_training

pytestmark = pytest.mark.slow

# Dropout draws random numbers at every step, so that a resumed run must restore their state too.
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}
SETTINGS = {"precision": "bf16", "batch_size": 2, "epochs": 2, "save_every": 2, "learning_rate": 1e-3, "lora": LORA}


def an_example(number: int) -> Example:
    return make_example(
        instruction=f"What is rule {number}?",
        output="Build well. " * (number % 5 + 1),
        language="en",
        origin="human",
        source=("test",),
    )


def build(folder: Path, root: Path, model: Path) -> Path:
    """A repository with 31 examples: two epochs of 8 steps, a checkpoint at every second."""
    return lay_training(folder, root, model, map(an_example, range(31)), map(an_example, range(50, 53)), SETTINGS)


class Undisturbed(NamedTuple):
    """A run that nobody disturbs: what it gave, and what could be seen of it before its end."""

    outputs: dict[str, bytes]
    live_losses: list[int]
    live_plot: str
    losses: list[int]


@pytest.fixture(scope="module")
def undisturbed(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Watched through MLflow and the file of `dvc plots` while it trains."""
    from mlflow import MlflowClient

    folder = build(tmp_path_factory.mktemp("undisturbed"), root, tiny_model)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(store)
    run = client.create_run("0").info.run_id
    plot = folder / "reports/plots/sft_loss.csv"

    def logged() -> list[int]:
        return [metric.step for metric in client.get_metric_history(run, "loss")]

    stage = kills.start(SFT, folder, root, MLFLOW_TRACKING_URI=store, MLFLOW_RUN_ID=run)
    kills.wait_until(stage, lambda: plot.exists() and bool(logged()))
    live, drawn = logged(), plot.read_text()
    kills.finish(stage)
    verify_manifest(folder / "models/sft/adapter")
    return Undisturbed(kills.outputs(SFT, folder), live, drawn, logged())


def test_the_curves_are_there_while_the_model_trains(undisturbed: Undisturbed) -> None:
    """In MLflow loss by loss, each once; for DVC a part of the plot that stands there at the end."""
    assert 1 <= len(undisturbed.live_losses) < 16
    assert undisturbed.losses == list(range(1, 17))
    whole = undisturbed.outputs["reports/plots/sft_loss.csv"].decode()
    assert undisturbed.live_plot.startswith("step,split,loss\n0,validation,")
    assert whole.startswith(undisturbed.live_plot) and len(undisturbed.live_plot) < len(whole)


def leave_torn_checkpoint(kept: Path) -> None:
    """What a kill in the middle of writing leaves: later than all others, without its marker, not to be used."""
    torn = kept.with_name("checkpoint-15")
    shutil.copytree(kept, torn)
    (torn / "MANIFEST.json").unlink()


@pytest.mark.timeout(900)
def test_a_run_with_a_full_disk_a_killed_worker_and_a_killed_stage_ends_with_the_bytes_of_an_undisturbed_one(
    undisturbed: Undisturbed, root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The first two it survives by itself; after the third it is started again, as a person would."""
    folder = build(tmp_path, root, tiny_model)
    stage = kills.start(SFT, folder, root)
    kills.wait_for_checkpoint(SFT, folder, stage, 2)
    kills.fill_disk(SFT, stage)
    kills.wait_for_checkpoint(SFT, folder, stage, 6)
    kills.kill_worker(SFT, stage)
    kills.wait_for_checkpoint(SFT, folder, stage, 10)
    kills.end_of(stage, lambda: kills.kill_stage(SFT, stage))
    said = stage.communicate()[0]
    restarts = re.findall(r"going on from its last checkpoint \((\d) of 3\)", said)
    assert restarts == ["1", "2"], said
    assert not (folder / "models/sft/adapter").exists()
    kept = kills.last_checkpoint(SFT, folder)
    leave_torn_checkpoint(kept)
    again = kills.finish(kills.start(SFT, folder, root))
    assert f"going on from step {step_of(kept)} of 16" in again
    assert kills.outputs(SFT, folder) == undisturbed.outputs
    assert not kept.parent.exists()
    measured = json.loads((folder / ".flywheel/measured/sft.json").read_text())
    assert (measured["attempts"], measured["steps"], len(measured["processes"])) == (4, 16, 2)
