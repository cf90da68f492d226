"""Who answers and learns what, and when, in an online training."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tasks.core.training_params import AlignParams, BoundsParams
from tasks.train.align.online.judging import OutOfBounds, check
from tasks.train.run.online_plan import OnlineError, OnlinePlan, plan_online
from tests.online_jobs import PARAMS

PLAN = OnlinePlan(updates=5, passes=3, minibatches=2, answers=8, micro=2)
BOUNDS = BoundsParams(max_kl=10.0, max_ratio=3.0, min_entropy=0.1)


def settings(**changes: Any) -> AlignParams:
    section = yaml.safe_load(PARAMS.read_text())["align"] | {"alignment": "ppo"}
    for name, value in changes.items():
        section[name] = section[name] | value if isinstance(value, dict) else value
    return AlignParams.model_validate(section)


def test_the_sizes_follow_from_the_settings() -> None:
    assert (PLAN.steps_per_update, PLAN.steps, PLAN.accumulation) == (6, 30, 2)


def test_every_pass_shows_every_answer_once_in_minibatches() -> None:
    turns = PLAN.turns(seed=1, update=0, process=0)
    assert len(turns) == PLAN.steps_per_update * PLAN.accumulation
    for number in range(3):
        of_pass = turns[4 * number : 4 * number + 4]
        assert sorted(row for rows, _ in of_pass for row in rows) == list(range(8))
        assert of_pass[0][1] == of_pass[0][0] + of_pass[1][0] == of_pass[1][1]
    assert turns != PLAN.turns(seed=1, update=1, process=0)


@pytest.mark.parametrize(("asked", "steps"), [(1, 6), (6, 6), (7, 12), (20, 24)])
def test_checkpoints_fall_between_updates(asked: int, steps: int) -> None:
    assert PLAN.save_every(asked) == steps


def test_two_processes_share_an_update() -> None:
    plan = plan_online(settings(rollout={"prompts": 16, "answers": 2}, batch_size=4), processes=2, prompts=400)
    assert (plan.answers, plan.micro, plan.accumulation) == (16, 4, 2)


@pytest.mark.parametrize(
    ("changes", "prompts", "said"),
    [
        ({}, 15, "15 prompts fit"),
        ({"rollout": {"prompts": 15}}, 400, "multiple of 2 processes"),
        ({"rollout": {"prompts": 6}}, 400, "ppo.minibatches"),
        ({"gradient_accumulation": 2}, 400, "gradient_accumulation must be 1"),
        ({"batch_size": 3}, 400, "multiple of align.batch_size"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(changes: dict[str, Any], prompts: int, said: str) -> None:
    with pytest.raises(OnlineError, match=said):
        plan_online(settings(**changes), processes=2, prompts=prompts)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"kl": 10.1}, "max_kl"),
        ({"kl": 1.0, "ratio": 3.1}, "max_ratio"),
        ({"entropy": 0.09}, "min_entropy"),
        ({"policy_loss": float("nan")}, "policy_loss is nan"),
        ({"reward": float("inf")}, "reward is inf"),
    ],
)
def test_outside_of_its_bounds_a_run_ends(figures: dict[str, float], said: str) -> None:
    with pytest.raises(OutOfBounds, match=said):
        check(BOUNDS, figures)


def test_inside_of_its_bounds_it_goes_on() -> None:
    check(BOUNDS, {"kl": 10.0, "ratio": 3.0, "entropy": 0.1, "reward": -4.0})
