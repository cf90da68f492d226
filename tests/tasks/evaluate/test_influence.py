"""Which training rows pulled at what was lost: checked against steps of real gradient descent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.core.records import EvaluationItem, Example, Score, make_example, read_own_jsonl, write_jsonl
from tasks.core.tables import write_records
from tasks.evaluate.influence import INFLUENCE, NoInfluence, Pull, influences, kinds_of, load_trainable, main, means_of
from tasks.text.likelihood import answer_losses
from tests.preferences import write_adapter
from tests.training import link_weights

pytestmark = pytest.mark.slow

ANSWER = ([5, 6, 7, 8], [30, 31, 32])
ROWS = [([5, 6, 9], [30, 31, 32]), ([40, 41], [42, 43, 44, 45]), ([5, 6, 7, 8], [90, 91]), ANSWER]


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> Any:
    """The two-layer model with a random adapter, the same one every time, its parameters with gradients."""
    import torch

    torch.manual_seed(1)
    write_adapter(tmp_path / "adapter", tiny_model, scale=0.2)
    return load_trainable(tiny_model, tmp_path / "adapter")[0]


def own_gradient(model: Any, row: tuple[list[int], list[int]]) -> list[Any]:
    import torch

    model.zero_grad(set_to_none=True)
    prompt, answer = row
    labels = torch.tensor([[-100] * len(prompt) + answer])
    model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss.backward()
    return [one.grad for one in model.parameters() if one.requires_grad]


def test_a_row_moves_the_answer_as_a_real_step_on_it_does(trained: Any) -> None:
    """A step of size e along the row's unit gradient lowers the answer's loss by e |g| cos, g the answer's gradient."""
    import torch

    found = influences(trained, [ANSWER], ROWS)
    target = own_gradient(trained, ANSWER)
    size = float(sum((one**2).sum() for one in target)) ** 0.5
    before = answer_losses(trained, [ANSWER], 1)[0]
    step = 0.003
    for row, cosine in zip(ROWS, found, strict=True):
        gradient = own_gradient(trained, row)
        length = float(sum((one**2).sum() for one in gradient)) ** 0.5
        parameters = [one for one in trained.parameters() if one.requires_grad]
        with torch.no_grad():
            for one, own in zip(parameters, gradient, strict=True):
                one -= step * own / length
            after = answer_losses(trained, [ANSWER], 1)[0]
            for one, own in zip(parameters, gradient, strict=True):
                one += step * own / length
        assert (before - after) / (step * size) == pytest.approx(cosine, abs=0.03)


def test_the_order_of_five_rows_is_that_of_retraining_without_each_and_the_first_stays_first(trained: Any) -> None:
    """Over small steps all five come in the order of their dot products; over large ones, which change the model so
    that it makes the answer certain, the row that says the same is still the one that is missed most.
    """
    import torch

    rows = [*ROWS[:3], ([5, 6, 7, 8], [60, 61]), ([50], [30])]
    parameters = [one for one in trained.parameters() if one.requires_grad]
    begun = [one.detach().clone() for one in parameters]

    def retrained(rate: float, steps: int, without: int | None = None) -> float:
        for _ in range(steps):
            kept = [own_gradient(trained, row) for place, row in enumerate(rows) if place != without]
            with torch.no_grad():
                for one, *gradients in zip(parameters, *kept, strict=True):
                    one -= rate * sum(gradients)
        after = answer_losses(trained, [ANSWER], 1)[0]
        with torch.no_grad():
            for one, first in zip(parameters, begun, strict=True):
                one.copy_(first)
        return after

    lengths = [float(sum((one**2).sum() for one in own_gradient(trained, row))) ** 0.5 for row in rows]
    pulled = [value * length for value, length in zip(influences(trained, [ANSWER], rows), lengths, strict=True)]
    missed = [retrained(2e-6, 5, place) - retrained(2e-6, 5) for place in range(5)]
    assert sorted(range(5), key=missed.__getitem__) == sorted(range(5), key=pulled.__getitem__)
    later = [retrained(5e-4, 10, place) for place in range(5)]
    assert later.index(max(later)) == pulled.index(max(pulled)) == 0


def test_an_answer_itself_pulls_at_itself_entirely_and_one_against_it_pulls_away(trained: Any) -> None:
    """The same prompt with another answer takes likelihood from the first."""
    likely, _, contrary, itself = influences(trained, [ANSWER], ROWS)
    assert itself == pytest.approx(1.0, abs=1e-5) and contrary < likely < 1


def example(text: str, origin: str) -> Example:
    source = ("feedback:f1", "night:2") if origin == "feedback" else ("file",)
    return make_example(instruction=text, output="yes", origin=origin, source=source, language="en")


def test_kinds_are_told_apart_and_weighted_by_how_often_a_row_is_seen() -> None:
    """-0.5 three times and 0.1 once: (-1.5 + 0.1) / 4 = -0.35."""
    often, once, refused, general = (
        example(text, origin)
        for text, origin in (("a", "feedback"), ("b", "feedback"), ("c", "general"), ("d", "general"))
    )
    seen = [often, often, often, once, refused, general]
    kinds = kinds_of(seen, {refused.id})
    values = {often.id: -0.5, once.id: 0.1, refused.id: -0.4, general.id: 0.3}
    rows = [
        Pull(example=key, kind=kinds[key], question="", source=(), times=3 if key == often.id else 1, influence=value)
        for key, value in values.items()
    ]
    told = {one.name: (one.rows, one.influence) for one in means_of(rows, seen, kinds)}
    assert told == {"correction": (4, -0.35), "refusal": (1, -0.4), "general dialogue": (1, 0.3)}


@pytest.fixture
def judged(repository: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A night that lost on a dialogue and a harmful request, trained on the very answers of both and a correction."""
    root = tmp_path / "night"
    link_weights(repository, root)
    monkeypatch.chdir(root)
    write_adapter(layout.START / "adapter", tiny_model, scale=0.1)
    write_manifest(layout.START)
    lost, kept = read_own_jsonl(layout.EVALUATION_ITEMS / "dialogue.jsonl", EvaluationItem)
    (harm,) = read_own_jsonl(layout.EVALUATION_ITEMS / "safety.jsonl", EvaluationItem)
    for who, value in (("champion", 1.0), ("candidate", 3.0)):
        values = {lost.id: value, kept.id: 1.0}
        scores = [Score(id=key, set="dialogue", metric="nll", value=one) for key, one in values.items()]
        scores.append(Score(id=harm.id, set="safety", metric="withheld", value=float(who == "champion")))
        write_jsonl(layout.EVALUATION / who / "scores.jsonl", scores)
    about = {"origin": "general", "source": ("file",), "language": "en"}
    same = make_example(instruction=lost.prompt, output=lost.reference, **about)
    refusal = make_example(instruction=harm.prompt, output=harm.choices[0], **about)
    write_jsonl(layout.MIX / "train.jsonl", [same, refusal, *[example("Is it?", "feedback")] * 4])
    write_records(layout.INGEST / "safety.parquet", [refusal], Example)
    return root


def verdict(passed: bool, lost: str = "dialogue_nll") -> None:
    criterion = {"name": lost, "passed": passed, "p_harm": 0.01}
    write_json(layout.VERDICT, {"criteria": [criterion, criterion | {"name": "own_benchmark", "passed": False}]})


def test_the_rows_of_a_night_are_asked_about_the_answers_that_lost_most(judged: Path) -> None:
    verdict(passed=False)
    main()
    found = json.loads(INFLUENCE.read_text())
    assert (found["criterion"], found["answers"]) == ("dialogue_nll", 2)
    seen = {row["kind"]: row["times"] for row in found["rows"]}
    assert seen == {"general dialogue": 1, "refusal": 1, "correction": 4}
    pulls = {row["kind"]: row["influence"] for row in found["rows"]}
    assert pulls["general dialogue"] == max(pulls.values()) > 0.5
    sources = {row["kind"]: row["source"] for row in found["rows"]}
    assert sources["correction"] == ["feedback:f1", "night:2"]


def test_a_request_that_is_no_longer_refused_is_asked_about_by_its_refusal(judged: Path) -> None:
    """It was trained on as it stands, but for the end of the turn."""
    verdict(passed=False, lost="safety_withheld")
    main()
    found = json.loads(INFLUENCE.read_text())
    pulls = {row["kind"]: row["influence"] for row in found["rows"]}
    assert found["answers"] == 1 and pulls["refusal"] == max(pulls.values()) > 0.8


def test_where_nothing_was_lost_there_is_nothing_to_explain(judged: Path) -> None:
    verdict(passed=True)
    with pytest.raises(NoInfluence, match="no loss to explain"):
        main()
