"""The suites: one for everything that is recorded, and nothing in them that only fails at night."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import Origin
from tasks.curate.quality.data_docs import DataDocsError, render_data_docs
from tasks.curate.quality.suite import SuiteError, columns_of, parameters, read_suites
from tasks.curate.validate.stage import MATERIAL

SUITES = read_suites()


def test_every_origin_and_every_kind_of_record_has_a_suite() -> None:
    wanted = {f"example.{origin}" for origin in get_args(Origin)} | {"example.safety"}
    wanted |= {suite for suite, *_ in MATERIAL}
    assert set(SUITES) == wanted


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_expects_rows_columns_and_no_role_marker_and_says_what_fails(name: str) -> None:
    types = [item["type"] for item in SUITES[name]]
    assert "expect_table_row_count_to_be_between" in types, "all is true of nothing"
    assert "expect_column_values_to_have_no_role_markers" in types
    assert columns_of(name)[0] == "id"
    assert all(item["meta"]["reason"] for item in SUITES[name])


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_asks_only_for_its_own_columns_and_for_settings_that_there_are(name: str, root: Path) -> None:
    known = parameters(load_params(root / "params.yaml"), load_domain("construction", root), []).keys()
    for item in SUITES[name]:
        named = [item["kwargs"].get("column"), *(item["kwargs"].get("column_list") or [])]
        assert {column for column in named if column} <= set(columns_of(name))
        asked = [value["$PARAMETER"] for value in item["kwargs"].values() if isinstance(value, dict)]
        assert set(asked) <= known


@pytest.mark.parametrize("name", SUITES)
def test_no_two_expectations_of_a_suite_are_of_one_type_and_column(name: str) -> None:
    """Their results could not be told apart."""
    subjects = [(e["type"], e["kwargs"].get("column"), str(e["kwargs"].get("column_list"))) for e in SUITES[name]]
    assert len(set(subjects)) == len(subjects)


@pytest.mark.parametrize("name", [name for name in SUITES if name.startswith("example.")])
def test_no_example_may_quote_an_evaluation_item(name: str) -> None:
    assert "expect_column_values_to_quote_no_evaluation_item" in [item["type"] for item in SUITES[name]]


def test_a_suite_that_is_missing_is_named() -> None:
    with pytest.raises(SuiteError, match="no suite mine"):
        columns_of("mine")


HOSTILE = "<script>alert(1)</script>"


def write(root: Path, unexpected: list[str]) -> str:
    """The page of what the stage writes of a suite with one expectation."""
    counts = {"element_count": 10, "missing_count": 0, "unexpected_count": len(unexpected)}
    item: dict[str, Any] = {
        "type": "expect_column_values_to_have_no_html",
        "kwargs": {"column": "content"},
        "reason": "HTML in the text",
        "success": not unexpected,
        "exception": "",
        "result": {**counts, "partial_unexpected_list": unexpected},
    }
    suite = {"suite": "example.human", "rows": 10, "failing": len(unexpected), "success": not unexpected}
    (root / "data/validate/results").mkdir(parents=True, exist_ok=True)
    (root / "data/validate/results/example.human.json").write_text(json.dumps({**suite, "results": [item]}))
    names = ("language", "languages", "min_language_confidence", "min_output_tokens", "max_total_tokens")
    settings = {**dict.fromkeys(names, 1), "special_tokens": ["<|im_end|>"], "evaluation": "e", "min_groundedness": 0.7}
    (root / "data/validate/parameters.json").write_text(json.dumps(settings))
    return render_data_docs(root).read_text()


def test_the_page_tells_of_every_suite_fetches_nothing_and_shows_failing_values_escaped(tmp_path: Path) -> None:
    page = write(tmp_path, [HOSTILE])
    assert all(f'href="#{name}"' in page and f'id="{name}"' in page for name in SUITES)
    assert "default-src 'none'" in page and "<script" not in page and "<link" not in page
    assert "HTML in the text" in page and "&lt;script&gt;" in page and "1 of 10" in page
    assert '<span class="bad">1</span>' in page
    assert "min_groundedness: 0.7" in page and "$PARAMETER" not in page, "suites without rows, with their bounds"
    assert '<span class="bad">' not in write(tmp_path, [])


def test_without_a_validation_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(DataDocsError, match="make run"):
        render_data_docs(tmp_path)
