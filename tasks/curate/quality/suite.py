"""The suites: what every record of a type and origin has to be, as Great Expectations writes it, in suites.yaml.

A bound that params.yaml or domain.yaml sets stands there as {"$PARAMETER": name}; the `reason` in an expectation's meta
says what a row is that fails it. Rows are validated a batch at a time and the results added up in bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.records import (
    AnyRecord,
    Document,
    EvaluationItem,
    Example,
    Preference,
    Record,
    Seed,
    Triple,
    read_own_jsonl,
)
from tasks.core.settings import read_yaml
from tasks.core.tables import read_batches, records_of
from tasks.curate.quality.expectations import declare, measured
from tasks.text.prompts import PromptError, messages_of, render

if TYPE_CHECKING:
    import pandas as pd

    from tasks.core.domain import Domain
    from tasks.core.params import Params


SUITES = Path(__file__).parent / "suites.yaml"
COLUMNS = "expect_table_columns_to_match_ordered_list"
Row = dict[str, Any]
ROW_COUNT = "expect_table_row_count_to_be_between"
COUNTS = ("element_count", "missing_count", "unexpected_count")
LONGEST = 500  # characters of a shown value
SHOWN = 20  # failing rows that an expectation names in data docs


class SuiteError(FlywheelError):
    """A suite is missing, or expects what it cannot."""


def read_suites(path: Path = SUITES) -> dict[str, list[dict[str, Any]]]:
    """Suite → its expectations in order, groups spelt out; raises SettingsError for a file that is no YAML."""
    return {
        name: [one for part in parts for one in (part if isinstance(part, list) else [part])]
        for name, parts in read_yaml(path)["suites"].items()
    }


def read_suite(name: str) -> list[dict[str, Any]]:
    """The expectations of a suite; raises SuiteError where there is none of this name."""
    if name not in (suites := read_suites()):
        raise SuiteError(f"{SUITES.name} has no suite {name}: every record type and origin has one; write it")
    return suites[name]


def columns_of(name: str) -> list[str]:
    """The columns that a suite expects, in order: its rows hold these. Raises SuiteError where it expects none."""
    for expectation in read_suite(name):
        if expectation["type"] == COLUMNS:
            return list(expectation["kwargs"]["column_list"])
    raise SuiteError(f"{SUITES.name}: {name}: {COLUMNS} is missing")


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

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._suites: dict[str, Any] = {}

    def check(self, name: str, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """The results of a suite's expectations, in its order, on rows that have an `id`; without times and run ids.

        Raises SuiteError where there is no such suite, or it names an expectation that does not exist.
        """
        batch = self._batches.get_batch({"dataframe": frame})
        result = batch.validate(
            self._suite(name),
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]},
            expectation_parameters=self._parameters,
        )
        order = {_subject(item): place for place, item in enumerate(read_suite(name))}
        results = [_plain(item) for item in result.to_json_dict()["results"]]
        return sorted(results, key=lambda item: order[_subject(item)])

    def _suite(self, name: str) -> Any:
        import great_expectations as gx

        declare()
        if name not in self._suites:
            expected = read_suite(name)
            try:
                self._suites[name] = gx.ExpectationSuite(name=name, expectations=expected)
            except Exception as error:  # several of its own, and pydantic's
                raise SuiteError(f"{SUITES.name}: {name}: {error}") from error
        return self._suites[name]

    @cached_property
    def _batches(self) -> Any:
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("records").add_dataframe_asset("rows")
        return asset.add_batch_definition_whole_dataframe("batch")


def _subject(item: dict[str, Any]) -> str:
    kwargs = item["kwargs"]
    return json.dumps([item["type"], kwargs.get("column"), kwargs.get("column_list")])


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    config, info = item["expectation_config"], item["exception_info"]
    # Great Expectations nests what was raised under the metric's name.
    raised = [one for one in (info, *info.values()) if isinstance(one, dict) and one.get("raised_exception")]
    return {
        "type": config["type"],
        "kwargs": {key: value for key, value in config["kwargs"].items() if key != "batch_id"},
        "reason": config.get("meta", {}).get("reason", ""),
        "success": item["success"],
        "result": item["result"],
        "exception": str(raised[0].get("exception_message")) if raised else "",
    }


@dataclass(frozen=True)
class Failure:
    """Why a row fails: the first reason in words, and every one with what was measured; `place` is its first source."""

    reason: str
    detail: str
    place: str = ""


@dataclass
class Outcome:
    """A suite's results so far. `failing` counts rows; a row that fails twice counts once."""

    suite: str
    rows: int = 0
    failing: int = 0
    named: dict[str, Failure] = field(default_factory=dict)  # the first failing rows
    _expectations: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, results: list[dict[str, Any]], rows: Sequence[Row]) -> dict[str, Failure]:
        """Add a batch's results; returns the failing rows of this batch, by id."""
        self.rows += len(rows)
        failures = failing_rows(results, rows)
        self.failing += len(failures)
        for identity, failure in failures.items():
            if len(self.named) < SHOWN:
                self.named[identity] = failure
        for item in results:
            key = json.dumps([item["type"], item["kwargs"]], sort_keys=True)
            if key in self._expectations:
                _merge(self._expectations[key], item)
            else:
                self._expectations[key] = _first(item)
        return failures

    @property
    def broken(self) -> list[str]:
        """What concerns the rows as a whole and fails: expectations of the table, and those that raised an error."""
        found = []
        for _, item in sorted(self._expectations.items()):
            if item["exception"]:
                found.append(f"{self.suite}: {item['type']} could not be evaluated: {item['exception']}")
            elif "observed_value" in item["result"] and not item["success"]:
                found.append(f"{self.suite}: {item['reason']}: found {item['result']['observed_value']}")
        return found

    def as_result(self) -> dict[str, Any]:
        """All of it as JSON, the same in every run."""
        results = [item for _, item in sorted(self._expectations.items())]
        success = all(item["success"] for item in results)
        return {"suite": self.suite, "rows": self.rows, "failing": self.failing, "success": success, "results": results}


def failing_rows(results: list[dict[str, Any]], rows: Sequence[Row]) -> dict[str, Failure]:
    """Row id → why it fails, in the order of the suite's expectations."""
    reasons: dict[str, list[tuple[str, str]]] = {}
    for item in results:
        settings = item["kwargs"]
        for row in item["result"].get("unexpected_index_list") or []:
            reason = item["reason"] or item["type"]
            detail = ": ".join(filter(None, (reason, measured(item["type"], settings, row))))
            reasons.setdefault(row["id"], []).append((reason, detail))
    places = {row["id"]: next(iter(row.get("source") or [row.get("name") or row["id"][:40]])) for row in rows}
    return {
        identity: Failure(found[0][0], "; ".join(detail for _, detail in found), places[identity])
        for identity, found in reasons.items()
    }


def _first(item: dict[str, Any]) -> dict[str, Any]:
    """One batch's result of an expectation, in bounded size."""
    result = item["result"]
    if "observed_value" in result:
        return {**item, "result": {"observed_value": result["observed_value"]}}
    shown = [_shown(value) for value in (result.get("unexpected_list") or [])[:SHOWN]]
    return {**item, "result": {key: result.get(key, 0) for key in COUNTS} | {"partial_unexpected_list": shown}}


def _merge(into: dict[str, Any], item: dict[str, Any]) -> None:
    into["success"] = into["success"] and item["success"]
    into["exception"] = into["exception"] or item["exception"]
    total, more = into["result"], _first(item)["result"]
    if into["type"] == ROW_COUNT:
        total["observed_value"] += more["observed_value"]
        low, high = (into["kwargs"].get(key) for key in ("min_value", "max_value"))
        into["success"] = (low or 0) <= total["observed_value"] and (high is None or total["observed_value"] <= high)
    elif "observed_value" in more and not item["success"]:
        total["observed_value"] = more["observed_value"]
    elif "partial_unexpected_list" in more:
        total |= {key: total[key] + more[key] for key in COUNTS}
        total["partial_unexpected_list"] = (total["partial_unexpected_list"] + more["partial_unexpected_list"])[:SHOWN]


def _shown(value: Any) -> Any:
    """A failing value, cut where it is long; of several columns the first, which is the judged one."""
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return value[:LONGEST] if isinstance(value, str) else value


def example_rows(examples: list[Example], tokenizer: Any, system: str) -> list[Row]:
    """One row an example; `system` is the prompt of examples that have none of their own.

    `total_tokens` is None where the chat template refuses the conversation.
    """
    prompts = [_rendered(example, tokenizer, system) for example in examples]
    asked = _lengths(tokenizer, [prompt or "" for prompt in prompts])
    answered = [length + 1 for length in _lengths(tokenizer, [example.output for example in examples])]  # its end
    return [
        example.model_dump(mode="json")
        | {
            "question": example.prompt,
            "text": f"{example.prompt}\n{example.output}",
            "content": "\n".join([example.system, *_turns(example), example.prompt, example.output]),
            "output_tokens": output,
            "total_tokens": None if prompt is None else length + output,
        }
        for example, prompt, length, output in zip(examples, prompts, asked, answered, strict=True)
    ]


def _rendered(example: Example, tokenizer: Any, system: str) -> str | None:
    try:
        return render(tokenizer, messages_of(example.system or system, example.prompt, example.history))
    except PromptError:
        return None


def _turns(example: Example) -> list[str]:
    return [text for turn in example.history for text in (turn.user, turn.assistant)]


def _lengths(tokenizer: Any, texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []


def row_of(record: Record) -> Row:
    """A record other than an example as a row. A triple's id is its place; a preference's question is its prompt."""
    more: Row = {}
    match record:
        case Seed():
            more["text"] = content = f"{record.instruction}\n{record.input}\n{record.output}"
        case Document():
            content = f"{record.title}\n{record.text}"
        case Triple():
            content = f"{record.subject}\n{record.relation}\n{record.object}"
            more["id"] = f"{record.file}:{record.line}"
        case EvaluationItem():
            more["question"] = record.prompt
            more["text"] = content = "\n".join([record.prompt, record.reference, *record.choices])
        case Preference():
            more["question"] = "\n".join(message.content for message in record.prompt)
            more["text"] = content = f"{more['question']}\n{record.chosen}\n{record.rejected}"
        case _:
            raise TypeError(type(record).__name__)
    return record.model_dump(mode="json") | more | {"content": content}


def frame(suite: str, rows: list[Row]) -> pd.DataFrame:
    """Rows as the table that a suite expects."""
    import pandas as pd

    return pd.DataFrame(rows, columns=columns_of(suite))


def batches_of(path: Path, kind: type[AnyRecord]) -> Iterator[list[AnyRecord]]:
    """The records of a Parquet or JSON lines file, a batch at a time; raises RecordError for a damaged one."""
    if path.suffix == ".parquet":
        for table in read_batches(path):
            yield records_of(table, kind)
    elif found := read_own_jsonl(path, kind):
        yield found
