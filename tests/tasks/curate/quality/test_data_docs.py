"""Data docs: Great Expectations' own pages, one a suite, made to open offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.curate.quality.data_docs import DataDocsError, offline, render_data_docs
from tasks.curate.quality.suite import read_suite, suite_names

HOSTILE = "<script>alert(1)</script>"
PARAMETERS = {
    "language": "en",
    "languages": ["en"],
    "min_language_confidence": 1e-7,
    "min_output_tokens": 3,
    "max_total_tokens": 200,
    "min_groundedness": 0.7,
    "special_tokens": ["<|im_end|>"],
    "evaluation": "data/ingest/evaluation",
}


def result(unexpected: list[str]) -> dict[str, Any]:
    """What the stage writes of a suite, with two row expectations, one of them our own."""
    figures = {
        "element_count": 10,
        "missing_count": 0,
        "unexpected_count": len(unexpected),
        "unexpected_percent": 10.0 * len(unexpected),
        "partial_unexpected_list": unexpected,
    }
    common = {"success": not unexpected, "exception": "", "reason": "bad", "result": figures}
    kinds = [
        ("expect_column_values_to_match_regex", {"column": "output", "regex": "\\S"}),
        ("expect_column_values_to_have_no_html", {"column": "content"}),
    ]
    return {
        "suite": "example.human",
        "rows": 10,
        "failing": len(unexpected),
        "success": not unexpected,
        "statistics": {
            "evaluated_expectations": 2,
            "successful_expectations": 2 * (not unexpected),
            "unsuccessful_expectations": 2 * bool(unexpected),
            "success_percent": 100.0 * (not unexpected),
        },
        "results": [{**common, "type": kind, "kwargs": kwargs} for kind, kwargs in kinds],
    }


def write(root: Path, value: dict[str, Any]) -> None:
    folder = root / "data/validate/results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "example.human.json").write_text(json.dumps(value))
    (root / "data/validate/parameters.json").write_text(json.dumps(PARAMETERS))


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docs")
    write(root, result([HOSTILE]))
    return render_data_docs(root).parent


def test_every_suite_has_a_page_that_fetches_nothing_and_the_index_leads_to_all(docs: Path) -> None:
    index = (docs / "index.html").read_text()
    for name in suite_names():
        assert f'href="{name}.html"' in index
        page = (docs / f"{name}.html").read_text()
        assert "<script" not in page and "<link" not in page and "default-src 'none'" in page
        assert "greatexpectations.io" not in page and 'href="index.html"' in page
    assert f"<td>{len(read_suite('example.human')['expectations'])}</td>" in index


def test_failing_values_are_shown_escaped_and_our_own_expectations_say_what_they_ask(docs: Path) -> None:
    page = (docs / "example.human.html").read_text()
    assert "values must match this regular expression" in page and "must hold no HTML" in page
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert '<span class="bad">1</span>' in (docs / "index.html").read_text()


def test_a_suite_without_rows_shows_what_it_would_ask_for_with_the_settings_bounds(docs: Path) -> None:
    page = (docs / "example.self_qa.html").read_text()
    assert "must be grounded in its evidence, to at least 0.7" in page
    assert "$PARAMETER" not in page


def test_pages_of_these_results_are_left_as_they_are_and_other_results_make_new_ones(docs: Path) -> None:
    root = docs.parents[1]
    kept = (docs / "triple.html").stat().st_mtime_ns
    render_data_docs(root)
    assert (docs / "triple.html").stat().st_mtime_ns == kept
    write(root, result([]))
    assert '<span class="bad">' not in render_data_docs(root).read_text()


def test_without_a_validation_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(DataDocsError, match="make run"):
        render_data_docs(tmp_path)


def test_scripts_styles_pictures_and_footers_from_outside_are_taken_out() -> None:
    page = '<html><head><LINK href="https://x"><script src="https://x">a</script ></head><img src="https://x/y.png">ok'
    assert offline(page + "<footer><a href='https://x'>x</a></footer>").endswith("</head>ok")
