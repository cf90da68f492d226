"""The choice of a base model: losses that tokenizers cannot distort, and a recommendation with its reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.domain import load_domain
from tasks.evaluate.bases import BasesError, Candidate, candidate_of, domain_of, known_bases, recommend
from tasks.params import load_params
from tasks.records import EvaluationItem, Score

FITS = {"fits": True, "reasons": []}
TOO_BIG = {"fits": False, "reasons": ["it needs 99 GiB"]}


def base(name: str, parameters: int, losses: list[float], **more: Any) -> Candidate:
    known = {"licence": "Apache-2.0", "languages": ("en",), "means": {}, "estimate": FITS} | more
    return Candidate(name=name, parameters=parameters, losses={str(i): v for i, v in enumerate(losses)}, **known)


@pytest.fixture
def params(root: Path) -> Any:
    return load_params(root / "params.yaml")


def test_losses_are_taken_over_characters_so_that_tokenizers_compare() -> None:
    """2 nats a token over 3 tokens of "brick" with its 5 characters: 6 / 5."""
    item = EvaluationItem(id="a" * 64, set="domain", prompt="What?", reference="brick")
    score = Score(id="a" * 64, set="domain", metric="nll", value=2.0, tokens=3)
    assert candidate_of("m", 1, "MIT", [], [score], [item], FITS).losses == {"a" * 64: 6 / 5}


def test_the_best_that_fits_is_recommended_and_what_does_not_fit_is_left_out(params: Any) -> None:
    rows = [
        base("good", 100, [1.0 + i % 5 / 100 for i in range(40)]),
        base("poor", 50, [2.0 + i % 3 / 100 for i in range(40)]),
        base("huge", 900, [0.1] * 40, estimate=TOO_BIG),
    ]
    chosen, reasons = recommend(rows, "en", params)
    assert chosen == "good"
    assert reasons[0] == "good predicts the domain's references best: 1.020 nats a character"
    assert reasons[-1] == "left out: huge: it needs 99 GiB"


def test_a_smaller_model_that_is_not_shown_to_be_worse_is_taken(params: Any) -> None:
    """The differences are +0.5 and −0.4 in turn: 0.05 on average, far from certain."""
    rows = [
        base("large", 100, [1.0] * 40),
        base("small", 50, [1.5 if i % 2 else 0.6 for i in range(40)]),
    ]
    chosen, reasons = recommend(rows, "sv", params)
    assert chosen == "small" and "small is smaller and not shown to be worse" in reasons[1]
    assert "does not name the domain's language 'sv'" in reasons[-1]


def test_nothing_is_recommended_where_nothing_fits(params: Any) -> None:
    with pytest.raises(BasesError, match="huge: it needs 99 GiB"):
        recommend([base("huge", 9, [1.0] * 40, estimate=TOO_BIG)], "en", params)


def test_bases_are_known_by_the_domains_and_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    known = known_bases()
    assert known["gemma-3-270m"].domain == "traffic_law"
    here = load_domain("construction")
    assert domain_of("SmolLM2-135M-Instruct", known, here).name == "construction"
    with pytest.raises(BasesError, match="no base model 'gpt-9' is described"):
        domain_of("gpt-9", known, here)
