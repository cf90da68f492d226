"""Data docs: Great Expectations' own page, made to open offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.curate.data_docs import DataDocsError, offline, render_data_docs


def result(unexpected: list[str]) -> dict[str, Any]:
    """A validation result as the stage writes it, with one row expectation."""
    figures = {
        "element_count": 10,
        "unexpected_count": len(unexpected),
        "unexpected_percent": 10.0 * len(unexpected),
        "partial_unexpected_list": unexpected,
        "unexpected_list": unexpected,
        "missing_count": 0,
    }
    item = {
        "success": not unexpected,
        "type": "expect_column_values_to_match_regex",
        "exception": None,
        "kwargs": {"column": "output", "regex": "\\S"},
        "result": figures,
    }
    statistics = {
        "evaluated_expectations": 1,
        "successful_expectations": int(not unexpected),
        "unsuccessful_expectations": int(bool(unexpected)),
        "success_percent": 100.0 * (not unexpected),
    }
    return {"success": not unexpected, "results": [item], "statistics": statistics}


def render(root: Path, value: dict[str, Any]) -> str:
    (root / "data/validate").mkdir(parents=True, exist_ok=True)
    (root / "data/validate/result.json").write_text(json.dumps(value))
    return render_data_docs(root).read_text()


def test_a_failing_value_is_shown_escaped_and_the_page_fetches_nothing(tmp_path: Path) -> None:
    page = render(tmp_path, result(["<script>alert(1)</script>"]))
    assert "output" in page and "values must match this regular expression" in page
    assert "<script" not in page and "<link" not in page and "default-src 'none'" in page


def test_a_page_of_this_result_is_left_as_it_is_and_another_result_makes_a_new_one(tmp_path: Path) -> None:
    first = render(tmp_path, result([]))
    page = tmp_path / "reports/data_docs/index.html"
    kept = page.stat().st_mtime_ns
    assert render(tmp_path, result([])) == first and page.stat().st_mtime_ns == kept
    assert render(tmp_path, result(["x"])) != first


def test_without_a_validation_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(DataDocsError, match="make run"):
        render_data_docs(tmp_path)


def test_scripts_styles_and_pictures_from_outside_are_taken_out() -> None:
    page = '<html><head><LINK href="https://x"><script src="https://x">a</script ></head><img src="https://x/y.png">ok'
    assert offline(page).endswith("</head>ok")
