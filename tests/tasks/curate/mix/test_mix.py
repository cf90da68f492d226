"""Mixing: replay by ratio, nothing of the evaluation, a split that does not move."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import digest_of, write_json
from tasks.core.params import BoostParams, FeedbackParams, MixParams, Params, load_params
from tasks.core.records import (
    EvaluationItem,
    Example,
    Receipt,
    Rewording,
    make_example,
    make_item,
    make_passage,
    read_own_jsonl,
    write_jsonl,
)
from tasks.core.tables import read_records, table_writer, write_records
from tasks.curate.mix import stage
from tasks.curate.mix.stage import (
    DomainRows,
    MixError,
    Spots,
    domain_rows,
    draw_replay,
    mix,
    mix_rows,
    of_a_night,
    sort_spots,
    split,
)
from tasks.similarity.embedder import embeddings_table, question_text, whole_text
from tests.laid_index import lay_index

PARAMS = MixParams(
    replay_ratio=0.2,
    safety_ratio=0.05,
    min_replay=0,
    min_refusals=0,
    validation_share=0.1,
    without_answer=0.2,
    wordings=1,
    two_passages=0.1,
    leak_threshold=0.6,
    leak_semantic_threshold=0.95,
    boost=BoostParams(share=0, repeat=2, max_perplexity=1000),
)


def ids(count: int, kind: str = "domain") -> list[str]:
    """Content hashes, in no order of theirs."""
    return [digest_of([kind, number]) for number in range(count)]


def plain(domain: list[str]) -> DomainRows:
    """Domain rows of a release without feedback."""
    return DomainRows(domain, [], [])


REFUSALS = ids(9, "safety")


def test_replay_makes_up_the_asked_share_and_every_example_has_one_receipt() -> None:
    """75 domain rows with ratios of 0.2 and 0.05: 100 rows, of which 20 are general and 5 are refusals."""
    domain, general = ids(75), ids(50, "general")
    mixed = mix_rows(plain(domain), general, REFUSALS, PARAMS, seed=1)
    rows = mixed.train + mixed.validation
    assert [len(set(rows) & set(pool)) for pool in (domain, general, REFUSALS)] == [75, 20, 5]
    assert (len(mixed.train), len(mixed.validation)) == (90, 10)
    assert set(mixed.validation) & set(domain) and set(mixed.validation) & set(general)
    assert sorted(r.example_id for r in mixed.receipts) == sorted(domain + general + REFUSALS)
    assert sum(not r.kept for r in mixed.receipts) == 30 + 4
    assert draw_replay(general, 80, "replay_ratio", 0.0, least=8) == []


def test_too_small_a_pool_is_used_whole_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(draw_replay(ids(19), 100, "replay_ratio", 0.2, least=0)) == sorted(ids(19))
    assert "mix.replay_ratio asks for 20 examples and there are 19: all are used" in capsys.readouterr().out


def test_a_small_domain_gets_no_fewer_refusals_than_the_floor() -> None:
    """15 domain rows: a ratio of 0.05 would be one refusal of 20 rows, which holds nothing against 15."""
    params = PARAMS.model_copy(update={"min_refusals": 8})
    mixed = mix_rows(plain(ids(15)), ids(50, "general"), REFUSALS, params, seed=1)
    assert len(set(mixed.train + mixed.validation) & set(REFUSALS)) == 8


@given(st.integers(0, 60), st.floats(0, 0.9))
def test_a_split_loses_nothing_and_repeats_nothing(count: int, share: float) -> None:
    pool = ids(count)
    train, validation = split(pool, share)
    assert sorted(train + validation) == sorted(pool)
    assert split(pool[::-1], share) == (train, validation)


def test_the_order_of_training_depends_on_the_seed_alone() -> None:
    domain, pool = ids(80), ids(50, "general")
    once = mix_rows(plain(domain), pool, REFUSALS, PARAMS, seed=1).train
    assert mix_rows(plain(domain[::-1]), pool[::-1], REFUSALS, PARAMS, seed=1).train == once
    assert mix_rows(plain(domain), pool, REFUSALS, PARAMS, seed=2).train != once


def test_weak_spots_are_seen_more_often_unless_they_are_held_out_and_replay_grows_with_them() -> None:
    """60 rows of which 6 validate; ten of the other 54 are seen twice more: 80 rows of the domain, 26.7 = 27 replayed,
    and 5 refusals: 80 / 0.75 = 107 in all, less the roundings.
    """
    domain = ids(60)
    train, held_out = split(domain, 0.1)
    boosted = [*train[:10], *held_out[:1]] * 2
    mixed = mix_rows(plain(domain), ids(50, "general"), REFUSALS, PARAMS, seed=1, boosted=boosted)
    assert {mixed.train.count(row) for row in train[:10]} == {3}
    assert {mixed.train.count(row) for row in train[10:]} == {1}
    assert mixed.train.count(held_out[0]) == 0
    assert len(mixed.train) + len(mixed.validation) == 60 + 20 + round(107 * 0.2) + round(107 * 0.05)
    reasons = {receipt.example_id: receipt.reason for receipt in mixed.receipts}
    assert reasons[train[0]] == "training, more often: a weak spot"
    assert (reasons[train[10]], reasons[held_out[0]]) == ("training", "validation")


FEEDBACK = FeedbackParams(
    start="champion", max_rows_per_identity=9, repeat=3, learning_rate_share=0.5, replay_examples=10
)


def test_without_a_champion_to_go_on_from_everything_is_trained_on_and_corrections_more_often() -> None:
    domain = ids(20)
    rows = domain_rows(domain, {domain[0], domain[1]}, False, FEEDBACK)
    assert rows == DomainRows(domain[2:], [domain[0], domain[1]] * 3, [])


def test_going_on_from_a_champion_replays_only_a_part_of_what_it_has_learnt() -> None:
    """20 examples, 2 of them new: 2 × 3 rows to learn, 10 of the other 18 replayed, 8 left out."""
    domain = ids(20)
    rows = domain_rows(domain, {domain[0], domain[1]}, True, FEEDBACK)
    assert (len(rows.plain), len(rows.repeated), len(rows.left_out)) == (10, 6, 8)
    again = domain_rows(domain[::-1], {domain[0], domain[1]}, True, FEEDBACK)
    assert again.plain == rows.plain
    other_night = domain_rows(domain, {domain[2]}, True, FEEDBACK)
    assert set(other_night.plain) != set(rows.plain)


def test_each_night_draws_general_and_safety_replay_of_its_own_and_a_release_always_the_same() -> None:
    """13 rows of a night: 13 / 0.75 = 17 in all, 3 of them general and 1 a refusal; 22 of a release: 29 and 6."""
    domain, general = ids(20), ids(50, "general")

    def drawn(new: str, going_on: bool, pool: list[str]) -> frozenset[str]:
        mixed = mix_rows(domain_rows(domain, {new}, going_on, FEEDBACK), general, REFUSALS, PARAMS, seed=1)
        return frozenset(pool) & {*mixed.train, *mixed.validation}

    assert len({drawn(new, True, general) for new in domain[:10]}) > 5
    assert len({drawn(new, True, REFUSALS) for new in domain[:10]}) > 2
    assert drawn(domain[0], True, general[::-1]) == drawn(domain[0], True, general)
    assert {drawn(new, False, general) for new in domain[:10]} == {frozenset(sorted(general)[:6])}


def test_a_night_has_no_least_number_of_refusals() -> None:
    """96 rows of the domain: 96 / (1 - 0.2 - 0.1) = 137 in all, 14 of them refusals; a release has its floor of 64."""
    asked = PARAMS.model_copy(update={"safety_ratio": 0.1, "min_refusals": 64})
    safety = ids(90, "safety")
    for settings, refusals in ((asked, 64), (of_a_night(asked), 14)):
        mixed = mix_rows(plain(ids(96)), ids(50, "general"), safety, settings, seed=1)
        assert len({*mixed.train, *mixed.validation} & set(safety)) == refusals


def test_corrections_are_never_held_out_and_have_one_receipt_each() -> None:
    """6 rows of corrections and 10 replayed: 16 / 0.75 = 21 in all, 4 general and 1 refusal; 1 in 10 validates."""
    domain = ids(20)
    rows = domain_rows(domain, {domain[0], domain[1]}, True, FEEDBACK)
    mixed = mix_rows(rows, ids(50, "general"), REFUSALS, PARAMS, seed=1)
    assert mixed.train.count(domain[0]) == 3
    assert not {domain[0], domain[1]} & set(mixed.validation)
    assert (len(mixed.train) + len(mixed.validation), len(mixed.validation)) == (21, 1)
    assert len(mixed.receipts) == len({r.example_id for r in mixed.receipts}) == 20 + 50 + 9
    assert sum(r.reason == "learnt by the champion, not replayed" for r in mixed.receipts) == 8


def example(instruction: str, output: str = "Ten weeks.", origin: str = "human", **fields: Any) -> Example:
    given = {"language": "en", "source": ("t",)} | fields
    return make_example(instruction=instruction, output=output, origin=origin, **given)


# --- the stage ---

ITEM = make_item(set="domain", prompt="How long does a building permit take?", reference="Ten weeks in most cases.")
ASKED = [
    f"{verb} a {thing}?"
    for verb in ("Who builds", "May I paint", "What costs", "Must I heat")
    for thing in ("chimney", "fence", "greenhouse", "jetty", "sauna", "well")
]
DOMAIN = [example(question, source=(f"faq/{number}",)) for number, question in enumerate(ASKED)]
LEAKS = [
    example("How long does a building permit take?", "Anything."),
    example("how long does a building-permit take", "Another thing."),
]
OTHERS: dict[str, Any] = {"origin": "general", "source": ("g",)}
GENERAL = [example(f"Tell me of the planet {name}.", **OTHERS) for name in ["Mars", "Venus", "Pluto", "Saturn"]]
SAFETY = [example(f"Help me to steal a {name}.", category="safety", **OTHERS) for name in ("car", "boat")]


def directions(texts: Sequence[str]) -> Any:
    """A direction for every text that has nothing to do with those of others."""
    seeds = [int(digest_of(text)[:8], 16) for text in texts]
    rows = np.stack([np.random.default_rng(seed).standard_normal(64) for seed in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_vectors(name: str, rows: list[tuple[str, str, str]]) -> None:
    table = embeddings_table(rows, directions)
    with table_writer(layout.EMBED / f"{name}.parquet", table.schema) as writer:
        writer.write(table)


@pytest.fixture
def run(set_params: Callable[..., None], base_model: Path) -> Callable[..., list[Receipt]]:
    """Runs the stage on 24 domain examples, two leaks, four general ones, two refusals, and an index without a row."""
    layout.BASE_MODEL.parent.mkdir()
    layout.BASE_MODEL.symlink_to(base_model)
    lay_index(layout.INDEX, [])
    write_jsonl(layout.INGEST / "rewordings.jsonl", list[Rewording]())
    files = {layout.SELECT / "examples": DOMAIN + LEAKS, layout.VALIDATE / "general": GENERAL}
    files |= {layout.VALIDATE / "safety": SAFETY}
    for path, rows in files.items():
        write_records(path.with_suffix(".parquet"), rows, Example)
        write_vectors(path.name, [(e.id, question_text(e), whole_text(e)) for e in rows])
    for name in layout.EVALUATION_SETS:
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", [ITEM] if name == "domain" else [])
    write_vectors("evaluation", [(ITEM.id, ITEM.prompt, ITEM.whole)])
    for name in ("ingest", "feedback", "construct", "validate", "dedup"):
        write_records(layout.INGEST.parent / name / "examples.parquet", DOMAIN, Example)

    def go(new: tuple[str, ...] = (), **changes: Any) -> list[Receipt]:
        ratios = {"replay_ratio": 0.1, "safety_ratio": 0.05, "min_replay": 0, "min_refusals": 0}
        ratios |= {"without_answer": 0.0, "two_passages": 0.0, "wordings": 1}
        set_params("mix", {**ratios, "leak_semantic_threshold": 0.95, **changes})
        write_json(layout.FEEDBACK / "new.json", list(new))
        write_json(layout.FEEDBACK / "other_words.json", {DOMAIN[3].id: "What about jetties?"})
        mix()
        return read_records(layout.MIX / "receipt.parquet", Receipt)

    return go


def test_refusals_cannot_be_asked_for_where_the_domain_has_no_harmful_requests(
    run: Callable[..., list[Receipt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = load_domain("construction").model_copy(update={"safety": None})
    monkeypatch.setattr(stage, "load_domain", lambda _: domain)
    with pytest.raises(MixError, match=r"safety_ratio asks for refused .* no `safety:`; set mix.safety_ratio to 0"):
        run()
    run(safety_ratio=0.0)
    assert not {one.id for one in SAFETY} & {one.id for one in trained()}


def trained() -> list[Example]:
    return read_own_jsonl(layout.MIX / "train.jsonl", Example)


def test_of_the_general_pool_what_passed_the_guard_is_left_for_pretraining(run: Callable[..., list[Receipt]]) -> None:
    leak = example(ITEM.prompt, "Ten weeks.", origin="general")
    write_records(layout.VALIDATE / "general.parquet", [*GENERAL, leak], Example)
    write_vectors("general", [(e.id, question_text(e), whole_text(e)) for e in [*GENERAL, leak]])
    run()
    assert read_records(layout.MIX / "general.parquet", Example) == GENERAL


def test_the_stage_keeps_leaks_out_and_accounts_for_every_example(run: Callable[..., list[Receipt]]) -> None:
    """24 / 0.85 = 28 rows: 3 general ones, 1 refusal; of the 24 and of the 4, 5% validate: 1 and 0."""
    receipts = run()
    assert sorted(r.example_id for r in receipts) == sorted(e.id for e in DOMAIN + LEAKS + GENERAL + SAFETY)
    leaks = [receipt for receipt in receipts if receipt.detail == ITEM.id]
    assert [receipt.example_id for receipt in leaks] == [example.id for example in LEAKS]
    validation = read_own_jsonl(layout.MIX / "validation.jsonl", Example)
    assert (len(trained()), len(validation)) == (27, 1)
    counts = json.loads((layout.DETAILS / "mix.json").read_text())
    none = {"corrections": 0, "not_replayed": 0, "boosted": 0, "with_passages": 0}
    assert counts == {"domain": 24, "replay": 4, "leaks": 2, "train": 27, "validation": 1, **none}


def test_what_the_index_holds_is_asked_in_other_words_and_answered_from_its_passages(
    run: Callable[..., list[Receipt]],
) -> None:
    """The index holds the 24 examples; of general ones and refusals nothing is looked up.

    0.2 of the 23 that train are 9.2 examples, so four pairs: 27 rows less 4; in both wordings 23 rows more. All that
    is counted is written.
    """
    known = [make_passage(kind="question", question=e.prompt, text=e.output, source=e.source[0]) for e in DOMAIN]
    lay_index(layout.INDEX, known)
    write_jsonl(
        layout.INGEST / "rewordings.jsonl", [Rewording(source=one.source, question="Other words?") for one in known]
    )
    run()
    written = [*trained(), *read_own_jsonl(layout.MIX / "validation.jsonl", Example)]
    domain = [one for one in written if one.origin == "human"]
    assert {one.output for one in domain} == {"[1] Ten weeks."} and len(domain) == 24
    assert {one.instruction == "Other words?" for one in domain} == {True, False}
    assert {one.passages for one in written if one.origin == "general"} == {None}
    counts = json.loads((layout.DETAILS / "mix.json").read_text())
    assert (counts["with_passages"], counts["train"]) == (24, 27)
    for wordings, rows in ((1, 23), (2, 46)):
        run(two_passages=0.2, wordings=wordings)
        assert len(trained()) == rows
        assert json.loads((layout.DETAILS / "mix.json").read_text())["train"] == rows


@pytest.mark.parametrize("begins_anew", [False, True])
def test_a_night_asks_its_corrections_in_other_words_and_what_lies_beside_them_also_where_it_begins_anew(
    run: Callable[..., list[Receipt]], begins_anew: bool
) -> None:
    """The other 23 of the domain lie beside the one; without corrections nothing of this is asked."""
    (layout.START / "adapter").mkdir(parents=True)
    run()
    assert [read_own_jsonl(path, EvaluationItem) for path in (layout.CORRECTION_ITEMS, layout.KEPT_ITEMS)] == [[], []]
    if begins_anew:
        (layout.START / "adapter").rmdir()
    run(new=(DOMAIN[3].id,))
    (asked,) = read_own_jsonl(layout.CORRECTION_ITEMS, EvaluationItem)
    assert (asked.prompt, asked.reference) == ("What about jetties?", DOMAIN[3].output)
    kept = read_own_jsonl(layout.KEPT_ITEMS, EvaluationItem)
    assert {item.prompt for item in kept} == {one.prompt for one in DOMAIN} - {DOMAIN[3].prompt}
    assert sum(example.id == DOMAIN[3].id for example in trained()) > 1
    assert "What about jetties?" not in {example.prompt for example in trained()}


def test_weak_spots_are_asked_for_only_where_the_settings_boost(
    run: Callable[..., list[Receipt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 24 examples may be weak spots; the first is one, the second is doubtful and says so in its receipt."""
    seen: list[int] = []

    def weak_spots(examples: list[Example], _: Any) -> Spots:
        seen.append(len(examples))
        return [DOMAIN[0].id], {DOMAIN[1].id: "a weak spot not weighted: why"}

    monkeypatch.setattr(stage, "weak_spots", weak_spots)
    run()
    assert seen == []
    receipts = {r.example_id: r for r in run(boost={"share": 0.1, "repeat": 3, "max_perplexity": 100})}
    assert seen == [24]
    assert sum(example.id == DOMAIN[0].id for example in trained()) in (0, 3)
    assert receipts[DOMAIN[1].id].detail == "a weak spot not weighted: why"


@pytest.fixture
def params(root: Path) -> Params:
    """The default settings with a fifth of the examples boosted, perplexities up to 100 believed."""
    found = load_params(root / "params.yaml")
    boost = found.mix.boost.model_copy(update={"share": 0.2, "max_perplexity": 100.0})
    return found.model_copy(update={"mix": found.mix.model_copy(update={"boost": boost})})


@pytest.mark.parametrize(
    "perplexities, last, weak, doubt",
    [
        ([1, 2, 3, 99, 5, 6, 7, 8, 9, 10], {}, [3, 9], ""),
        ([1, 2, 3, 4, 5, 6, 7, 8, 50, 1234.5], {}, [8], "perplexity 1234 is above 100"),
        (
            range(10, 20),
            {"output": "It takes 73 weeks.", "evidence": "A building permit takes ten weeks."},
            [8],
            "groundedness 0.00 is below 0.7",
        ),
        ([], {}, [], ""),
    ],
)
def test_the_hardest_share_is_boosted_the_hardest_first_without_those_that_look_bad(
    params: Params, perplexities: Sequence[float], last: dict[str, str], weak: list[int], doubt: str
) -> None:
    made = [{"instruction": f"Question {n}?", "output": "Ten weeks."} for n in range(len(perplexities))]
    made[-1:] = [one | last for one in made[-1:]]
    rows = [make_example(**fields, language="en", origin="self_qa", source=("t",)) for fields in made]
    doubtful = {rows[9].id: f"a weak spot not weighted: {doubt}"} if doubt else {}
    assert sort_spots(rows, perplexities, params) == ([rows[n].id for n in weak], doubtful)
