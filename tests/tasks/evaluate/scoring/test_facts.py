"""Key facts: one form for what is the same, what an answer says, contradicts and invents, and the real items."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.domain import load_domain
from tasks.core.records import BadLine, EvaluationItem, make_item, make_passage
from tasks.corpus.ingest.small import read_items
from tasks.evaluate.scoring.facts import (
    Judged,
    invented_numbers,
    is_degenerate,
    judge_answer,
    plain,
    said,
    share_said,
)
from tasks.text.passages import answering_words

EN, ZH = answering_words("en"), answering_words("zh")
ITEM = make_item(
    set="domain",
    prompt="How high may a shed be, and who decides?",
    reference="At most 4 metres; the municipality.",
    facts=(("4 m", "4.0 m"), ("municipal*", "the kommun")),
    never=("^no limit", "5 m"),
)
PASSAGES = [
    make_passage(kind="document", text="The municipality decides.", source="a"),
    make_passage(kind="document", text="A shed is 4 metres high at most, says the municipality.", source="b"),
]


@pytest.mark.parametrize(
    "one, other, form",
    [
        ("5,000 SEK", "5\u00a0000 kronor", "5000 kr"),
        ("1 250 000 kr", "1,250,000kr", "1250000 kr"),
        ("10–15 square metres", "10 to 15 sqm", "10-15 m2"),
        ("TEN per cent", "10 %", "10%"),
        ("1.1m", "1.1 metres", "1.1 m"),
        ("20 °C", "20 degrees Celsius", "20°c"),
        ("don’t [1]", "don't", "don't"),
        ("二十公里", "20公里", "20 km"),
        ("百分之五十", "50％", "50%"),
        ("一万零五百元", "10500元", "10500元"),
        ("二〇二四年", "2024年", "2024年"),
        ("十五至三十日", "15到30日", "15-30日"),
        ("罚款2万元", "罚款二万元", "罚款20000元"),
        ("5千米", "五公里", "5 km"),
        ("三十平方米以下", "30 m²以下", "30 m2以下"),
        ("时速十公里以下", "时速10 km以下", "时速10 km以下"),
        ("百分之0.5", "0.5%", "0.5%"),
    ],
)
def test_the_same_amount_has_one_form_however_it_is_written(one: str, other: str, form: str) -> None:
    assert (plain(one), plain(other)) == (form, form)


@given(st.integers(0, 9_999_999))
def test_groups_of_three_digits_change_no_number(number: int) -> None:
    written = {f"{number:,} SEK", f"{number:,} kronor".replace(",", " "), f"{number} kr"}
    assert {plain(text) for text in written} == {f"{number} kr"}


def chinese(number: int) -> str:
    """A number below 100,000 as it is spelt in full: 10,305 is 一万零三百零五."""
    digits = "零一二三四五六七八九"
    text, gap = "", False
    for power, sign in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // power % 10
        if digit:
            text += ("零" if gap else "") + digits[digit] + sign
        gap = bool(text) and not digit
    return text or "零"


@given(st.integers(0, 99_999))
def test_a_chinese_numeral_is_the_number_it_spells(number: int) -> None:
    assert plain(f"罚款{chinese(number)}元") == f"罚款{number}元"
    if 10 <= number < 20:
        assert plain(chinese(number)[1:]) == str(number), "十五 as well as 一十五"


@given(st.text(alphabet="aB 1,5.0%-–mk²三十米百分之", max_size=20))
def test_the_one_form_of_the_one_form_is_itself(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(
    "alternative, answer, expected",
    [
        ("no permit", "You need NO  permit.", True),
        ("^no", "[1] No, not for a shed.", True),
        ("^no", "You need no permit.", False),
        ("^no", "Normally none.", False),
        ("notif*", "A notification is enough.", True),
        ("notif", "A notification is enough.", False),
        ("shed & permit", "A permit for the shed.", True),
        ("shed & permit", "A permit for the garage.", False),
        ("4 m", "4 metres", True),
        ("4 m", "1.4 m", False),
        ("4 m", "14 m", False),
        ("4", "4.5 m", False),
        ("30 m2", "Up to thirty m2, or 30 m².", True),
        ("kommun", "kommunö", False),
        ("^需要", "需要登记。", True),
        ("^需要", "不需要登记。", False),
        ("登记 & 公安", "由公安机关办理登记。", True),
        ("十五日", "应当在15日内办理。", True),
        ("十五日", "应当在115日内办理。", False),
        ("10公里", "时速10公里以下", True),
        ("30平方米", "三十平方米以下", True),
    ],
)
def test_an_alternative_is_said_in_whole_words_and_whole_numbers(alternative: str, answer: str, expected: bool) -> None:
    assert said(["never said by anyone", alternative], answer) is expected


def test_a_fact_is_said_by_one_of_its_alternatives_and_by_none_where_there_are_none() -> None:
    """The first of two facts is said by both of its alternatives, the second by none."""
    assert [said(one, "A shed or a hut.") for one in (("shed", "hut"), ("permit",), ())] == [True, False, False]


@pytest.mark.parametrize(
    "answer, known, invented",
    [
        ("Ten weeks and 3 days.", ["10 weeks"], ["3"]),
        ("5 000 kr, or 5,000 SEK [2]", ["5000"], []),
        ("1.8 m", ["1 or 8"], ["1.8"]),
        ("罚款二百元", ["罚款200元"], []),
        ("罚款三百元", ["罚款200元"], ["300"]),
        ("No one pays for one's own fence.", ["The owner."], []),
        ("一般不需要，一定要先问。", ["不需要"], []),
    ],
)
def test_a_number_that_stands_in_no_known_text_is_invented(answer: str, known: list[str], invented: list[str]) -> None:
    assert invented_numbers(answer, known) == invented


RIGHT = Judged(right=True, contradicted=False, cited=False, declined=False, degenerate=False)
WRONG = Judged(right=False, contradicted=False, cited=False, declined=False, degenerate=False)


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("4 m, says the municipality.", vars(RIGHT)),
        ("4 m, says the municipality, since 2011.", vars(RIGHT)),  # more than was asked, and nothing against it
        ("[2] 4 m; municipal.", vars(RIGHT) | {"cited": True}),
        ("[1] 4 m; municipal.", vars(RIGHT)),  # the first passage holds one fact of two
        ("[1][2] 4 m; municipal.", vars(RIGHT) | {"cited": True}),
        ("[3] 4 m; municipal.", vars(RIGHT)),
        ("The municipality decides.", vars(WRONG)),
        ("The municipality allows 3 m.", vars(WRONG) | {"contradicted": True}),  # a number in the fact's place
        ("4 m or 5 m, says the municipality.", vars(WRONG) | {"contradicted": True}),
        ("The material does not say. 5 m?", vars(WRONG) | {"declined": True}),
        ("I don't know; 4 m, the municipality?", vars(WRONG) | {"declined": True}),
        ("4 m, the kommun " * 4, vars(WRONG) | {"degenerate": True}),
        ("", vars(WRONG) | {"degenerate": True}),
    ],
)
def test_an_answer_is_right_with_every_fact_and_nothing_against_them(answer: str, expected: dict[str, bool]) -> None:
    assert vars(judge_answer(ITEM, answer, PASSAGES, EN)) == expected


def test_a_number_that_a_passage_holds_is_not_made_up() -> None:
    """It answers another question, so it is not right; it contradicts nothing either."""
    fence = make_passage(kind="document", text="A fence may be 2.2 m high.", source="c")
    assert judge_answer(ITEM, "[1] It may be 2.2 m high.", [fence], EN) == WRONG
    assert judge_answer(ITEM, "[1] It may be 2.3 m high.", [fence], EN).contradicted


def test_an_item_without_an_answer_is_never_answered_rightly_and_can_be_declined_in_chinese() -> None:
    item = make_item(set="declining", prompt="明天天气怎么样？")
    assert judge_answer(item, "资料中没有说明。", (), ZH) == Judged(False, False, False, True, False)
    assert judge_answer(item, "天气很好。", (), ZH) == WRONG


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("  \n", True),
        ("abcdefgh" * 3, True),
        ("abcdefgh" * 2, False),
        ("abcdefg" * 3, False),
        ("Yes. " + "No permit is needed. " * 4, True),
        ("No permit is needed. No permit is needed. No permit is needed.", True),
        ("应当依法办理登记。" * 3, True),
        ("Ten weeks, then ten more.", False),
    ],
)
def test_an_answer_that_is_empty_or_says_eight_characters_three_times_over_is_none(answer: str, expected: bool) -> None:
    """Seven characters three times are too short; three sentences are said three times though two spaces part them."""
    assert is_degenerate(answer) is expected


def real_items(name: str) -> list[EvaluationItem]:
    domain, bad = load_domain(name), list[BadLine]()
    items = [item for one in domain.evaluation_files for item in read_items(one, domain.paths(one), bad)]
    assert bad == []
    return items


@pytest.mark.parametrize("name, asked", [("construction", 120), ("traffic_law", 78)])
def test_every_real_item_with_facts_is_right_by_its_own_reference_and_declines_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, asked: int
) -> None:
    monkeypatch.chdir(root)
    items = [item for item in real_items(name) if item.set == "domain"]
    words = answering_words(load_domain(name).language)
    assert len(items) == asked and all(item.facts for item in items)
    assert [item.prompt for item in items if judge_answer(item, item.reference, (), words) != RIGHT] == []
    assert [item.prompt for item in items if said(item.never, item.reference)] == []
    assert [item.prompt for item in items if judge_answer(item, words.decline, (), words).right] == []


WELL = make_passage(
    kind="question", question="Does a well have a limit?", text="No limit, 5 m is usual.", source="faq/1"
)
SHED = make_passage(
    kind="question", question="How high is a shed?", text="4 m; the municipality decides.", source="faq/2"
)


@pytest.mark.parametrize(
    "answer, expected",
    [
        (f"[1] {WELL.whole}\n[2] {SHED.whole}", RIGHT),  # an entry on wells, plainly, and one that says all
        (f"[2] {SHED.whole}\n[1] {WELL.whole}", RIGHT),
        (f"[1] {WELL.text}\n[2] {SHED.whole}", WRONG),  # who reads it takes the first for the answer
        (f"[1] {WELL.whole}", WRONG),  # nothing else says a fact, so it is held against it
        ("[1] Does a well have a limit? 4 m, not 5 m.\n[2] The municipality decides.", WRONG),  # it says a fact
    ],
)
def test_an_entry_behind_its_own_question_is_held_against_an_answer_only_where_it_tells_something(
    answer: str, expected: Judged
) -> None:
    judged = judge_answer(ITEM, answer, [WELL, SHED], EN)
    assert (judged.right, judged.contradicted) == (expected.right, not expected.right)


def test_yes_and_no_of_another_question_s_entry_are_none_to_this_one() -> None:
    """Unless it is the entry that the item is about."""
    item = make_item(
        set="domain", prompt="May I dig?", reference="No.", facts=(("^no", "not allowed"),), never=("^yes",)
    )
    answer = f"[1] {WELL.whole}"
    assert not judge_answer(item, answer, [WELL], EN).right
    assert judge_answer(item.model_copy(update={"source": (WELL.source,)}), answer, [WELL], EN).right
    yes = make_passage(kind="question", question="May I fill it?", text="Yes.", source="faq/3")
    both = f"[1] {yes.whole}\n[2] May I dig? Digging is not allowed."
    assert judge_answer(item, both, [yes, yes], EN).right


@pytest.mark.parametrize(
    ("question", "reference", "answer", "share"),
    [
        # Beyond the question: "a", "blue", "tarpaulin", "of", "2", "metres" as "m"; each is a sixth.
        ("Which sheet covers it?", "A blue tarpaulin of 2 metres.", "[1] It is a blue tarpaulin, 2 m.", 5 / 6),
        ("Which sheet covers it?", "A blue tarpaulin of 2 metres.", "A blue tarpaulin of 3 metres.", 0.0),
        ("Which sheet covers it?", "A blue tarpaulin of 2 metres.", "A red one, 2 m", 3 / 6),
        # Where the reference only repeats the question, all its words count.
        ("Is it blue?", "It is.", "It is, it is.", 1.0),
        ("屋顶盖什么颜色的布？", "盖蓝色的布，两米宽。", "盖蓝色的布，2米宽", 1.0),
        ("屋顶盖什么颜色的布？", "盖蓝色的布，两米宽。", "盖蓝色的布，三米宽", 0.0),
        ("Is it blue?", "No, red.", "red No, red No, red No, red No, red No, red No, ", 0.0),
        ("Is it blue?", "No, red.", "", 0.0),
    ],
)
def test_how_much_of_a_correction_is_said_by_its_words_and_nothing_without_its_figures(
    question: str, reference: str, answer: str, share: float
) -> None:
    item = make_item(set="feedback", prompt=question, reference=reference)
    assert share_said(item, answer) == pytest.approx(share)
