"""Stage `validate`: Great Expectations decides which examples may go on.

A row that fails an expectation goes to quarantine with the expectation's name. Exact repeats keep their first row.
The suite fails, and stops the run with the rows named, when too large a share of rows fails or too few are left;
a schema that differs stops it always. Data docs are rendered from result.json outside the stage (data_docs.py).
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tasks import layout
from tasks.curate.suite import MEASURES, SUITE, build_suite, measure
from tasks.domain import load_domain
from tasks.errors import FlywheelError
from tasks.files import fresh_directory, verify_manifest, write_json
from tasks.params import ValidateParams, load_params
from tasks.records import Example, Receipt, read_own_jsonl, write_jsonl
from tasks.stage import run_stage

if TYPE_CHECKING:
    import pandas as pd

STAGE = "validate"
TABLE_EXPECTATIONS = ("expect_table_row_count_to_be_between", "expect_table_columns_to_match_ordered_list")


class SuiteFailed(FlywheelError):
    """The examples as a whole are not fit for training."""


def run_suite(frame: pd.DataFrame, params: ValidateParams, language: str) -> dict[str, Any]:
    """Run the suite over measured examples; returns Great Expectations' own result as JSON, without run times."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("examples").add_dataframe_asset(SUITE)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    result = batch.validate(
        build_suite(params, language),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]},
    )
    return without_run(result.to_json_dict())


def without_run(result: dict[str, Any]) -> dict[str, Any]:
    """A validation result without what differs from run to run: times, run ids, batch ids."""
    return {
        "success": result["success"],
        "statistics": result["statistics"],
        "results": sorted(
            (
                {
                    "success": item["success"],
                    "type": item["expectation_config"]["type"],
                    "kwargs": {k: v for k, v in item["expectation_config"]["kwargs"].items() if k != "batch_id"},
                    "result": item["result"],
                    "exception": item["exception_info"].get("exception_message"),
                }
                for item in result["results"]
            ),
            key=lambda item: json.dumps([item["type"], item["kwargs"]], sort_keys=True),
        ),
    }


def failures(result: dict[str, Any]) -> dict[str, list[str]]:
    """Example id → what it fails, in words; from the row expectations of a result."""
    failed: dict[str, list[str]] = defaultdict(list)
    for item in result["results"]:
        for row in item["result"].get("unexpected_index_list") or []:
            column = item["kwargs"]["column"]
            reason = f"{item['type']}({column})"
            value = row.get(column)
            if column in MEASURES:
                reason += f" is {value:.3g}"
            failed[row["id"]].append(reason)
    return dict(failed)


def check_suite(result: dict[str, Any], failed: dict[str, list[str]], rows: int, params: ValidateParams) -> None:
    """Stop the run where the examples as a whole fail.

    Raises:
        SuiteFailed: a table expectation fails, an expectation could not be evaluated, too many rows fail, or too
            few are left; the first failing rows are named.
    """
    problems = [
        f"{item['type']} could not be evaluated: {item['exception']}" for item in result["results"] if item["exception"]
    ]
    problems += [
        f"{item['type']} fails: observed {item['result'].get('observed_value')}"
        for item in result["results"]
        if item["type"] in TABLE_EXPECTATIONS and not item["success"]
    ]
    share = len(failed) / rows if rows else 1.0
    if share > params.max_failing_share:
        problems.append(f"{len(failed)} of {rows} rows fail, more than the allowed {params.max_failing_share:.0%}")
    elif rows - len(failed) < params.min_rows:
        problems.append(f"{rows - len(failed)} rows are left, fewer than validate.min_rows = {params.min_rows}")
    if problems:
        named = "".join(f"\n  {identity[:12]}: {'; '.join(why)}" for identity, why in sorted(failed.items())[:20])
        raise SuiteFailed("; ".join(problems) + named)


def without_repeats(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """The examples with each content once (its first row), and the repeats."""
    first: dict[str, Example] = {}
    repeats = []
    for example in examples:
        if example.id in first:
            repeats.append(example)
        else:
            first[example.id] = example
    return list(first.values()), repeats


def validate() -> str:
    """Validate data/construct and write data/validate; returns what happened, in a sentence."""
    from transformers import AutoTokenizer

    params = load_params()
    domain = load_domain(params.domain)
    verify_manifest(layout.BASE_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    read = read_own_jsonl(layout.CONSTRUCT / "examples.jsonl", Example)
    examples, repeats = without_repeats(read)
    frame = measure(examples, tokenizer, domain.system_text(), domain.language)
    result = run_suite(frame, params.validate_, domain.language)
    failed = failures(result)
    check_suite(result, failed, len(examples), params.validate_)
    kept = [example for example in examples if example.id not in failed]
    _write(kept, repeats, [example for example in examples if example.id in failed], failed, result)
    write_json(
        layout.METRICS / "validate.json",
        {"rows": len(read), "valid": len(kept), "quarantined": len(failed), "repeats": len(repeats)},
    )
    return f"{len(kept)} of {len(read)} rows are valid, {len(failed)} in quarantine, {len(repeats)} repeats"


def _write(
    kept: list[Example],
    repeats: list[Example],
    quarantined: list[Example],
    failed: dict[str, list[str]],
    result: dict[str, Any],
) -> None:
    receipts = [Receipt(example_id=e.id, stage=STAGE, kept=True, reason="passes the suite") for e in kept]
    receipts += [
        Receipt(example_id=e.id, stage=STAGE, kept=False, reason="fails the suite", detail="; ".join(failed[e.id]))
        for e in quarantined
    ]
    receipts += [
        Receipt(example_id=e.id, stage=STAGE, kept=True, reason="exact repeat", detail=e.source[0]) for e in repeats
    ]
    with fresh_directory(layout.VALIDATE) as folder:
        write_jsonl(folder / "examples.jsonl", kept)
        write_jsonl(folder / "quarantine.jsonl", quarantined)
        write_jsonl(folder / "receipt.jsonl", receipts)
        write_json(folder / "result.json", result)


if __name__ == "__main__":
    run_stage(STAGE, validate)
