"""Jobs to size, in small repositories of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.train.align import stage as align
from tasks.train.reward import stage as reward
from tasks.train.run.job import TrainingJob
from tasks.train.sft import stage as sft
from tests.preferences import lay_alignment

Described = Callable[..., Any]


@pytest.fixture
def job(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> TrainingJob:
    """A job of eleven examples, two processes, batches of two, in its own repository."""
    monkeypatch.chdir(workspace(batch_size=2, epochs=2, precision="fp32"))
    return sft.describe(load_params(), load_domain("construction"))


@pytest.fixture
def preferring(tmp_path: Path, root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Described:
    """Builds a job over prompts with two pairs and three answers each; `alignment` reward, dpo or kto."""

    def build(alignment: str, prompts: int = 6, **settings: Any) -> Any:
        stage = "reward" if alignment == "reward" else "align"
        own = {} if stage == "reward" else {"alignment": alignment}
        folder = lay_alignment(tmp_path, root, tiny_model, {stage: {**own, **settings}}, prompts=prompts)
        monkeypatch.chdir(folder)
        describe = reward.describe if stage == "reward" else align.describe
        return describe(load_params(), load_domain("construction"))

    return build


@pytest.fixture
def online(job: TrainingJob) -> Described:
    """Builds a job of an online method: 16 prompts an update, two processes, three updates."""

    def build(alignment: str, sections: dict[str, Any] | None = None, **settings: Any) -> TrainingJob:
        own: Any = load_params().align
        changes = {"alignment": alignment, **settings}
        for name, values in {"rollout": {"updates": 3}, **(sections or {})}.items():
            changes[name] = getattr(own, name).model_copy(update=values)
        return job.model_copy(update={"stage": "align", "settings": own.model_copy(update=changes)})

    return build
