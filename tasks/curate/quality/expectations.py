"""Expectations of our own, for Great Expectations: role markers, HTML, language, leakage, grounding.

Great Expectations finds an expectation by the name of its class, so this module is imported before a suite is loaded;
it takes the library's own 8 s. Each expectation judges rows, can be named in a suite's JSON, and says in data docs what
it asks for. `measured` tells a row's author by how much, or by what, it failed, and what to do.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from great_expectations.core.suite_parameters import SuiteParameterDict
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation, MulticolumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    MulticolumnMapMetricProvider,
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.multicolumn_condition_partial import (
    multicolumn_condition_partial,
)
from great_expectations.render import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer

from tasks.curate.quality.quotes import Quotes, read_quotes
from tasks.curate.quality.triple_answers import states_a_triple
from tasks.text.grounding import groundedness
from tasks.text.language import language_confidence
from tasks.text.markup import html_in, role_mark_in
from tasks.text.prompts import any_of

# What a failing row is told behind its suite's reason: what was found, the bound with its setting, what to do. Bounds
# stand under their column, all else under the expectation's type.
TOLD = {
    "expect_answers_to_be_grounded": "{found:.2f} of it follows from its evidence; "
    "at least {min_groundedness} is asked for (construct.self_qa.min_groundedness)",
    "expect_column_values_to_be_in_language": "{language!r} with a confidence of {found:.3g}; at least "
    "{min_confidence} is asked for (validate.min_language_confidence); translate it or leave it out",
    "expect_column_values_to_be_in_set": "{found!r:.80}; write one of {value_set}",
    "expect_column_values_to_have_no_html": "{found!r}; write it as plain text",
    "expect_column_values_to_have_no_role_markers": "{found!r}; take it out",
    "expect_column_values_to_match_regex": "{column} is {found!r:.80}; fill it in or leave the row out",
    "expect_column_values_to_quote_no_evaluation_item": "the {field} of {found}; leave the row out",
    "output_tokens": "{found:,.0f} tokens with its end; at least {min_value:,.0f} are asked for "
    "(validate.min_output_tokens)",
    "total_tokens": "{found:,.0f} tokens; at most {max_value:,.0f} are allowed (validate.max_total_tokens); shorten it",
}


class _Worded:
    """Says in data docs what an expectation asks for."""

    words: ClassVar[str]

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None, **kwargs: Any
    ) -> list[RenderedStringTemplateContent]:
        settings = configuration.kwargs
        columns = [settings["column"]] if "column" in settings else settings["column_list"][:1]
        params = {"columns": ", ".join(columns), **{key: str(value) for key, value in settings.items()}}
        template = {"template": f"$columns {cls.words}", "params": params}
        return [RenderedStringTemplateContent(content_block_type="string_template", string_template=template)]


class FreeOfRoleMarkers(ColumnMapMetricProvider):
    """Whether a text holds no role marker."""

    condition_metric_name = "column_values.free_of_role_markers"
    condition_value_keys = ("special_tokens",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, special_tokens: list[str], **kwargs: Any) -> pd.Series:  # noqa: N805
        return column.map(lambda text: not _role_mark(text, special_tokens))


class ExpectColumnValuesToHaveNoRoleMarkers(_Worded, ColumnMapExpectation):
    """No chat role marker stands in the text: a reader could speak for another role."""

    words: ClassVar[str] = "must hold no chat role marker"
    special_tokens: list[str] | SuiteParameterDict
    map_metric: ClassVar[str] = "column_values.free_of_role_markers"
    success_keys: ClassVar[tuple[str, ...]] = ("special_tokens", "mostly")


class FreeOfHtml(ColumnMapMetricProvider):
    """Whether a text holds no HTML."""

    condition_metric_name = "column_values.free_of_html"

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, **kwargs: Any) -> pd.Series:  # noqa: N805
        return column.map(lambda text: not html_in(text))


class ExpectColumnValuesToHaveNoHtml(_Worded, ColumnMapExpectation):
    """No HTML tag, comment or character reference stands in the text."""

    words: ClassVar[str] = "must hold no HTML"
    map_metric: ClassVar[str] = "column_values.free_of_html"


class InLanguage(ColumnMapMetricProvider):
    """Whether a text may be in a language."""

    condition_metric_name = "column_values.in_language"
    condition_value_keys = ("language", "min_confidence")

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, language: str, min_confidence: float, **kwargs: Any) -> pd.Series:  # noqa: N805
        return pd.Series(language_confidence(language)(list(column)), index=column.index) >= min_confidence


class ExpectColumnValuesToBeInLanguage(_Worded, ColumnMapExpectation):
    """The text is in the language, with at least this confidence of a detector; short texts pass."""

    words: ClassVar[str] = "must be in the language $language, with a confidence of $min_confidence or more"
    language: str | SuiteParameterDict
    min_confidence: float | SuiteParameterDict
    map_metric: ClassVar[str] = "column_values.in_language"
    success_keys: ClassVar[tuple[str, ...]] = ("language", "min_confidence", "mostly")


class QuotesNoItem(ColumnMapMetricProvider):
    """Whether a text quotes no evaluation item whole."""

    condition_metric_name = "column_values.quotes_no_item"
    condition_value_keys = ("evaluation", "field")

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, evaluation: str, field: str, **kwargs: Any) -> pd.Series:  # noqa: N805
        quotes = _quotes(Path(evaluation).absolute(), field)
        return column.map(lambda text: not quotes.in_text(text))


class ExpectColumnValuesToQuoteNoEvaluationItem(_Worded, ColumnMapExpectation):
    """No evaluation item's `field` (prompt or reference) stands whole in the text; `evaluation` is their folder."""

    words: ClassVar[str] = "must not quote the $field of an evaluation item"
    evaluation: str | SuiteParameterDict
    field: str
    map_metric: ClassVar[str] = "column_values.quotes_no_item"
    success_keys: ClassVar[tuple[str, ...]] = ("evaluation", "field", "mostly")


class Grounded(MulticolumnMapMetricProvider):
    """Whether answers follow from their evidence."""

    condition_metric_name = "multicolumn_values.grounded"
    condition_domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser", "ignore_row_if")
    condition_value_keys = ("min_groundedness",)

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_list: pd.DataFrame, min_groundedness: float, **kwargs: Any) -> pd.Series:  # noqa: N805
        rows = column_list.itertuples(index=False)
        return pd.Series([groundedness(*row) >= min_groundedness for row in rows], index=column_list.index, dtype=bool)


class ExpectAnswersToBeGrounded(_Worded, MulticolumnMapExpectation):
    """The answer follows from its evidence; `column_list` is answer, evidence, question."""

    words: ClassVar[str] = "must be grounded in its evidence, to at least $min_groundedness"
    min_groundedness: float | SuiteParameterDict
    map_metric: ClassVar[str] = "multicolumn_values.grounded"
    success_keys: ClassVar[tuple[str, ...]] = ("min_groundedness", "mostly")


class StatesATriple(MulticolumnMapMetricProvider):
    """Whether answers say something their triples say."""

    condition_metric_name = "multicolumn_values.states_a_triple"
    condition_domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser", "ignore_row_if")

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_list: pd.DataFrame, **kwargs: Any) -> pd.Series:  # noqa: N805
        rows = column_list.itertuples(index=False)
        return pd.Series([states_a_triple(*row) for row in rows], index=column_list.index, dtype=bool)


class ExpectAnswersToStateTheirTriples(_Worded, MulticolumnMapExpectation):
    """The answer names what its triples say and the question does not; `column_list` is answer, evidence, question."""

    words: ClassVar[str] = "must name what its triples say and the question does not"
    map_metric: ClassVar[str] = "multicolumn_values.states_a_triple"


def measured(kind: str, settings: dict[str, Any], row: dict[str, Any]) -> str:
    """What a row is told that fails the expectation `kind`; "" where the suite's reason says it all."""
    column = settings.get("column", "")
    words = TOLD.get(column if kind == "expect_column_values_to_be_between" else kind, "")
    return words.format(found=_found(kind, settings, row), **settings) if words else ""


def _found(kind: str, settings: dict[str, Any], row: dict[str, Any]) -> Any:
    """By how much, or by what, a row fails."""
    value = row.get(settings.get("column", ""))
    if kind == "expect_answers_to_be_grounded":
        return groundedness(*(row[column] for column in settings["column_list"]))
    if kind == "expect_column_values_to_be_in_language":
        return language_confidence(settings["language"])([str(value)])[0]
    if kind == "expect_column_values_to_have_no_role_markers":
        return _role_mark(str(value), settings["special_tokens"])
    if kind == "expect_column_values_to_have_no_html":
        return html_in(str(value))
    if kind == "expect_column_values_to_quote_no_evaluation_item":
        return _quotes(Path(settings["evaluation"]).absolute(), settings["field"]).in_text(str(value))
    return value


def _role_mark(text: str, special_tokens: list[str]) -> str:
    """The first mark of a chat template in a text, whoever's, or of this tokenizer's special tokens, or nothing."""
    found = any_of(tuple(special_tokens)).search(text)
    return found[0] if found else role_mark_in(text)


@lru_cache(maxsize=4)
def _quotes(folder: Path, field: str) -> Quotes:
    return read_quotes(folder, field)
