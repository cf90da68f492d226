"""Expectations of our own, for Great Expectations: role markers, HTML, language, leakage, grounding.

A row of KINDS is an expectation: what it finds in each value, and what a row that fails is told. `declare` makes Great
Expectations know them by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from types import new_class
from typing import Any, ClassVar, NamedTuple

from tasks.curate.quality.letters import read_quotes, states_a_triple
from tasks.text.grounding import groundedness
from tasks.text.markup import html_in, role_mark_in
from tasks.text.prompts import any_of

# Below this many bytes a detector guesses; such texts are not judged. A Chinese character is three bytes and says as
# much as three Latin letters.
MIN_BYTES_TO_DETECT = 40


def detector_of(language: str) -> Any:
    """How lingua names a language, by its ISO 639-1 code; None where it does not know it."""
    from lingua import IsoCode639_1, Language

    try:
        return Language.from_iso_code_639_1(IsoCode639_1.from_str(language.upper()))
    except ValueError:
        return None


@lru_cache(maxsize=4)
def language_confidence(language: str) -> Callable[[Sequence[str]], list[float]]:
    """A function from texts to the confidence (0 to 1) that each is in `language`, an ISO 639-1 code; on all cores.

    The detector (lingua) spreads its confidence over all languages it knows, and English about Swedish law may get
    little of it; a text of another language gets next to none, which is what the bound in params.yaml separates. Of a
    language that the detector does not know every text passes; the stage says so.
    """
    from lingua import LanguageDetectorBuilder

    wanted = detector_of(language)
    if wanted is None:
        return lambda texts: [1.0] * len(texts)
    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    def confidences(texts: Sequence[str]) -> list[float]:
        judged = [text for text in texts if len(text.encode()) >= MIN_BYTES_TO_DETECT]
        found = iter(detector.compute_language_confidence_in_parallel(judged, wanted))
        # Its last digits differ from run to run (sums in no fixed order), and stage outputs may not.
        return [float(f"{next(found):.3g}") if len(t.encode()) >= MIN_BYTES_TO_DETECT else 1.0 for t in texts]

    return confidences


class Kind(NamedTuple):
    """What an expectation finds in each value of its `column`, or each row of its `column_list`.

    A value passes where nothing is found, or where that is at least the setting named `at_least`.
    """

    find: Callable[..., list[Any]]  # values, then the settings by name
    settings: tuple[str, ...] = ()
    told: str = ""
    at_least: str = ""

    def passes(self, values: list[Any], settings: dict[str, Any]) -> list[bool]:
        """Whether each value passes."""
        found = self.find(values, **settings)
        return [one >= settings[self.at_least] if self.at_least else not one for one in found]


def role_marks(texts: list[str], special_tokens: list[str]) -> list[str]:
    """The first mark of a chat template in each text, whoever's, or of this tokenizer's special tokens, or nothing."""
    own = any_of(tuple(special_tokens))
    return [found[0] if (found := own.search(text)) else role_mark_in(text) for text in texts]


def _quoted(texts: list[str], evaluation: str, field: str) -> list[str]:
    quotes = read_quotes(Path(evaluation).absolute(), field)
    return [quotes.in_text(text) for text in texts]


KINDS = {
    "expect_column_values_to_have_no_role_markers": Kind(role_marks, ("special_tokens",), "{found!r}; take it out"),
    "expect_column_values_to_have_no_html": Kind(
        lambda texts: [html_in(text) for text in texts], told="{found!r}; write it as plain text"
    ),
    "expect_column_values_to_be_in_language": Kind(
        lambda texts, language, min_confidence: language_confidence(language)(texts),
        ("language", "min_confidence"),
        "{language!r} with a confidence of {found:.3g}; at least {min_confidence} is asked for "
        "(validate.min_language_confidence); translate it or leave it out",
        at_least="min_confidence",
    ),
    "expect_column_values_to_quote_no_evaluation_item": Kind(
        _quoted, ("evaluation", "field"), "the {field} of {found}; leave the row out"
    ),
    "expect_answers_to_be_grounded": Kind(  # answer, evidence, question
        lambda rows, min_groundedness: [groundedness(*row) for row in rows],
        ("min_groundedness",),
        "{found:.2f} of it follows from its evidence; at least {min_groundedness} is asked for "
        "(construct.self_qa.min_groundedness)",
        at_least="min_groundedness",
    ),
    "expect_answers_to_state_their_triples": Kind(  # answer, evidence, question
        lambda rows: [not states_a_triple(*row) for row in rows]
    ),
}
# What a row is told that fails one of the library's own; bounds stand under their column.
TOLD = {
    "expect_column_values_to_be_in_set": "{found!r:.80}; write one of {value_set}",
    "expect_column_values_to_match_regex": "{column} is {found!r:.80}; fill it in or leave the row out",
    "output_tokens": "{found:,.0f} tokens with its end; at least {min_value:,.0f} are asked for "
    "(validate.min_output_tokens)",
    "total_tokens": "{found:,.0f} tokens; at most {max_value:,.0f} are allowed (validate.max_total_tokens); shorten it",
}


def measured(name: str, settings: dict[str, Any], row: dict[str, Any]) -> str:
    """By how much, or by what, a row fails an expectation, and what to do; "" where the suite's reason says it all."""
    column = settings.get("column", "")
    found = row.get(column)
    if name not in KINDS:
        words = TOLD.get(column if name == "expect_column_values_to_be_between" else name, "")
    elif words := (kind := KINDS[name]).told:
        value = str(found) if column else tuple(row[one] for one in settings["column_list"])
        found = kind.find([value], **{key: settings[key] for key in kind.settings})[0]
    return words.format(found=found, **settings) if words else ""


@cache
def declare() -> None:
    """Make Great Expectations know each of KINDS by name; importing it takes some 8 s."""
    import pandas as pd
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation, MulticolumnMapExpectation
    from great_expectations.expectations.metrics import map_metric_provider as metrics

    column: Any = (metrics.ColumnMapMetricProvider, ColumnMapExpectation, metrics.column_condition_partial)
    rows: Any = (metrics.MulticolumnMapMetricProvider, MulticolumnMapExpectation, metrics.multicolumn_condition_partial)

    def declare_one(name: str, kind: Kind, provider: type, expectation: type, condition: Any) -> None:
        @condition(engine=PandasExecutionEngine)
        def judge(cls: Any, values: Any, **given: Any) -> pd.Series:
            listed = [*values.itertuples(index=False)] if values.ndim == 2 else [*values]
            settings = {key: given[key] for key in kind.settings}
            return pd.Series(kind.passes(listed, settings), values.index, dtype=bool)

        metric = f"{'multi' if provider is rows[0] else ''}column_values.{name}"
        of_metric = {"condition_metric_name": metric, "condition_value_keys": kind.settings, "_pandas": judge}
        own = {"map_metric": metric, "success_keys": (*kind.settings, "mostly")}
        types = dict.fromkeys(own, ClassVar[Any]) | dict.fromkeys(kind.settings, Any)
        of_class = own | dict.fromkeys(kind.settings, ...) | {"__annotations__": types, "__module__": __name__}
        title = "".join(map(str.capitalize, name.split("_")))
        new_class(f"{title}Metric", (provider,), exec_body=lambda space: space.update(of_metric))
        new_class(title, (expectation,), exec_body=lambda space: space.update(of_class))

    for name, kind in KINDS.items():
        declare_one(name, kind, *(rows if name.startswith("expect_answers") else column))
