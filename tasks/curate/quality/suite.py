"""The suites: what every record of a type and origin has to be, as Great Expectations' own JSON in suites/.

One file a record type, and for examples one an origin: example.self_qa.json. A bound that params.yaml or domain.yaml
sets stands in the JSON as {"$PARAMETER": name}. Every expectation carries in its meta a `reason`: what a row is that
fails it, in the words of receipts and of the release card.

Rows are validated a batch at a time, each with its `id`, and the batches' results added up, so that memory does not
grow with the data. Whatever concerns all rows at once (how many, repeats) is therefore counted by the stage.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.errors import FlywheelError

if TYPE_CHECKING:
    import pandas as pd

    from tasks.core.domain import Domain
    from tasks.core.params import Params

FOLDER = Path(__file__).parent / "suites"
COLUMNS = "expect_table_columns_to_match_ordered_list"
ROW_COUNT = "expect_table_row_count_to_be_between"


class SuiteError(FlywheelError):
    """A suite is missing, or cannot be read."""


def suite_names() -> list[str]:
    """The names of all suites, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_suite(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A suite as it stands in its file.

    Raises:
        SuiteError: there is none of this name, it is no JSON, or it is not called as its file.
    """
    path = folder / f"{name}.json"
    try:
        suite: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SuiteError(f"{path} is missing: every record type and origin has a suite; write one") from None
    except ValueError as error:
        raise SuiteError(f"{path} is no JSON: {error}") from None
    if suite.get("name") != name:
        raise SuiteError(f"{path}: its name is {suite.get('name')!r} and has to be {name!r}")
    return suite


def columns_of(name: str) -> list[str]:
    """The columns that a suite expects, in order: its rows are measured to hold these.

    Raises:
        SuiteError: it expects none.
    """
    for expectation in read_suite(name)["expectations"]:
        if expectation["type"] == COLUMNS:
            return list(expectation["kwargs"]["column_list"])
    raise SuiteError(f"{name}.json: {COLUMNS} is missing")


def parameters(params: Params, domain: Domain, special_tokens: list[str]) -> dict[str, Any]:
    """What the suites' $PARAMETERs stand for."""
    return {
        "language": domain.language,
        "languages": [domain.language],
        "min_language_confidence": params.validate_.min_language_confidence,
        "min_output_tokens": params.validate_.min_output_tokens,
        "max_total_tokens": params.validate_.max_total_tokens,
        "min_groundedness": params.construct_.self_qa.min_groundedness,
        "special_tokens": sorted(special_tokens),
        "evaluation": layout.EVALUATION_ITEMS.as_posix(),
    }


class Checker:
    """Validates batches of rows with Great Expectations; importing it takes some 8 s, at the first batch."""

    def __init__(self, parameters: dict[str, Any], folder: Path = FOLDER) -> None:
        self._parameters = parameters
        self._folder = folder
        self._suites: dict[str, Any] = {}

    def check(self, name: str, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """The results of a suite's expectations, in its order, on rows that have an `id`; without times and run ids.

        Raises:
            SuiteError: there is no such suite, or it names an expectation that does not exist.
        """
        batch = self._batches.get_batch({"dataframe": frame})
        result = batch.validate(
            self._suite(name),
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]},
            expectation_parameters=self._parameters,
        )
        order = {_subject(item): place for place, item in enumerate(read_suite(name, self._folder)["expectations"])}
        results = [_plain(item) for item in result.to_json_dict()["results"]]
        return sorted(results, key=lambda item: order[_subject(item)])

    def _suite(self, name: str) -> Any:
        import great_expectations as gx

        import tasks.curate.quality.expectations  # noqa: F401 - known by name from here on

        if name not in self._suites:
            raw = read_suite(name, self._folder)
            try:
                self._suites[name] = gx.ExpectationSuite(name=name, expectations=raw["expectations"])
            except Exception as error:  # several of its own, and pydantic's
                raise SuiteError(f"{name}.json: {error}") from error
        return self._suites[name]

    @cached_property
    def _batches(self) -> Any:
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("records").add_dataframe_asset("rows")
        return asset.add_batch_definition_whole_dataframe("batch")


def _subject(item: dict[str, Any]) -> str:
    """What tells an expectation from the others of its suite."""
    kwargs = item["kwargs"]
    return json.dumps([item["type"], kwargs.get("column"), kwargs.get("column_list")])


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    config = item["expectation_config"]
    return {
        "type": config["type"],
        "kwargs": {key: value for key, value in config["kwargs"].items() if key != "batch_id"},
        "reason": config.get("meta", {}).get("reason", ""),
        "success": item["success"],
        "result": item["result"],
        "exception": _exception(item["exception_info"]),
    }


def _exception(info: dict[str, Any]) -> str:
    """Why an expectation could not be evaluated, or "": Great Expectations nests it under the metric's name."""
    if info.get("raised_exception"):
        return str(info.get("exception_message"))
    nested = [value for value in info.values() if isinstance(value, dict) and value.get("raised_exception")]
    return str(nested[0].get("exception_message")) if nested else ""
