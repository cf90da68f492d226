"""Which evaluation sets are too small for any candidate to pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.params import GateParams, load_params
from tasks.evaluate.gate.sizes import too_small

# Of 36 items none may be struck, for 1 - 0.025 ** (1 / 36) is below 10% and of 35 it is not. Of right answers 6% may be
# lost: none lost of 60 shows so little, for 1 - 0.025 ** (1 / 60) = 0.0596; of 59 it is 0.0606. The bound is drawn, so
# that it may be one or two more or fewer.
ENOUGH = {"facts": 62, "domain": 62, "declining": 40, "dialogue": 40, "mmlu": 279, "safety": 60}


@pytest.fixture
def settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> GateParams:
    monkeypatch.chdir(root)
    return load_params().gate


def said(settings: GateParams, **sizes: int) -> list[str]:
    return too_small({name: [str(item) for item in range(size)] for name, size in sizes.items()}, settings)


def test_sets_of_enough_items_and_sets_that_are_not_there_are_said_nothing_of(settings: GateParams) -> None:
    assert said(settings, **ENOUGH) == []
    assert said(settings, domain=62, mmlu=0) == []


def test_a_small_domain_set_holds_nights_and_a_small_dialogue_set_holds_all(settings: GateParams) -> None:
    domain, dialogue = said(settings, **(ENOUGH | {"domain": 20, "dialogue": 12}))
    assert domain.startswith("evaluation set domain: 20 items") and "every night that goes on" in domain
    assert dialogue.startswith("evaluation set dialogue: 12 items") and "every release is held" in dialogue


@pytest.mark.parametrize(("name", "least", "most"), [("domain", 36, 36), ("facts", 58, 62)])
def test_as_many_as_it_says_are_enough_and_one_less_is_not(
    settings: GateParams, name: str, least: int, most: int
) -> None:
    """Fewer than five cannot be compared at all."""
    (line,) = said(settings, **{name: 3})
    few = int(line.split("; ")[1].split()[0])
    assert least <= few <= most
    assert said(settings, **{name: few}) == []
    assert len(said(settings, **{name: few - 1})) == 1


def test_a_looser_guard_needs_fewer(settings: GateParams) -> None:
    """With 20% that may be struck 17 items bound the share (1 - 0.025 ** (1 / 17) = 0.195), and the mean, about."""
    looser = settings.model_copy(update={"catastrophe_share": 0.2})
    assert said(settings, dialogue=25) and not said(looser, dialogue=25)
