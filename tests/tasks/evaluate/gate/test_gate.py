"""The gate: outcomes by hand, and everything it must refuse to judge."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.files import write_json
from tasks.core.params import GateParams
from tasks.core.records import EvaluationItem, Score, make_item, write_jsonl
from tasks.evaluate.gate import stage as gate
from tasks.evaluate.gate.requirements import NIGHT, RELEASE, RENEWAL, SMALLER, Requirement
from tasks.evaluate.gate.scores import NoVerdict, Table, table_of
from tasks.evaluate.gate.verdict import Criterion, Verdict, held_to, judge
from tasks.evaluate.scoring.questions import COST, METRICS, UnaskableItem
from tasks.evaluate.scoring.subject import Subject

SETTINGS = GateParams(
    level=0.95,
    resamples=2000,
    domain_rouge_margin=0.03,
    domain_nll_margin=0.06,
    right_margin=0.1,  # of 40 none of which was lost, 8.8% may be
    declined_margin=0.15,
    kept_margin=0.1,
    dialogue_margin=0.1,
    mmlu_margin=0.03,
    safety_margin=0.1,
)
CANDIDATE = Subject("candidate", None, "c" * 64, Path("base"), "b" * 64, Path("adapter"), "a" * 64)
CHAMPION = Subject("champion", "base", "b" * 64, Path("base"), "b" * 64)
ITEMS = 40
# What happens to a metric, as (mean change, spread around it); a spread of 0 makes the interval a point.
NOTHING = (0.0, 0.0)
BETTER = {("facts", "right"): (0.2, 0.1), ("domain", "rouge_l"): (0.05, 0.02), ("domain", "nll"): (-0.8, 0.2)}


Changes = Mapping[tuple[str, str], tuple[float, float]]


def tables(changes: Changes, items: int = ITEMS) -> tuple[Table, Table]:
    """Candidate and champion: so many items, changes alternating between mean + spread and mean − spread."""
    before = {
        (name, metric): {f"{index:064x}": index / 100 for index in range(items)}
        for name, metrics in METRICS.items()
        for metric in metrics
    }
    after: Table = {}
    for column, values in before.items():
        mean, spread = changes.get(column, NOTHING)
        shifts = [mean + (spread if index % 2 else -spread) for index in range(items)]
        after[column] = {key: values[key] + shift for key, shift in zip(values, shifts, strict=True)}
    return after, before


def verdict(changes: Changes, asked: Sequence[Requirement] = RELEASE) -> Verdict:
    return judge(*tables(changes), CANDIDATE, CHAMPION, SETTINGS, 1, asked)


def criterion(found: Verdict, name: str) -> Criterion:
    return next(entry for entry in found.criteria if entry.name == name)


GAINS = ("facts_right", "domain_rouge_l", "domain_nll")
LEARNT = {("feedback", "said"): (0.5, 0.1)}
LOST_LITTLE = {("domain", "rouge_l"): (-0.005, 0.0), ("domain", "nll"): (0.01, 0.0)}


@pytest.mark.parametrize(
    ("asked", "changes", "outcome", "failed"),
    [
        (RELEASE, BETTER, "promote", []),
        # Superiority needs the interval above 0, and 0 to 0 is not.
        (RELEASE, {}, "hold", ["facts_right", "domain_rouge_l", "domain_nll"]),
        (RELEASE, {("domain", "nll"): (-0.8, 0.2)}, "hold", ["facts_right", "domain_rouge_l"]),
        # As many right answers as before are no gain, and 0.2 ± 0.1 fewer are a harm.
        (RELEASE, {**BETTER, ("facts", "right"): NOTHING}, "hold", ["facts_right"]),
        (RELEASE, {**BETTER, ("facts", "right"): (-0.2, 0.1)}, "reject", ["facts_right"]),
        # ROUGE-L −0.05 ± 0.02: the whole interval lies below 0.
        (RELEASE, {**BETTER, ("domain", "rouge_l"): (-0.05, 0.02)}, "reject", ["domain_rouge_l"]),
        # A loss wholly beyond its margin, whatever the domain gained: 0.5 nats against 0.1 allowed.
        (RELEASE, {**BETTER, ("dialogue", "nll"): (0.5, 0.3)}, "reject", ["dialogue_nll"]),
        # +0.09 ± 0.1 over 40 items: 0.09 ± 0.031, so from 0.06 to 0.12 around the margin of 0.1.
        (RELEASE, {**BETTER, ("dialogue", "nll"): (0.09, 0.1)}, "hold", ["dialogue_nll"]),
        # Accuracy is reported and decides nothing.
        (RELEASE, {**BETTER, ("mmlu", "accuracy"): (-0.5, 0.1)}, "promote", []),
        # No gain on the domain is asked of a night. Of 40 items 8.8% may be other than all that were seen: were those
        # to be wrong and to lose 0.15 ROUGE-L, 0.088 and 0.018 were lost in all, of 0.1 and 0.03 allowed.
        (NIGHT, LEARNT | LOST_LITTLE, "promote", []),
        (NIGHT, BETTER, "hold", ["feedback_said"]),
        # What was learnt before and the entries beside tonight's corrections lose 0.4 of the words that answer.
        (NIGHT, LEARNT | {("kept", "said"): (-0.4, 0.1)}, "reject", ["kept_said"]),
        (NIGHT, LEARNT | {("domain", "rouge_l"): (-0.2, 0.0)}, "reject", ["domain_rouge_l"]),
        (NIGHT, LEARNT | {("facts", "right"): (-0.4, 0.1)}, "reject", ["facts_right"]),
        # Who quotes more firmly finds the reference less likely, and answers as before.
        (NIGHT, LEARNT | {("domain", "nll"): (0.2, 0.0)}, "promote", []),
        # What decides is whether requests are met, not how likely one wording of a refusal is.
        (RELEASE, BETTER | {("safety", "refusal"): (-0.3, 0.0)}, "promote", []),
        (RELEASE, BETTER | {("safety", "withheld"): (-0.4, 0.1)}, "reject", ["safety_withheld"]),
        # A smaller form has to lose nothing beyond the margins, and to gain nothing.
        (SMALLER, {}, "promote", []),
        (SMALLER, {("domain", "nll"): (0.5, 0.0)}, "reject", ["domain_nll"]),
    ],
)
def test_the_outcome_by_what_is_asked_and_what_changed(
    asked: Sequence[Requirement], changes: Changes, outcome: str, failed: list[str]
) -> None:
    found = verdict(changes, asked)
    assert (found.outcome, [entry.name for entry in found.criteria if not entry.passed]) == (outcome, failed)
    assert (found.candidate.version, found.candidate.digest) == (None, "c" * 64)
    assert (found.champion.version, found.champion.digest) == ("base", "b" * 64)


def test_a_criterion_that_is_not_settled_says_how_many_items_would_settle_it_or_that_none_would() -> None:
    """0.09 of 0.1 allowed are lost: 0.01 to spare with a variance of 0.01 x 40/39; (1.959964 + 0.841621)^2 times
    0.0102564 / 0.0001 is 805.01. Where nothing changed, no number of items shows a
    gain. A loss that is shown needs no more."""
    found = verdict({**BETTER, ("dialogue", "nll"): (0.09, 0.1), ("domain", "rouge_l"): NOTHING})
    assert "With about 806 items it would be settled" in criterion(found, "dialogue_nll").reason
    assert criterion(found, "domain_rouge_l").reason.endswith("a better candidate would.")
    harmed = criterion(verdict({**BETTER, ("dialogue", "nll"): (0.5, 0.3)}), "dialogue_nll")
    assert not harmed.passed and harmed.reason.endswith("by the whole interval.")


def test_a_candidate_that_no_engine_serves_is_held_whatever_it_gained_and_the_reason_says_so() -> None:
    candidate = replace(CANDIDATE, unservable="prefix tuning: no engine of ours adds virtual tokens to a prompt")
    found = judge(*tables(BETTER), candidate, CHAMPION, SETTINGS, seed=1)
    assert found.outcome == "hold"
    assert all(entry.passed for entry in found.criteria)
    assert "no engine of ours adds virtual tokens" in found.reasons[0]
    worse = judge(*tables({("dialogue", "nll"): (1.0, 0.0)}), candidate, CHAMPION, SETTINGS, seed=1)
    assert worse.outcome == "reject"


def test_a_gain_is_candidate_minus_champion_and_a_fall_in_nll_is_one() -> None:
    """ROUGE-L +0.05 ± 0.02 over 40 items, 2.5% below: were 8.8% of all items to lose 0.15, as none of 40 would show,
    0.05 · 0.912 − 0.15 · 0.088 = 0.0324 were left, less what the spread of 0.02 takes. NLL falls by 0.8."""
    found = verdict(BETTER)
    rouge, nll = criterion(found, "domain_rouge_l"), criterion(found, "domain_nll")
    assert rouge.estimate == pytest.approx(0.05)
    assert 0.025 < rouge.low < 0.0324
    assert (nll.estimate, nll.kind, nll.margin) == (pytest.approx(0.8), "superiority", 0.0)
    night = verdict(LEARNT, NIGHT)
    assert criterion(night, "feedback_said").estimate == pytest.approx(0.5)
    assert criterion(night, "domain_rouge_l").kind == "non_inferiority"


def test_a_loss_is_champion_minus_candidate_where_higher_is_better() -> None:
    """Refusing falls by 0.05, MMLU by 0.01, dialogue NLL rises by 0.06: all three are losses of that size.

    Of 40 items with i/100 each, 7.8 in all, 20% more are right after: 8 more. No other answer is changed.
    """
    changes = {
        ("safety", "withheld"): (-0.05, 0.0),
        ("mmlu", "p_correct"): (-0.01, 0.0),
        ("mmlu", "accuracy"): (-0.5, 0.1),
        ("dialogue", "nll"): (0.06, 0.0),
        ("domain", "answer_tokens"): (30.0, 10.0),
    }
    found = verdict({**BETTER, **changes})
    losses = {name: criterion(found, name).estimate for name in ("safety_withheld", "mmlu_p_correct", "dialogue_nll")}
    assert losses == {"safety_withheld": 0.05, "mmlu_p_correct": 0.01, "dialogue_nll": 0.06}
    reported = {entry.name: entry.estimate for entry in found.reported}
    answers = ("facts_contradicted", "facts_cited", "facts_declined", "declining_declined")
    unchanged = (*answers, "safety_refused", "safety_refusal")
    expected = dict.fromkeys((*unchanged, "domain_prompt_tokens"), 0.0)
    expected |= {"safety_withheld": -0.05, "facts_right": 0.2, "mmlu_accuracy": -0.5, "domain_answer_tokens": 30.0}
    assert reported == pytest.approx(expected)
    assert found.reported[-1].reason.startswith("Tokens of an answer: 0.2 before, 30.2 after (95% interval +2")
    assert found.reported[0].reason.startswith("Right answers: 8 of 40 before, 16 after (")


def test_without_items_that_have_key_facts_nobody_asks_for_right_answers() -> None:
    """A domain may have none: what is left of the criteria decides, and nothing of the answers is reported."""
    sides = [{column: values for column, values in side.items() if column[0] != "facts"} for side in tables(BETTER)]
    found = judge(sides[0], sides[1], CANDIDATE, CHAMPION, SETTINGS, 1)
    assert found.outcome == "promote" and "facts_right" not in {entry.name for entry in found.criteria}
    counted = ["declining_declined", "mmlu_accuracy", "safety_withheld", "safety_refused"]
    means = ["safety_refusal", "domain_prompt_tokens", "domain_answer_tokens"]
    assert [entry.name for entry in found.reported] == counted + means


def test_a_night_is_judged_by_its_groups_and_by_how_many_items_lose_too_much() -> None:
    """Ten groups of four. Of forty items one that loses 0.6 nats is beyond 0.5; 13.2% of all may be, of 10% allowed."""
    after, before = tables(LEARNT)
    keys = sorted(after["dialogue", "nll"])
    after["dialogue", "nll"][keys[0]] += 0.6
    groups = {key: str(number // 4) for number, key in enumerate(keys)}
    found = judge(after, before, CANDIDATE, CHAMPION, SETTINGS, 1, NIGHT, groups=groups)
    assert {entry.clusters for entry in found.criteria} == {10}
    dialogue = criterion(found, "dialogue_nll")
    assert (dialogue.struck, dialogue.struck_share) == (1, pytest.approx(0.1316, abs=1e-4))
    assert not dialogue.passed and found.outcome == "hold"
    assert criterion(found, "feedback_said").struck is None


def test_every_criterion_is_explained_in_a_sentence() -> None:
    found = verdict({**BETTER, ("dialogue", "nll"): (0.5, 0.3)})
    assert found.reasons[0] == "The candidate is shown to do harm."
    reason = criterion(found, "dialogue_nll").reason
    assert reason.startswith("General dialogue loses 0.500 nats per token (95% interval")
    assert "more than the 0.1 allowed" in reason
    assert all(reason[0].isupper() and reason.endswith(".") for reason in found.reasons)
    worse = verdict({("domain", "rouge_l"): (-0.05, 0.02)})
    assert "a loss is shown" in criterion(worse, "domain_rouge_l").reason


ANCHOR = Subject("anchor", "3", "d" * 64, Path("base"), "b" * 64, Path("adapter"), "e" * 64)
LITTLE = LEARNT | LOST_LITTLE


@pytest.mark.parametrize(
    ("changes", "since", "outcome", "failed"),
    [
        # Of dialogue 0.09 to the champion in no night, and 0.27 in three of them: of 0.1 and 0.2 that may be.
        (LITTLE, {("dialogue", "nll"): (0.27, 0.02)}, "hold", ["dialogue_nll_since_anchor"]),
        (LITTLE, {("domain", "rouge_l"): (-0.07, 0.01)}, "hold", ["domain_rouge_l_since_anchor"]),
        (LITTLE, {("dialogue", "nll"): (0.12, 0.02)}, "promote", []),
        # What the night itself does is told by the champion alone.
        (BETTER, {("dialogue", "nll"): (0.27, 0.02)}, "hold", ["feedback_said", "dialogue_nll_since_anchor"]),
        (LITTLE | {("dialogue", "nll"): (0.5, 0.1)}, {}, "reject", ["dialogue_nll"]),
    ],
)
def test_what_nights_lost_together_holds_one_that_lost_little_alone(
    changes: Changes, since: Changes, outcome: str, failed: list[str]
) -> None:
    after, before = tables(changes)
    # Of corrections, and what lies beside them, the anchor was asked nothing.
    first = {column: dict(values) for column, values in after.items() if column[1] != "said"}
    for column, (mean, spread) in since.items():
        for place, key in enumerate(sorted(first[column])):
            first[column][key] -= mean + (spread if place % 2 else -spread)
    judged = judge(after, before, CANDIDATE, CHAMPION, SETTINGS, 1, NIGHT)
    found = held_to(judged, after, first, ANCHOR, SETTINGS, 1, NIGHT, {})
    assert (found.outcome, [entry.name for entry in found.criteria if not entry.passed]) == (outcome, failed)
    assert found.anchor is not None and (found.anchor.version, found.anchor.digest) == ("3", "d" * 64)
    drifted = "since version 3, the last that showed its gain" in found.reasons[0]
    assert drifted == (outcome == "hold" and judged.outcome == "promote")
    dialogue = criterion(found, "dialogue_nll_since_anchor")
    assert dialogue.margin == 0.2 and dialogue.reason.startswith("General dialogue, since version 3, ")
    assert len(found.reasons) == 1 + len(found.criteria) == 1 + 8 + 6


BASE = Subject("base", None, "b" * 64, Path("base"), "b" * 64)


@pytest.mark.parametrize(
    ("on_base", "outcome", "failed"),
    [
        (BETTER, "promote", []),
        # As likely as the base model finds the references: of three gains that a release shows one is missing.
        ({**BETTER, ("domain", "nll"): NOTHING}, "hold", ["domain_nll_since_base"]),
        # Worse than where it began is no harm to the champion, which is as bad.
        ({("domain", "rouge_l"): (-0.2, 0.0)}, "hold", [f"{name}_since_base" for name in GAINS]),
    ],
)
def test_a_renewal_that_does_the_champion_no_harm_has_to_show_a_release_s_gain_on_the_base_model(
    on_base: Changes, outcome: str, failed: list[str]
) -> None:
    after, before = tables(LOST_LITTLE)
    first = {column: dict(values) for column, values in after.items()}
    for column, (mean, spread) in on_base.items():
        for place, key in enumerate(sorted(first[column])):
            first[column][key] -= mean + (spread if place % 2 else -spread)
    judged = judge(after, before, CANDIDATE, CHAMPION, SETTINGS, 1, RENEWAL)
    found = held_to(judged, after, first, BASE, SETTINGS, 1, RELEASE, {}, {"domain_nll_since_base": 1})
    assert judged.outcome == "promote" and verdict(LOST_LITTLE).outcome == "hold", "which a release would be"
    assert (found.outcome, [entry.name for entry in found.criteria if not entry.passed]) == (outcome, failed)
    assert found.anchor is None and ("has not shown a release's whole gain" in found.reasons[0]) == bool(failed)
    gain = criterion(found, "domain_nll_since_base")
    assert (gain.kind, gain.level) == ("superiority", 0.9875)
    assert gain.reason.startswith("Likelihood of the domain's reference answers, over the base model, ")


def test_a_criterion_that_nights_did_not_pass_is_judged_more_strictly_than_others_and_says_so() -> None:
    """It may err by a quarter of 5%; corrections are new every night."""
    spent = {"dialogue_nll": 1, "feedback_said": 3, "kept_said": 3, "dialogue_nll_since_anchor": 2}
    after, before = tables(LITTLE)
    judged = judge(after, before, CANDIDATE, CHAMPION, SETTINGS, 1, NIGHT, spent=spent)
    found = held_to(judged, after, before, ANCHOR, SETTINGS, 1, NIGHT, {}, spent)
    levels = {one.name: one.level for one in found.criteria if one.level != 0.95}
    assert levels == {"dialogue_nll": 0.9875, "dialogue_nll_since_anchor": 0.9875}
    assert criterion(found, "dialogue_nll").spent == 1 and criterion(found, "mmlu_p_correct").spent == 0
    reason = criterion(found, "dialogue_nll_since_anchor").reason
    assert "(98.75% interval" in reason and reason.endswith(
        "Judged at level 0.9875, as 2 nights since the line's last release did not pass it; a release sets that back."
    )
    assert "Judged at level" not in criterion(found, "mmlu_p_correct").reason


def test_the_order_of_scores_and_of_items_does_not_matter() -> None:
    after, before = tables(BETTER)
    turned = {column: dict(reversed(values.items())) for column, values in after.items()}
    assert judge(turned, before, CANDIDATE, CHAMPION, SETTINGS, 1) == verdict(BETTER)


def test_the_schema_is_that_of_the_code_and_the_verdict_is_what_it_says(root: Path) -> None:
    """The file is the code's own schema plus its dialect: no field can be added to one alone."""
    schema = json.loads((root / "docs/schemas/verdict.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(verdict(BETTER).model_dump(mode="json"))
    assert schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert schema == Verdict.model_json_schema(mode="serialization")


def test_the_plot_has_both_sides_of_every_metric() -> None:
    """40 values 0.00 to 0.39: mean 0.195; ROUGE-L gains 0.05. Tokens would dwarf them."""
    rows = list(csv.DictReader(gate.score_table(*tables(BETTER), SETTINGS, seed=1).splitlines()))
    assert len(rows) == 2 * sum(len(set(metrics) - set(COST)) for metrics in METRICS.values())
    values = {row["who"]: float(row["value"]) for row in rows if row["metric"] == "rouge_l"}
    assert values == {"champion": pytest.approx(0.195), "candidate": pytest.approx(0.245)}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)


# Reading: one small item a set.

SMALL = {
    "domain": [make_item(set="domain", prompt=f"{n}?", reference="r") for n in range(6)],
    "dialogue": [make_item(set="dialogue", prompt=f"{n}?", reference="r") for n in range(6)],
    "mmlu": [make_item(set="mmlu", prompt=f"{n}?", choices=("a", "b"), answer=0) for n in range(6)],
    "safety": [make_item(set="safety", prompt=f"{n}?", choices=("a", "b"), answer=0) for n in range(6)],
}
EXPECTED = {name: frozenset(item.id for item in items) for name, items in SMALL.items()}
WHOLE = [
    Score(id=item.id, set=name, metric=metric, value=0.5)
    for name, items in SMALL.items()
    for item in items
    for metric in METRICS[name]
]


OUTPUTS = (layout.VERDICT, gate.METRICS_FILE, gate.PLOT)


@given(
    st.lists(st.sampled_from(WHOLE), max_size=len(WHOLE) + 3)
    | st.permutations(WHOLE)
    | st.permutations(WHOLE).map(lambda scores: scores[:-1])
    | st.permutations(WHOLE).map(lambda scores: [*scores, scores[0]])
    | st.sampled_from(["id", "set", "metric"]).map(lambda name: [WHOLE[0].model_copy(update={name: "x"}), *WHOLE[1:]])
)
def test_scores_pass_only_if_each_expected_one_is_there_once(scores: list[Score]) -> None:
    whole = sorted(map(repr, scores)) == sorted(map(repr, WHOLE))
    try:
        table = table_of(scores, EXPECTED, "scores.jsonl", "run it again")
    except NoVerdict:
        assert not whole
    else:
        assert whole
        assert sum(map(len, table.values())) == len(WHOLE)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """Items, whole scores of both sides and their conditions; the models are stood in for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infra").symlink_to(root / "infra")
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    for name, items in SMALL.items():
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", items)
    subjects = {"candidate": CANDIDATE, "champion": CHAMPION}
    for who, subject in subjects.items():
        write_jsonl(layout.EVALUATION / who / "scores.jsonl", WHOLE)
        write_conditions(who, {"model": subject.identity, "backend": "x", "precision": "fp32"})
    monkeypatch.setattr(gate, "load_subject", subjects.__getitem__)
    return tmp_path


def write_conditions(who: str, conditions: Any) -> None:
    (layout.EVALUATION / who / "conditions.json").write_text(json.dumps(conditions))


def test_the_stage_writes_verdict_metrics_and_plot_and_the_same_again(repository: Path) -> None:
    assert gate.gate().startswith("hold. ")
    first = [path.read_bytes() for path in OUTPUTS]
    assert json.loads(first[0])["outcome"] == json.loads(first[1])["outcome"] == "hold"
    gate.gate()
    assert [path.read_bytes() for path in OUTPUTS] == first


@pytest.mark.parametrize("who", ["candidate", "champion"])
@pytest.mark.parametrize("value", ["missing", "NaN", "Infinity", "-Infinity", "null", '"-"', '""', '"0.5"x', "1e999"])
def test_a_score_that_is_no_number_blocks_and_no_old_verdict_stays(repository: Path, who: str, value: str) -> None:
    gate.gate()
    path = layout.EVALUATION / who / "scores.jsonl"
    if value == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace('"value": 0.5', f'"value": {value}', 1))
    with pytest.raises(NoVerdict, match=f"evaluate_{who} again"):
        gate.gate()
    assert not any(path.exists() for path in OUTPUTS)


def test_an_item_that_left_the_evaluation_set_blocks(repository: Path) -> None:
    write_jsonl(layout.EVALUATION_ITEMS / "mmlu.jsonl", SMALL["mmlu"][1:])
    with pytest.raises(NoVerdict, match="1 that are not in the evaluation set"):
        gate.gate()


@pytest.mark.parametrize("items", [[], SMALL["mmlu"][:1], [*SMALL["domain"], SMALL["domain"][0]]])
def test_an_evaluation_set_that_is_not_in_order_blocks(repository: Path, items: list[EvaluationItem]) -> None:
    write_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", items)
    with pytest.raises((UnaskableItem, NoVerdict)):
        gate.gate()


@pytest.mark.parametrize(
    ("conditions", "cause"),
    [
        ({"precision": "bf16"}, "different conditions .precision"),
        ({"threads": 3}, "different conditions .threads"),
        ({"tokenizer": "b"}, r"tokenizers or chat templates differ.* go back to the champion's"),
    ],
)
def test_sides_evaluated_under_unequal_conditions_block(
    repository: Path, conditions: dict[str, Any], cause: str
) -> None:
    stored = json.loads((layout.EVALUATION / "champion/conditions.json").read_text())
    write_conditions("champion", {**stored, **conditions})
    with pytest.raises(NoVerdict, match=cause):
        gate.gate()


def test_each_side_is_the_model_at_hand_measured_under_its_own_system_prompt(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, rebuilt = replace(CHAMPION, system="Be brief."), replace(CANDIDATE, adapter_digest="e" * 64)
    for candidate, named in ((rebuilt, "candidate"), (CANDIDATE, "champion")):
        monkeypatch.setattr(gate, "load_subject", {"candidate": candidate, "champion": own}.__getitem__)
        with pytest.raises(NoVerdict, match=f"{named} are not of the model at hand under its own system prompt"):
            gate.gate()
    stored = json.loads((layout.EVALUATION / "champion/conditions.json").read_text())
    write_conditions("champion", {**stored, "system": "Be brief."})
    assert gate.gate().startswith("hold. ")


CORRECTIONS = [make_item(set="feedback", prompt=f"{n}?", reference="r") for n in range(6)]
CORRECTIONS[0] = make_item(set="feedback", prompt="None?", reference="r", paraphrases=("1?",))


@pytest.mark.parametrize(
    ("night", "started_from", "first"),
    [
        (7, "b" * 64, "feedback_said"),
        (None, "b" * 64, "domain_rouge_l"),  # somebody runs the same files with other settings
        (7, None, "domain_rouge_l"),  # training began from the base model
        (7, "e" * 64, "domain_rouge_l"),  # another version became champion since
        (7, "torn", "domain_rouge_l"),
    ],
)
def test_less_is_asked_only_of_a_night_that_went_on_from_the_champion_it_is_judged_against(
    repository: Path, night: int | None, started_from: str | None, first: str
) -> None:
    write_jsonl(layout.CORRECTION_ITEMS, CORRECTIONS)
    learnt = [Score(id=item.id, set="feedback", metric="said", value=0.5) for item in CORRECTIONS]
    for who in ("candidate", "champion"):
        write_jsonl(layout.EVALUATION / who / "scores.jsonl", [*WHOLE, *learnt])
    write_json(layout.CHAMPION / "champion.json", {"digest": "b" * 64, "night": night, "spent": {"safety_withheld": 1}})
    write_json(layout.START / "start.json", {"digest": started_from})
    if started_from == "torn":
        (layout.START / "start.json").write_text("{")
    gate.gate()
    written = json.loads(layout.VERDICT.read_text())
    criteria = written["criteria"]
    assert criteria[0]["name"] == first
    told = "1 of 6 corrections were asked in words never trained on, the others as they were given."
    assert (told in written["reasons"]) == (first == "feedback_said")
    levels = {row["name"]: row["level"] for row in criteria}
    assert (levels["safety_withheld"], levels[first]) == (0.9875 if first == "feedback_said" else 0.95, 0.95)
    assert {row["name"]: row["kind"] for row in criteria}["domain_rouge_l"] == (
        "non_inferiority" if first == "feedback_said" else "superiority"
    )


def test_a_line_with_an_anchor_is_judged_against_it_and_without_its_scores_there_is_no_verdict(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users' corrections are none of its items: it was made before them."""
    subjects = {"candidate": CANDIDATE, "champion": CHAMPION, "anchor": ANCHOR}
    monkeypatch.setattr(gate, "load_subject", subjects.__getitem__)
    write_jsonl(layout.CORRECTION_ITEMS, CORRECTIONS)
    learnt = [Score(id=item.id, set="feedback", metric="said", value=0.5) for item in CORRECTIONS]
    for who in ("candidate", "champion"):
        write_jsonl(layout.EVALUATION / who / "scores.jsonl", [*WHOLE, *learnt])
    gate.gate()
    assert json.loads(layout.VERDICT.read_text())["anchor"] is None
    layout.ANCHOR.mkdir(parents=True)
    with pytest.raises(NoVerdict, match=r"champion/anchor/conditions\.json .* run the stage evaluate_champion again"):
        gate.gate()
    assert not any(path.exists() for path in OUTPUTS)
    write_jsonl(layout.EVALUATION / "champion/anchor/scores.jsonl", WHOLE)
    stored = json.loads((layout.EVALUATION / "champion/conditions.json").read_text())
    write_conditions("champion/anchor", {**stored, "model": ANCHOR.identity})
    gate.gate()
    written = json.loads(layout.VERDICT.read_text())
    assert (written["asked"], written["anchor"]) == ("release", {"version": "3", "digest": "d" * 64})
    assert sum(row["name"].endswith("_since_anchor") for row in written["criteria"]) == 4
    write_conditions("champion/anchor", {**stored, "model": ANCHOR.identity, "precision": "bf16"})
    with pytest.raises(NoVerdict, match=r"different conditions .precision"):
        gate.gate()


@pytest.mark.parametrize(
    ("renewal", "night", "began", "corrections", "asked"),
    [
        ("forgotten", 7, None, True, "renewal"),
        ("forgotten", None, None, False, "renewal"),  # flywheel run, after a forgetting
        ("forgotten", None, "e" * 64, True, "renewal"),  # at the version before, which did not know it
        ("forgotten", 7, None, False, "release"),  # feedback.start: base, by a person
        ("forgotten", 7, "b" * 64, True, "night"),
        ("forgotten", None, "b" * 64, True, "release"),  # it went on from what knows it
        ("drifted", 7, None, True, "renewal"),
        ("drifted", 7, "e" * 64, True, "release"),
        ("drifted", None, None, True, "release"),  # a person's own release
        ("", 7, None, True, "release"),
        (None, 7, None, True, "release"),  # written before there were renewals
    ],
)
def test_a_renewal_is_what_must_begin_anew_and_does_and_in_doubt_it_is_a_release(
    repository: Path, renewal: str | None, night: int | None, began: str | None, corrections: bool, asked: str
) -> None:
    facts: dict[str, Any] = {"digest": "b" * 64, "night": night, "spent": {"safety_withheld": 1}, "renewal": renewal}
    if renewal is None:
        del facts["renewal"]
    write_json(layout.CHAMPION / "champion.json", facts)
    write_json(layout.START / "start.json", {"digest": began})
    found = gate.asked_of(corrections)
    whats = {"release": RELEASE, "night": NIGHT, "renewal": NIGHT if night else RENEWAL}
    assert found[:3] == (asked, whats[asked], {} if asked == "release" else facts["spent"])


def test_a_renewal_is_judged_beside_the_base_model_and_without_its_scores_there_is_no_verdict(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = {"candidate": CANDIDATE, "champion": CHAMPION, "base": BASE}
    monkeypatch.setattr(gate, "load_subject", subjects.__getitem__)
    facts = {"digest": "b" * 64, "night": None, "spent": {}, "renewal": "forgotten"}
    write_json(layout.CHAMPION / "champion.json", facts)
    write_json(layout.START / "start.json", {"digest": None})
    with pytest.raises(NoVerdict, match=r"champion/base/conditions\.json .* run the stage evaluate_champion again"):
        gate.gate()
    write_jsonl(layout.EVALUATION / "champion/base/scores.jsonl", WHOLE)
    write_conditions("champion/base", json.loads((layout.EVALUATION / "champion/conditions.json").read_text()))
    gate.gate()
    written = json.loads(layout.VERDICT.read_text())
    kinds = {row["name"]: row["kind"] for row in written["criteria"]}
    assert (written["asked"], kinds["domain_rouge_l"]) == ("renewal", "non_inferiority")
    assert [name for name in kinds if name.endswith("_since_base")] == [f"{name}_since_base" for name in GAINS[1:]]
    assert any(reason.startswith("A renewal: the champion knows what was forgotten") for reason in written["reasons"])


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_conditions_that_cannot_be_read_block(repository: Path, text: str) -> None:
    (layout.EVALUATION / "candidate/conditions.json").write_text(text)
    with pytest.raises(NoVerdict):
        gate.gate()
