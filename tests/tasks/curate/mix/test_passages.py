"""Examples with passages: the right one shown and cited, or taken away; two questions at once; never too long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.params import Params, load_params
from tasks.core.records import Example, Passage, Turn, make_passage
from tasks.curate.mix.passages import Answering
from tasks.knowledge.search import Knowledge
from tasks.text.passages import AnsweringWords, answering_words, ask_from, asked, cited
from tests.examples import an_example
from tests.laid_index import count, entry, lay_index

KINDS = ("chimney", "fence", "garage", "jetty", "kiosk", "sauna", "shed", "well")
ROWS = [entry(n, f"How high is the {KINDS[n % 8]} number{n}?", f"Not above {n} metres of height.") for n in range(40)]
EXAMPLES = [an_example(one.question, one.text, source=(one.source, "PBL 9"), category="height") for one in ROWS]
WORDINGS = {one.source: [f"Tell me of number{n}, the {KINDS[n % 8]}"] for n, one in enumerate(ROWS)}
SYSTEM = "You know all of building."
DECLINE = answering_words("en").decline
BY_SOURCE = {one.source: one for one in ROWS}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    return lay_index(tmp_path_factory.mktemp("index"), ROWS)


@pytest.fixture(scope="module")
def defaults(root: Path) -> Params:
    return load_params(root / "params.yaml")


def changed(params: Params, k: int = 3, tokens: int = 200, room: int = 2000, seed: int = 1, **mix: float) -> Params:
    ratios = {"without_answer": 0.0, "two_passages": 0.0, "wordings": 1} | mix
    return params.model_copy(
        update={
            "seed": seed,
            "retrieval": params.retrieval.model_copy(update={"k": k, "tokens": tokens}),
            "sft": params.sft.model_copy(update={"max_tokens": room}),
            "mix": params.mix.model_copy(update=ratios),
        }
    )


def made(index: Knowledge, params: Params, examples: Sequence[Example] = EXAMPLES) -> list[Example]:
    return Answering(index, WORDINGS, SYSTEM, params).examples(examples)


def shown(example: Example) -> tuple[Passage, ...]:
    assert example.passages is not None
    return example.passages


def quoted(passages: Sequence[Passage]) -> str:
    """The passages in the prompt's own form; one that is quoted alone needs no question."""
    said = [one.whole for one in passages] if len(passages) > 1 else [one.text for one in passages]
    return "\n".join(f"[{number}] {one}" for number, one in enumerate(said, start=1))


def test_an_example_is_shown_its_own_entry_among_others_and_each_is_quoted_by_its_number(
    index: Knowledge, defaults: Params
) -> None:
    """Each is asked as it stands or in its one other wording, and keeps its id."""
    found = made(index, changed(defaults))
    assert [one.id for one in found] == [one.id for one in EXAMPLES]
    for one, before in zip(found, EXAMPLES, strict=True):
        assert BY_SOURCE[before.source[0]] in shown(one)
        assert one.output == quoted(shown(one))
        assert one.instruction in (before.prompt, *WORDINGS[before.source[0]])
        assert len(set(shown(one))) == len(shown(one)) == 3
    assert {one.instruction in WORDINGS[one.source[0]] for one in found} == {True, False}


def test_an_example_is_asked_once_in_each_wording_and_no_more_often_than_is_set(
    index: Knowledge, defaults: Params
) -> None:
    """Its own words and one other: 80 rows of 40 examples, and still 80 where three are wanted; 0.2 of 40 are pairs:
    8 of them from 16 examples, so 32 rows, and the 40 in the other wording."""
    for wanted in (2, 3):
        found = made(index, changed(defaults, wordings=wanted))
        assert len(found) == 80 and len({one.instruction for one in found}) == 80
        assert [one.id for one in found[::2]] == [one.id for one in found[1::2]] == [one.id for one in EXAMPLES]
    found = made(index, changed(defaults, wordings=2, two_passages=0.2))
    assert (len(found), sum(len(one.source) == 4 for one in found)) == (72, 8)


def test_only_passages_that_search_finds_about_as_good_stand_beside_its_own(tmp_path: Path, defaults: Params) -> None:
    """Words alone score at most 0.1, and its number names one entry: no other comes within 0.02 of it."""
    knowledge = lay_index(tmp_path, ROWS, margin=0.02)
    for one in made(knowledge, changed(defaults)):
        assert shown(one) == (BY_SOURCE[one.source[0]],) and one.output == quoted(shown(one))


def test_an_answer_in_its_own_words_quotes_no_other_passage(tmp_path: Path, defaults: Params) -> None:
    """Written by a person on a document that says much else: so are users answered then."""
    pages = [
        make_passage(kind="document", text=f"On {place} the law says much, and of number0 too.", source=f"{place}#0-40")
        for place in ("chimneys", "wells")
    ]
    example = an_example("What of number0?", "Chimneys have one.", source=("faq/1", "chimneys"))
    (found,) = made(lay_index(tmp_path, pages), changed(defaults), [example])
    place = shown(found).index(pages[0])
    assert set(shown(found)) == set(pages) and found.output == f"[{place + 1}] Chimneys have one."
    (declined,) = made(lay_index(tmp_path / "b", pages), changed(defaults, without_answer=0.99), [example])
    assert (declined.output, shown(declined)) == (DECLINE, (pages[1],)), "what does not answer is shown"


def test_a_question_on_a_document_is_answered_from_the_chunk_nearest_to_its_answer(
    tmp_path: Path, defaults: Params
) -> None:
    chunks = [
        make_passage(kind="document", text=text, source=f"law/pbl.txt#{place}")
        for place, text in (("0-20", "Sheds are up to 4 m."), ("20-44", "Fences are up to 1.1 m."))
    ]
    example = an_example("How high is a fence?", "Fences are up to 1.1 m.", source=("faq/1", "law/pbl.txt"))
    (found,) = made(lay_index(tmp_path, chunks), changed(defaults), [example])
    assert set(shown(found)) == set(chunks) and found.output == quoted(shown(found))


def test_passages_stand_in_the_order_in_which_search_finds_them(index: Knowledge, defaults: Params) -> None:
    for one in made(index, changed(defaults)):
        (hits,) = index.search([one.instruction], 7)
        order = [hit.passage for hit in hits]
        assert list(shown(one)) == [passage for passage in order if passage in shown(one)]


def test_without_its_passage_an_example_is_declined(index: Knowledge, defaults: Params) -> None:
    """99 of 100 are: of 40 all but a few. Of all seeds about a fifth at 0.2."""
    found = made(index, changed(defaults, without_answer=0.99))
    declined = [one for one in found if one.output == DECLINE]
    assert len(declined) >= 36
    for one in declined:
        assert shown(one) == (), "entries that are shown are quoted"
    shares = [made(index, changed(defaults, without_answer=0.2, seed=seed)) for seed in range(5)]
    assert 20 <= sum(one.output == DECLINE for found in shares for one in found) <= 60


def test_two_questions_are_answered_from_both_passages_by_their_numbers(index: Knowledge, defaults: Params) -> None:
    """0.2 of 40 are pairs: 8 of them from 16 examples, so 32 rows."""
    found = made(index, changed(defaults, two_passages=0.2))
    pairs = [one for one in found if len(one.source) == 4]
    assert (len(found), len(pairs)) == (32, 8)
    by_id = {one.id: one for one in EXAMPLES}
    for pair in pairs:
        first, second = (BY_SOURCE[pair.source[place]] for place in (0, 2))
        assert set(shown(pair)) == {first, second} and pair.output == quoted(shown(pair))
        assert by_id[pair.id].source[0] == pair.source[0]
    used = [source for one in found for source in one.source if source in BY_SOURCE]
    assert sorted(used) == sorted(BY_SOURCE), "every example is asked once"


def test_pairs_are_of_one_category(index: Knowledge, defaults: Params) -> None:
    """Three of one category and three of another: a pair of each, and two that stay alone."""
    rows = [one.model_copy(update={"category": "ab"[number % 2]}) for number, one in enumerate(EXAMPLES[:6])]
    categories = {one.source[0]: one.category for one in rows}
    pairs = [one for one in made(index, changed(defaults, two_passages=0.5), rows) if len(one.source) == 4]
    assert all(categories[pair.source[0]] == categories[pair.source[2]] for pair in pairs)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_no_more_passages_are_shown_than_search_would_show(index: Knowledge, defaults: Params, k: int) -> None:
    found = made(index, changed(defaults, k=k, without_answer=0.3, two_passages=0.3))
    assert max(len(shown(one)) for one in found) == k


@settings(max_examples=25)
@given(st.integers(1, 80), st.integers(100, 260), st.integers(0, 9))
def test_nothing_is_longer_than_a_prompt_or_than_training_reads(
    index: Knowledge, defaults: Params, tokens: int, room: int, seed: int
) -> None:
    """Each passage has 12 words: below that nothing is shown its own, and it stays as it was."""
    params = changed(defaults, tokens=tokens, room=room, seed=seed, without_answer=0.2, two_passages=0.2)
    for one in made(index, params, EXAMPLES[:20]):
        if one.passages is None:
            assert one in EXAMPLES
        else:
            assert sum(count(passage.whole) for passage in one.passages) <= tokens
            assert count(SYSTEM) + count(asked(one)) + count(one.output) <= room
            assert tokens >= 12 or not one.passages


def test_the_same_seed_gives_the_same_and_another_example_changes_no_single_one(
    index: Knowledge, defaults: Params
) -> None:
    params = changed(defaults, without_answer=0.2, two_passages=0.1)
    once = made(index, params)
    assert made(index, params) == once != made(index, changed(defaults, without_answer=0.2, two_passages=0.1, seed=2))
    fewer = {one.id: one for one in made(index, params, EXAMPLES[:-1]) if len(one.source) == 2}
    singles = [one for one in once if len(one.source) == 2 and one.id in fewer]
    assert len(singles) > 25 and all(fewer[one.id] == one for one in singles)


def test_what_the_index_does_not_hold_or_hangs_on_other_turns_stays_as_it_is(
    index: Knowledge, defaults: Params
) -> None:
    turns = (Turn(user="u", assistant="v"),)
    others = [
        an_example("Who?", source=("elsewhere/1",)),
        an_example("How?", source=("faq/1",), history=turns),
        an_example("How?", source=("faq/1",), system="Sing."),
        an_example("Do harm", "No.", origin="general", category="safety"),
        an_example("And?", origin="general", history=turns),
    ]
    assert made(index, changed(defaults, without_answer=0.99, two_passages=0.3), others) == others


def test_foreign_questions_are_declined_with_no_passage_at_all(index: Knowledge, defaults: Params) -> None:
    general = [an_example(f"What is star {n}?", origin="general") for n in range(40)]
    found = made(index, changed(defaults, without_answer=0.99), general)
    assert sum((one.output, one.passages) == (DECLINE, ()) for one in found) >= 36
    assert made(index, changed(defaults), general) == general


def test_an_example_seen_several_times_is_made_the_same_each_time(index: Knowledge, defaults: Params) -> None:
    found = made(index, changed(defaults, without_answer=0.2), [EXAMPLES[0], *EXAMPLES[:3], EXAMPLES[0]])
    assert found[0] == found[1] == found[4] and len(found) == 5


def graph(tmp_path: Path, defaults: Params, *passages: tuple[str, str, int], **mix: Any) -> Answering:
    """An index of triples' sentences: question, answer, line."""
    rows = [make_passage(kind="triple", question=q, text=a, source=f"g.csv:{line}") for q, a, line in passages]
    return Answering(lay_index(tmp_path, rows), {}, SYSTEM, changed(defaults, **mix))


def test_both_directions_of_one_triple_are_answered_from_the_passage_that_says_so(
    tmp_path: Path, defaults: Params
) -> None:
    """Two templates word one triple, forwards and backwards, and both sentences come from its line."""
    forwards, backwards = (
        ("Who made the Road Act?", "Congress did."),
        ("What did Congress make?", "It was the Road Act."),
    )
    answering = graph(tmp_path, defaults, (*forwards, 2), (*backwards, 2))
    rows = [an_example(*one, origin="self_kv", source=("g.csv:2",)) for one in (forwards, backwards)]
    for one, before in zip(answering.examples(rows), rows, strict=True):
        assert before.output in [shown(one)[place].text for place in cited(one.output, 9)]


def test_an_answer_over_two_triples_cites_no_passage_that_does_not_hold_it(tmp_path: Path, defaults: Params) -> None:
    """The first step of the path leads to the Road Act; that Congress made it stands in the second passage alone."""
    answering = graph(
        tmp_path, defaults, ("Of what is Article 1?", "Of the Road Act.", 2), ("Who made the Road Act?", "Congress.", 3)
    )
    example = an_example("Who made that of Article 1?", "Congress.", origin="self_kv", source=("g.csv:2", "g.csv:3"))
    (found,) = answering.examples([example])
    named = [] if found.passages is None else [found.passages[place].text for place in cited(found.output, 9)]
    assert found.passages is None or "Congress." in named


def test_two_examples_of_one_passage_are_no_pair_that_shows_it_twice(tmp_path: Path, defaults: Params) -> None:
    answering = graph(tmp_path, defaults, ("Who made the Road Act?", "Congress.", 2), two_passages=0.5)
    asked_twice = ("Who made the Road Act?", "By whom is the Road Act?")
    rows = [an_example(one, "Congress.", origin="self_kv", source=("g.csv:2",)) for one in asked_twice]
    for one in answering.examples(rows):
        assert len(set(shown(one))) == len(shown(one))


def test_general_examples_of_another_language_are_asked_in_the_words_in_which_the_domain_is_served(
    tmp_path: Path, defaults: Params
) -> None:
    """A Chinese domain replays English talk; who asks its model in English is given the Chinese rule."""
    knowledge = lay_index(tmp_path, ROWS[:1], language="zh")
    general = [an_example(f"What is star {n}?", origin="general", language="en") for n in range(9)]
    found = made(knowledge, changed(defaults, without_answer=0.99), general)
    words = answering_words("zh")
    assert {(asked(one).partition("\n")[0], one.output) for one in found if one.passages == ()} == {
        (words.none, words.decline)
    }


def test_a_domain_s_own_words_stand_around_the_passages_and_decline(tmp_path: Path, defaults: Params) -> None:
    """Training reads them from the example, and needs no file of the domain."""
    words = AnsweringWords(rule="Siter [n].", none="Ingen.", question="S: ", decline="Sier ikke.", declined=("ikke",))
    knowledge = lay_index(tmp_path, ROWS, language="no", own_words=words)
    assert knowledge.settings.words == words
    answered = made(knowledge, changed(defaults))
    assert answered and all(asked(one) == ask_from(shown(one), one.instruction, words) for one in answered)
    declined = made(knowledge, changed(defaults, without_answer=0.99))
    assert "Sier ikke." in {one.output for one in declined}
