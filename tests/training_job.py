"""A training job that no stage made, for what is asked of its method and model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.params import load_params
from tasks.core.training_params import TrainingParams
from tasks.train.run.job import TrainingJob


def a_job(root: Path, model: Path, method: str, section: dict[str, Any], start: Path | None = None) -> TrainingJob:
    """A job of a method over `model` with the repository's settings in fp32, by one process."""
    settings = load_params(root / "params.yaml").sft.model_dump() | {"method": method, "precision": "fp32"}
    return TrainingJob(
        stage="sft",
        base_model=model,
        base_digest="",
        data={},
        system="",
        seed=1,
        processes=1,
        settings=TrainingParams.model_validate({key: settings[key] for key in TrainingParams.model_fields}),
        method=section,
        start=start,
        launch_files={},
    )
