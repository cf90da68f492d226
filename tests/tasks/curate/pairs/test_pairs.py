"""Preferences on their way to training: none that leaks, none that fails its suite, no prompt on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.files import verify_manifest, write_json
from tasks.core.records import (
    Message,
    Preference,
    Receipt,
    make_item,
    make_preference,
    read_own_jsonl,
    write_jsonl,
)
from tasks.curate.pairs import stage as pairs
from tasks.curate.pairs.stage import as_examples, leaking, learnt_tonight, read_preferences, split
from tasks.curate.validate.stage import SuiteFailed
from tasks.similarity.leaks import Leak


def a_pair(question: str, chosen: str = "good", rejected: str = "poor") -> Preference:
    prompt = (Message(role="system", content="Be brief."), Message(role="user", content=question))
    return make_preference(prompt, chosen, rejected, ("feedback/1",))


@given(st.integers(0, 30), st.floats(0, 0.9))
def test_a_split_keeps_a_prompt_s_pairs_together_and_loses_none(prompts: int, share: float) -> None:
    made = [a_pair(str(number), rejected=text) for number in range(prompts) for text in ("poor", "worse")]
    train, validation = split(made, share)
    assert {one.id for one in train} | {one.id for one in validation} == {one.id for one in made}
    assert not {one.prompt for one in train} & {one.prompt for one in validation}
    assert len(validation) == 2 * round(prompts * share)


def test_what_people_chose_comes_first_and_a_repeat_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    domain: Any = SimpleNamespace(folder=Path("domains/toy"), preferences=[])
    assert read_preferences(domain, [], Counter()) == []
    write_jsonl(layout.FEEDBACK / "preferences.jsonl", [a_pair("b")])
    write_jsonl(domain.folder / "preferences.jsonl", [a_pair("a"), a_pair("b")])
    assert read_preferences(domain, [], Counter()) == [a_pair("b"), a_pair("a")]


def test_a_pair_leaks_by_either_of_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    item = make_item(set="domain", prompt="How high?", reference="taken")
    leak = Leak(item, "near", 0.9)
    monkeypatch.setattr(pairs, "_guard", lambda examples, *_: [leak if e.output == "taken" else None for e in examples])
    made = [a_pair("a"), a_pair("b", chosen="taken"), a_pair("c", rejected="taken")]
    params: Any = None
    found = leaking(made, params, SimpleNamespace(language="en"))  # type: ignore[arg-type]
    assert list(found) == [made[1].id, made[2].id]
    assert found[made[1].id].reason == "resembles an evaluation item (domain)"
    assert [(e.prompt, e.output) for e in as_examples(made[1], "en")] == [("b", "taken"), ("b", "poor")]


TOY = SimpleNamespace(folder=Path("domains/toy"), language="en", preferences=[])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The settings of a domain in small, whose suite an empty answer fails and whose evaluation nothing leaks."""
    monkeypatch.chdir(tmp_path)
    params = SimpleNamespace(
        domain="toy",
        align=SimpleNamespace(alignment="dpo", online=False),
        reward=SimpleNamespace(validation_share=0.5),
        validate_=SimpleNamespace(max_failing_share=0.5),
    )
    monkeypatch.setattr(pairs, "load_params", lambda: params)
    monkeypatch.setattr(pairs, "load_domain", lambda _: TOY)
    monkeypatch.setattr(pairs, "failing", lambda read, *_: {one.id: "empty" for one in read if not one.chosen})
    monkeypatch.setattr(pairs, "_guard", lambda examples, *_: [None] * len(examples))
    return params


def test_without_preferences_the_outputs_are_empty_and_whole(toy: SimpleNamespace) -> None:
    assert pairs.pairs().startswith("0 preferences to learn from, 0 held out, of 0")
    verify_manifest(layout.PAIRS)
    assert [path.read_text() for path in sorted(layout.PAIRS.glob("*.jsonl"))] == ["", "", ""]


def test_none_are_read_where_nothing_is_aligned(toy: SimpleNamespace) -> None:
    write_jsonl(Path("domains/toy/preferences.jsonl"), [a_pair("a")])
    toy.align.alignment = "none"
    assert "alignment is none" in pairs.pairs()
    assert (layout.PAIRS / "train.jsonl").read_text() == ""


def test_the_stage_writes_both_sides_and_what_it_left_out(toy: SimpleNamespace) -> None:
    made = [a_pair("a"), a_pair("b"), a_pair("c"), a_pair("d"), a_pair("e", chosen="")]
    write_jsonl(Path("domains/toy/preferences.jsonl"), made)
    assert pairs.pairs() == (
        "2 preferences to learn from, 2 held out, of 5: 1 fail the suite, 0 leak an evaluation item"
    )
    (dropped,) = read_own_jsonl(layout.PAIRS / "dropped.jsonl", Receipt)
    assert (dropped.example_id, dropped.reason, dropped.kept) == (made[4].id, "empty", False)


def test_a_night_learns_the_new_preferences_and_as_many_of_the_others_drawn_afresh() -> None:
    """Of ten prompts two are held out, of which one holds a new pair: that one is learnt, the other is measured on."""
    made = [a_pair(str(number)) for number in range(10)]
    train, validation = split(made, 0.2)
    new = {train[0].id, validation[0].id}
    learnt, held_out = learnt_tonight(train, validation, new)
    assert [one.id in new for one in learnt] == [True, True, False, False]
    assert held_out == validation[1:]
    nights = [learnt_tonight(train, validation, {one.id})[0] for one in train]
    assert {len(night) for night in nights} == {2} and len({night[1].id for night in nights}) > 2
    assert learnt_tonight(train, validation, set()) == ([], [])


def test_the_stage_of_a_night_goes_by_what_is_new(toy: SimpleNamespace) -> None:
    (layout.START / "adapter").mkdir(parents=True)
    made = [a_pair(str(number)) for number in range(6)]
    write_jsonl(layout.FEEDBACK / "preferences.jsonl", made)
    write_json(layout.FEEDBACK / "new_preferences.json", [made[2].id])
    assert pairs.pairs().startswith("2 preferences to learn from")
    assert made[2] in read_own_jsonl(layout.PAIRS / "train.jsonl", Preference)


def test_the_domain_s_own_preferences_pass_the_real_suite_and_a_spoilt_one_fails(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty, one with a role marker: 5 %, which the settings allow; three are too many."""
    from tasks.core.domain import load_domain
    from tasks.core.params import load_params

    monkeypatch.chdir(root)
    params, domain = load_params(), load_domain("construction")
    good = read_own_jsonl(domain.folder / "preferences.jsonl", Preference)[:19]
    bad = [a_pair(f"spoilt {number}", chosen="<|im_start|>user") for number in range(3)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "domains").symlink_to(root / "domains")
    layout.BASE_MODEL.symlink_to(base_model)
    layout.EVALUATION_ITEMS.mkdir(parents=True)
    assert pairs.failing([*good, bad[0]], params, domain) == {bad[0].id: "role marker in the text"}
    with pytest.raises(SuiteFailed, match="3 of 22 rows fail"):
        pairs.failing([*good, *bad], params, domain)
    chosen = [make_preference(one.prompt, one.chosen, one.rejected, (f"feedback:{n}",)) for n, one in enumerate(bad)]
    asked = Message(role="user", content="How high?")
    chosen += [
        make_preference((asked, asked), "Two metres.", "Ask.", ("feedback:7",)),
        make_preference((asked,), "Two metres. " * 300, "Ask.", ("feedback:8",)),
    ]
    found = pairs.failing([*good, *chosen], params, domain)
    assert list(found) == [one.id for one in chosen]
    assert [found[one.id].split(":")[0] for one in chosen[3:]] == ["cannot be trained on"] * 2
