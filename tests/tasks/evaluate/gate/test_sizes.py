"""Which evaluation sets are too small for any candidate to pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.params import GateParams, load_params
from tasks.evaluate.gate.sizes import too_small

# Of 36 items none may be struck, for 1 - 0.025 ** (1 / 36) is below 10% and of 35 it is not. A mean of nothing but
# zeros, with one item more at 0.5, has to lie below the margin: 0.5 (1 - 0.025 ** (1 / n)) <= 0.1 from n = 17 on, and
# <= 0.03 from n = 60 on, or one less, as the bound is drawn.
ENOUGH = {"domain": 62, "dialogue": 40, "mmlu": 279, "safety": 60}


@pytest.fixture
def settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> GateParams:
    monkeypatch.chdir(root)
    return load_params().gate


def test_sets_of_enough_items_and_sets_that_are_not_there_are_said_nothing_of(settings: GateParams) -> None:
    assert too_small(ENOUGH, settings) == []
    assert too_small({"domain": 62, "mmlu": 0}, settings) == []


def test_a_small_domain_set_holds_nights_and_a_small_dialogue_set_holds_all(settings: GateParams) -> None:
    domain, dialogue = too_small(ENOUGH | {"domain": 20, "dialogue": 12}, settings)
    assert domain.startswith("evaluation set domain: 20 items") and "every night that goes on" in domain
    assert dialogue.startswith("evaluation set dialogue: 12 items") and "every release is held" in dialogue


def test_as_many_as_it_says_are_enough_and_one_less_is_not(settings: GateParams) -> None:
    """Fewer than five cannot be compared at all."""
    (said,) = too_small({"domain": 3}, settings)
    few = int(said.split("; ")[1].split()[0])
    assert 55 <= few <= 62
    assert too_small({"domain": few}, settings) == []
    assert len(too_small({"domain": few - 1}, settings)) == 1


def test_a_looser_guard_needs_fewer(settings: GateParams) -> None:
    """With 20% that may be struck 17 items bound the share (1 - 0.025 ** (1 / 17) = 0.195), and the mean, about."""
    looser = settings.model_copy(update={"catastrophe_share": 0.2})
    assert too_small({"dialogue": 25}, settings) and not too_small({"dialogue": 25}, looser)
