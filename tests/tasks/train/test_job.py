"""Every kind of job names the module that its processes run, and what shapes its weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tasks.train.align_job import OnlineJob, PreferenceJob
from tasks.train.job import SOURCES, TASKS, TrainingJob
from tasks.train.preference.reward_job import RewardJob
from tasks.train.tuning.pretrain_job import PretrainJob
from tasks.train.tuning.sft_job import SftJob

KINDS = (PretrainJob, SftJob, RewardJob, PreferenceJob, OnlineJob)


@pytest.mark.parametrize("kind", KINDS)
def test_the_worker_of_a_job_is_one_of_the_sources_that_shape_its_weights(kind: type[TrainingJob]) -> None:
    assert importlib.util.find_spec(kind.worker) is not None
    assert kind.worker.removeprefix("tasks.").replace(".", "/") + ".py" in kind.sources


@pytest.mark.parametrize("kind", KINDS)
def test_the_sources_of_a_job_are_files(kind: type[TrainingJob]) -> None:
    assert [name for name in (*SOURCES, *kind.sources) if not (Path(TASKS) / name).is_file()] == []
