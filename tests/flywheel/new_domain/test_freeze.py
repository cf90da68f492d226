"""Frozen evaluation items: spread over categories, refused when the sources no longer hold them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.new_domain.freeze import candidates, draw_spread, freeze
from tasks.core.domain import Domain, load_domain
from tasks.core.records import EvaluationItem, make_item
from tasks.corpus.ingest.stage import IngestError, frozen_items


def items(counts: dict[str, int]) -> list[EvaluationItem]:
    return [
        make_item(set="domain", prompt=f"{category} {number}", reference="x", category=category)
        for category, count in counts.items()
        for number in range(count)
    ]


def test_the_draw_is_in_proportion_with_largest_remainders() -> None:
    """10 of 25: a has 13 (5.2), b 7 (2.8), c 5 (2.0): floors 5+2+2 = 9, and the one left goes to b."""
    drawn = draw_spread(items({"a": 13, "b": 7, "c": 5}), 10)
    assert Counter(item.category for item in drawn) == {"a": 5, "b": 3, "c": 2}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1), st.data())
def test_the_draw_has_the_size_asked_for_and_repeats_nothing(counts: dict[str, int], data: st.DataObject) -> None:
    pool = items(counts)
    size = data.draw(st.integers(1, len(pool)))
    drawn = draw_spread(pool, size)
    assert len({item.id for item in drawn}) == size
    assert draw_spread(pool[::-1], size) == drawn
    with pytest.raises(ValueError, match=f"there are {len(pool)}"):
        draw_spread(pool, len(pool) + 1)


def test_the_frozen_sets_are_in_the_real_sources_and_disjoint_from_what_may_be_trained_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    pools = candidates(domain)
    sets = frozen_items(domain, pools)
    assert {name: len(found) for name, found in sets.items()} == {
        "domain": 120,
        "declining": 40,
        "dialogue": 120,
        "mmlu": 279,
        "safety": 100,
    }
    assert len({item.category for item in sets["domain"]}) == 40, (
        "39 of the FAQ, and the questions that need two passages"
    )


def test_a_source_that_lost_a_frozen_item_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    pools = candidates(domain)
    lost = json.loads(domain.frozen.read_text())["domain"][0]
    pools["domain"] = [item for item in pools["domain"] if item.id != lost]
    with pytest.raises(IngestError, match=f"1 domain items have left the sources, first {lost[:12]}"):
        frozen_items(domain, pools)


def test_what_a_domain_goes_without_is_frozen_empty_and_what_it_has_must_not_be(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    sizes = domain.evaluation.model_copy(update={"safety": None})
    without = domain.model_copy(update={"mmlu": None, "safety": None, "evaluation": sizes})
    monkeypatch.setattr(Domain, "frozen", tmp_path / "frozen.json")
    pools = candidates(without)
    (tmp_path / "frozen.json").write_text(json.dumps(freeze(without, pools, 0.9, 5)))
    sets = frozen_items(without, pools)
    assert {name for name, found in sets.items() if not found} == {"mmlu", "safety"}
    with pytest.raises(IngestError, match="no mmlu items"):
        frozen_items(domain, pools)
