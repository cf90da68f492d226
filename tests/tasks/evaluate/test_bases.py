"""The choice of a base model: losses that tokenizers cannot distort, and a recommendation with its reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.domain import load_domain
from tasks.core.files import write_json, write_manifest
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, Score
from tasks.evaluate import bases
from tasks.evaluate.bases import BasesError, Candidate, domain_of, known_bases, losses_of, recommend
from tasks.train.base_model import stage as base_model

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
    assert losses_of("m", [score], [item]) == {"a" * 64: 6 / 5}


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
    with pytest.raises(BasesError, match="huge: it needs 99 GiB"):
        recommend(rows[-1:], "en", params)


def test_a_smaller_model_that_is_not_shown_to_be_worse_is_taken(params: Any) -> None:
    """The differences are +0.5 and −0.4 in turn: 0.05 on average, far from certain."""
    rows = [
        base("large", 100, [1.0] * 40),
        base("small", 50, [1.5 if i % 2 else 0.6 for i in range(40)]),
    ]
    chosen, reasons = recommend(rows, "sv", params)
    assert chosen == "small" and "small is smaller and not shown to be worse" in reasons[1]
    assert "does not name the domain's language 'sv'" in reasons[-1]


def test_bases_are_known_by_the_domains_and_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    known = known_bases()
    assert known["gemma-3-270m"].domain == "traffic_law"
    here = load_domain("construction")
    assert domain_of("SmolLM2-135M-Instruct", known, here).name == "construction"
    with pytest.raises(BasesError, match="no base model 'gpt-9' is described"):
        domain_of("gpt-9", known, here)


@pytest.fixture
def converted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A repository whose data/base_model is the domain's; conversions are played, and where they went is noted."""
    for name in ("domains", ".flywheel/packages"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []

    def convert(owner: Any, target: Path, accepted: Any = ()) -> None:
        made.append(target)
        write_json(target / "config.json", {"max_position_embeddings": 77})
        source = owner.base_model
        (target / "NOTICE.txt").write_text(base_model.notice(source, owner.paths(source)[0]))
        if source.chat_template:
            (target / "chat_template.jinja").write_bytes((owner.folder / source.chat_template).read_bytes())
        write_manifest(target)

    monkeypatch.setattr(base_model, "convert", convert)
    convert(load_domain("construction"), Path("data/base_model"))
    made.clear()
    return made


def test_a_base_model_is_reused_only_where_it_was_converted_from_that_source(converted: list[Path]) -> None:
    """What lies in data/base_model from before domain.yaml named another file is not what is asked."""
    here = load_domain("construction")
    assert bases.prepare("m", here, here, []) == Path("data/base_model") and not converted
    other = here.model_copy(update={"base_model": here.base_model.model_copy(update={"sha256": "f" * 64})})
    aside = bases.prepare("m", other, other, [])
    assert converted == [aside] and aside.parent == bases.FOLDER
    assert bases.prepare("m", other, other, []) == aside and converted == [aside], "made once"
    (Path("data/base_model") / "config.json").write_text("{}")
    assert bases.prepare("m", here, here, []) != Path("data/base_model"), "its files changed"


def test_another_chat_template_makes_another_base_model(converted: list[Path], tmp_path: Path) -> None:
    here = load_domain("construction")
    (tmp_path / "one.jinja").write_text("{{ messages }}")
    changes = {"chat_template": str(tmp_path / "one.jinja")}
    owner = here.model_copy(update={"base_model": here.base_model.model_copy(update=changes)})
    folder = bases.prepare("m", owner, here, [])
    assert bases.converted_from(owner, folder)
    (tmp_path / "one.jinja").write_text("{{ messages }} and more")
    assert not bases.converted_from(owner, folder)


def test_the_table_shows_what_a_training_costs_and_how_much_a_model_reads() -> None:
    from flywheel.compare import words

    estimate = FITS | {"memory": {"needed": 3 << 30}, "time": {"seconds": 60.0}, "cost": 0.25}
    text = words([base("good", 100, [1.0], estimate=estimate, context=8192)], "good", ["because"], "EUR")
    head, row, *_ = text.splitlines()
    assert head.split()[-3:] == ["EUR", "licence,", "languages"]
    assert row.split() == ["*", "good", "100", "8192", "1.000", "3.0", "GiB", "60", "s", "0.25", "Apache-2.0,", "en"]
