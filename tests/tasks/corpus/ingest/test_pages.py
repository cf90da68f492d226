"""A PDF's pages become one running text: no heads between, no cut words, paragraphs whole."""

from __future__ import annotations

import pytest

from tasks.corpus.ingest.pages import joined_lines, without_heads


@pytest.mark.parametrize(
    "parts, joined",
    [
        (["A sentence that goes", "on in the next line."], "A sentence that goes on in the next line."),
        (["机动车驾驶人应当遵守", "道路交通安全法律。"], "机动车驾驶人应当遵守道路交通安全法律。"),
        (["It ends here at once.", "Another one begins now"], "It ends here at once.\nAnother one begins now"),
        (
            ["The list has two items", "- one of them", "- the other"],
            "The list has two items\n- one of them\n- the other",
        ),
        (["第一章 总则和适用的范围", "第一条 为了维护秩序"], "第一章 总则和适用的范围\n第一条 为了维护秩序"),
        (["Short", "A line that is much longer than it"], "Short\nA line that is much longer than it"),
        (["One paragraph ends", "", "and one begins"], "One paragraph ends\n\nand one begins"),
        (["the whole inspec-", "tion of hulls"], "the whole inspection of hulls"),
        (["the whole inspec‐", "tion of hulls"], "the whole inspection of hulls"),
        (["A well-known rule, a well-", "known one"], "A well-known rule, a well-known one"),
        (
            ["a coop-", "erative and a co-operative, the co-", "operative"],
            "a cooperative and a co-operative, the co-operative",
        ),
        (["a state-of-", "the-art boat"], "a state-of-the-art boat"),
        (["the years 1990-", "1995 and the Sino-", "Swedish rules"], "the years 1990-1995 and the Sino-Swedish rules"),
        (["die Vor-", "und Nachteile"], "die Vor- und Nachteile"),
        (["Mitgliedsbei-", "träge in Höhe"], "Mitgliedsbeiträge in Höhe"),
        (["The light of a page", "\fgoes on in the next"], "The light of a page goes on in the next"),
        (["It ends with its page.", "\fThe next one begins"], "It ends with its page.\n\nThe next one begins"),
    ],
)
def test_lines_of_a_paragraph_are_joined_and_others_are_not(parts: list[str], joined: str) -> None:
    assert joined_lines("\n".join(parts).replace("\n\f", "\f")) == joined


BODY = ["when the harbour light", "is on the boats go", "out in the order of", "their places and come"]


def pages_of(*edges: tuple[str, str]) -> list[list[str]]:
    """Pages of one head, four lines of their own, and one foot each."""
    return [[head, *(f"{'again ' * n}{line}" for line in BODY), foot] for n, (head, foot) in enumerate(edges)]


@pytest.mark.parametrize(
    "edges",
    [
        [("Harbour Rules 2024", "Page 1 of 2"), ("Harbour Rules 2024", "Page 2 of 2")],
        [("Rules", "- 7 -"), ("Rules", "- 8 -"), ("Rules", "- 9 -")],
        [("2", "Rules"), ("Harbour", "3"), ("4", "Rules"), ("Harbour", "5")],
        [("道路交通安全法", "第1页 共2页"), ("道路交通安全法", "第2页 共2页")],
        [("第一页", "道路"), ("第二页", "道路")],
        [("Seite 1/2", "iv"), ("Seite 2/2", "v")],
        [("Rules of the harbour, part 1", "x"), ("Rules of the harbour, part 2", "x")],
    ],
)
def test_heads_and_page_numbers_go(edges: list[tuple[str, str]]) -> None:
    assert without_heads(pages_of(*edges)) == [page[1:-1] for page in pages_of(*edges)]


@pytest.mark.parametrize(
    "edges",
    [
        [("Article 12", "and 40 crowns"), ("Article 13", "and 90 crowns")],
        [("第一条", "甲"), ("第二条", "乙")],
        [("Chapter 1 Boats", "1 boat"), ("Chapter 2 Oars", "14 boats")],
        [("Once only", "at the foot")],
    ],
)
def test_headings_of_articles_and_lines_that_differ_stay(edges: list[tuple[str, str]]) -> None:
    assert without_heads(pages_of(*edges)) == pages_of(*edges)


def test_a_page_of_nothing_but_its_head_is_empty_and_long_heads_are_text() -> None:
    assert without_heads([["Rules", "1"], ["Rules", "2"]]) == [[], []]
    head = ["one", "two", "three", "four"]
    assert without_heads([[*head, *BODY], [*head, *BODY[::-1]]]) == [["four", *BODY], ["four", *BODY[::-1]]]


def test_a_sentence_that_closes_each_of_a_few_short_pages_stays_and_their_numbers_go() -> None:
    pages = [[f"Article {n}", f"The fee of class {n} is {7 * n} crowns.", "It is paid in April."] for n in (1, 2, 3)]
    numbered = [[*page, f"Page {n} of 3."] for n, page in enumerate(pages, start=1)]
    assert without_heads(pages) == pages and without_heads(numbered) == pages


def test_the_end_of_a_sentence_that_began_before_it_is_no_foot() -> None:
    pages = [[*(f"{'again ' * n}{line}" for line in BODY * 2), "home in the evening."] for n in range(2)]
    assert without_heads(pages) == pages
