"""HTML is seen in whatever form HTML knows it, and what only looks like it is not."""

from __future__ import annotations

from html.entities import html5

import pytest

from tasks.text.markup import html_in, role_mark_in


@pytest.mark.parametrize(
    "text, piece",
    [
        ("Don&#x27;t moor there.", "&#x27;"),
        ("The club&rsquo;s rule", "&rsquo;"),
        ("caf&eacute; opens", "&eacute;"),
        ("ten&nbsp weeks", "&nbsp"),
        ("Press <kbd>Enter</kbd>.", "<kbd>"),
        ("<details><summary>More</summary>text</details>", "<details>"),
        ("Use <option selected>one</option>.", "<option selected>"),
        ("<picture><source srcset=x></picture>", "<picture>"),
        ("one<br>two", "<br>"),
        ("a<b>bold</b> word", "</b>"),
        ("<img\n  src='x'\n/>", "<img\n  src='x'\n/>"),
        ("left <!-- a note --> right", "<!--"),
        ("<![CDATA[text]]>", "<![CDATA["),
        ("Pay now.<o:p></o:p>", "<o:p>"),
        ("<v:shape id='x'>", "<v:shape id='x'>"),
        ("It's `a` <b>bold</b>, `b`", "<b>"),
        ("```\ncode\n```\n<i>said</i>", "<i>"),
        ("`one\n<br>\ntwo`", "<br>"),
        ("<div/> and <td>", "<div/>"),
    ],
)
def test_html_in_every_form_is_seen(text: str, piece: str) -> None:
    assert html_in(text) == piece


def test_every_reference_that_html_names_is_seen() -> None:
    assert [name for name in html5 if html_in(f"a &{name} b") != f"&{name}"] == []


@pytest.mark.parametrize(
    "text",
    [
        "vector<int> a; map<string, T> b;",
        "List<object>, List<Label> and Promise<object | null>",
        "if a < b and c > d then",
        "if a <b and c> d then",
        "AT&T and R&D; done, P&L too",
        "https://example.org/?a=1&copy=2&lt=3",
        "Write <your name> and <T>.",
        "x << 3 >> y, <- and ->",
        "#include <map>\n#include <source>",
        "git clone <link>, cp <source> <object>, <address> or <title> by <time>",
        "docker pull <image:tag>, <https://example.org>, std::vector<std::string>",
        "Use `<br>`, ``<p>`</p>`` or ```<b>x</b>```: `&nbsp;`",
        "So:\n\n```html\n<p>Hi &amp; bye</p>\n```\n\n> ~~~\n> <b>x</b>\n> ~~~\n",
    ],
)
def test_comparisons_types_placeholders_queries_and_code_are_no_html(text: str) -> None:
    assert html_in(text) == ""


@pytest.mark.parametrize(
    "text",
    ["`<|im_start|>`", "<｜Assistant｜>", "[INST] x", "<</SYS>>", "</s>", "<start_of_turn>", "```\n<|user|>\n```"],
)
def test_marks_between_roles_are_seen_in_code_too(text: str) -> None:
    assert role_mark_in(text) in text and role_mark_in(text)


@pytest.mark.parametrize("text", ["x <| f |> g", "div [] <| List.map f |> toList", "[CLS] a [SEP] b", "<ip>/<mask>"])
def test_operators_and_other_tokens_are_no_marks_between_roles(text: str) -> None:
    assert role_mark_in(text) == ""
