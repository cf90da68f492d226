from __future__ import annotations

from html.parser import HTMLParser

import pytest

from serving.page import sign_in_page
from serving.page.texts import LANGUAGES


class Page(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_key_goes_to_login_in_the_body_and_the_field_has_its_label(language: str) -> None:
    page = Page(sign_in_page(language))
    assert page.of("html") == [{"lang": language}]
    assert [(form["action"], form["method"]) for form in page.of("form")] == [("/login", "post")]
    [field] = page.of("input")
    assert (field["name"], field["type"]) == ("key", "password")
    assert [label["for"] for label in page.of("label")] == [field["id"]]


def test_the_page_needs_nothing_from_outside_and_no_script() -> None:
    source = sign_in_page("en")
    assert "http:" not in source and "https:" not in source and "url(" not in source and "<script" not in source


def test_an_error_is_shown_as_text() -> None:
    source = sign_in_page("en", "<script>alert(1)</script>")
    assert "<script" not in source and "&lt;script&gt;" in source
    assert any(attributes.get("role") == "alert" for attributes in Page(source).of("p"))
