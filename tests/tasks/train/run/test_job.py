"""Every kind of job names the module that its processes run, and what shapes its weights."""

from __future__ import annotations

import importlib.util

import pytest

from tasks.core.graph import code_digest
from tasks.train.align.stage import OnlineJob, PreferenceJob
from tasks.train.pretrain.stage import PretrainJob
from tasks.train.reward.stage import RewardJob
from tasks.train.run.job import TrainingJob
from tasks.train.sft.stage import SftJob

KINDS = (PretrainJob, SftJob, RewardJob, PreferenceJob, OnlineJob)


@pytest.mark.parametrize("kind", KINDS)
def test_the_worker_of_a_job_lies_in_a_folder_that_shapes_its_weights(kind: type[TrainingJob]) -> None:
    assert importlib.util.find_spec(kind.worker) is not None
    path = kind.worker.removeprefix("tasks.").replace(".", "/")
    assert any(path.startswith(f"{folder}/") for folder in kind.code)
    assert len(code_digest(*kind.code)) == 64
