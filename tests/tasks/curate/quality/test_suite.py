"""The suites' files: one for everything that is recorded, and nothing in them that only fails at night."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import Origin
from tasks.curate.quality.suite import SuiteError, columns_of, parameters, read_suite, suite_names
from tasks.curate.validate.stage import MATERIAL


def expectations(name: str) -> list[dict[str, Any]]:
    return list(read_suite(name)["expectations"])


def test_every_origin_and_every_kind_of_record_has_a_suite() -> None:
    wanted = {f"example.{origin}" for origin in get_args(Origin)} | {"example.safety"}
    wanted |= {suite for suite, *_ in MATERIAL}
    assert set(suite_names()) == wanted


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_expects_rows_columns_and_no_role_marker_and_says_what_fails(name: str) -> None:
    types = [item["type"] for item in expectations(name)]
    assert "expect_table_row_count_to_be_between" in types, "all is true of nothing"
    assert "expect_column_values_to_have_no_role_markers" in types
    assert columns_of(name)[0] == "id"
    assert all(item["meta"]["reason"] for item in expectations(name))


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_asks_only_for_its_own_columns_and_for_settings_that_there_are(name: str, root: Path) -> None:
    known = parameters(load_params(root / "params.yaml"), load_domain("construction", root), []).keys()
    for item in expectations(name):
        named = [item["kwargs"].get("column"), *(item["kwargs"].get("column_list") or [])]
        assert {column for column in named if column} <= set(columns_of(name))
        asked = [value["$PARAMETER"] for value in item["kwargs"].values() if isinstance(value, dict)]
        assert set(asked) <= known


@pytest.mark.parametrize("name", suite_names())
def test_no_two_expectations_of_a_suite_are_of_one_type_and_column(name: str) -> None:
    """Their results could not be told apart."""
    subjects = [(e["type"], e["kwargs"].get("column"), str(e["kwargs"].get("column_list"))) for e in expectations(name)]
    assert len(set(subjects)) == len(subjects)


@pytest.mark.parametrize("name", [name for name in suite_names() if name.startswith("example.")])
def test_no_example_may_quote_an_evaluation_item(name: str) -> None:
    assert "expect_column_values_to_quote_no_evaluation_item" in [item["type"] for item in expectations(name)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "is missing"), ("{", "is no JSON"), (json.dumps({"name": "other"}), "has to be 'mine'")],
)
def test_a_suite_that_cannot_be_read_is_named(tmp_path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "mine.json").write_text(content)
    with pytest.raises(SuiteError, match=problem):
        read_suite("mine", tmp_path)
