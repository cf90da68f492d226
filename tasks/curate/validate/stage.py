"""Stage `validate`: Great Expectations decides which examples may go on; what fails goes to quarantine with the reason.

What examples are built from or judged by (seeds, documents, triples, preferences, evaluation items) is judged too, and
only stops the run: when too large a share of a file's rows fails, too few examples are left, or a suite fails as a
whole. What users said is in no share, since it comes again every night. Memory holds one batch and 16 bytes an example.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import fresh_directory, verify_manifest, write_json
from tasks.core.params import ValidateParams, load_params
from tasks.core.records import Document, EvaluationItem, Example, Preference, Receipt, Record, Seed, Triple
from tasks.core.stage import run_stage, write_metrics
from tasks.core.tables import TableWriter, schema_of, table_of, table_writer
from tasks.curate.quality.expectations import detector_of
from tasks.curate.quality.suite import Checker, Failure, Outcome, batches_of, example_rows, frame, parameters, row_of
from tasks.text.prompts import markers_of

STAGE = "validate"
RESULTS = "results"
BY_USERS = ("example.feedback", "preference")
EXAMPLES = layout.CONSTRUCT / "examples.parquet"
GENERAL = layout.INGEST / "general.parquet"
SAFETY = layout.INGEST / "safety.parquet"
# What is judged and goes no further: suite, kind of record, files, and whether there have to be rows.
MATERIAL: tuple[tuple[str, type[Record], tuple[Path, ...], bool], ...] = (
    ("seed", Seed, (layout.INGEST / "seeds.jsonl",), False),
    ("document", Document, (layout.INGEST / "documents.parquet",), False),
    ("triple", Triple, (layout.INGEST / "triples.parquet",), False),
    ("preference", Preference, (layout.FEEDBACK / "preferences.jsonl",), False),
    (
        "evaluation_item",
        EvaluationItem,
        tuple(layout.EVALUATION_ITEMS / f"{name}.jsonl" for name in layout.EVALUATION_SETS),
        True,
    ),
)


class SuiteFailed(FlywheelError):
    """The records as a whole are not fit for training."""


@dataclass
class ExampleJudge:
    """Judges batches of examples: which are kept, which fail and why, which repeat an earlier one."""

    checker: Checker
    tokenizer: Any
    system: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _seen: set[bytes] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)

    def batch(self, examples: list[Example], suite: str) -> JudgedBatch:
        """Judge a batch; `suite` is that of all of them, or "" for that of each one's origin."""
        first, repeats = list[Example](), list[Example]()
        for example in examples:
            key = bytes.fromhex(example.id)[:16]
            (repeats if key in self._seen else first).append(example)
            self._seen.add(key)
        by_suite: dict[str, list[Example]] = {}
        for example in first:
            by_suite.setdefault(suite or f"example.{example.origin}", []).append(example)
        failures: dict[str, Failure] = {}
        for name, members in sorted(by_suite.items()):
            rows = example_rows(members, self.tokenizer, self.system)
            outcome = self.outcomes.setdefault(name, Outcome(name))
            failures |= outcome.add(self.checker.check(name, frame(name, rows)), rows)
        self._failed |= failures.keys()
        return JudgedBatch(
            kept=[example for example in first if example.id not in failures],
            failed=[(example, failures[example.id]) for example in first if example.id in failures],
            repeats=[example for example in repeats if example.id not in self._failed],
        )


@dataclass(frozen=True)
class JudgedBatch:
    """What became of a batch of examples. Repeats of a row that failed are left out: they fail with it."""

    kept: list[Example]
    failed: list[tuple[Example, Failure]]
    repeats: list[Example]

    @property
    def receipts(self) -> Iterator[Receipt]:
        """A receipt for each."""
        for example in self.kept:
            yield Receipt(example_id=example.id, stage=STAGE, kept=True, reason="passes the suite")
        for example, failure in self.failed:
            yield Receipt(example_id=example.id, stage=STAGE, kept=False, reason=failure.reason, detail=failure.detail)
        for example in self.repeats:
            source = next(iter(example.source), "")
            yield Receipt(example_id=example.id, stage=STAGE, kept=True, reason="exact repeat", detail=source)


def judge_file(path: Path, suite: str, judge: ExampleJudge, folder: Path, receipts: TableWriter) -> Counter[str]:
    """Judge a file of examples into `folder`: the kept ones under its name, the others to quarantine.jsonl.

    Returns:
        The examples that there were (rows), and that were valid, quarantined, and repeats.
    """
    counts = Counter(rows=0, valid=0, quarantined=0, repeats=0)
    with (
        table_writer(folder / path.name, schema_of(Example)) as kept,
        (folder / "quarantine.jsonl").open("a", encoding="utf-8") as quarantine,
    ):
        for examples in batches_of(path, Example):
            batch = judge.batch(examples, suite)
            counts.update(rows=len(examples), valid=len(batch.kept), quarantined=len(batch.failed))
            counts.update(repeats=len(batch.repeats))
            kept.write(table_of(batch.kept, Example))
            receipts.write(table_of(list(batch.receipts), Receipt))
            for example, _ in batch.failed:
                quarantine.write(json.dumps(example.model_dump(mode="json"), ensure_ascii=False) + "\n")
    return counts


def judge_material(checker: Checker) -> dict[str, Outcome]:
    """Judge what examples are built from and judged by; what a domain does not have is not judged."""
    outcomes = {}
    for suite, kind, paths, wanted in MATERIAL:
        outcome = Outcome(suite)
        for path in paths:
            for records in batches_of(path, kind):
                rows = [row_of(record) for record in records]
                outcome.add(checker.check(suite, frame(suite, rows)), rows)
        if wanted and not outcome.rows:
            outcome.add(checker.check(suite, frame(suite, [])), [])
        if outcome.rows or wanted:
            outcomes[suite] = outcome
    return outcomes


def check_outcomes(outcomes: list[Outcome], max_failing_share: float) -> list[str]:
    """What stops the run: suites that fail as a whole, and a larger share of rows that fail; the first ones named."""
    problems = [problem for outcome in outcomes for problem in outcome.broken]
    rows, failing = sum(outcome.rows for outcome in outcomes), sum(outcome.failing for outcome in outcomes)
    if rows and failing / rows > max_failing_share:
        names = ", ".join(outcome.suite for outcome in outcomes if outcome.failing)
        named = [f"\n  {why.place}: {why.detail}" for outcome in outcomes for why in outcome.named.values()]
        problems.append(
            f"{failing} of {rows} rows fail ({names}), more than the allowed {max_failing_share:.0%}"
            + "".join(named[:20])
        )
    return problems


def check(judged: dict[str, list[Outcome]], valid: int, params: ValidateParams) -> None:
    """Stop the run (SuiteFailed) where the records as a whole are unfit; outcomes of one group share a bound."""
    problems = [text for group in judged.values() for one in group if one.suite in BY_USERS for text in one.broken]
    for group in judged.values():
        counted = [outcome for outcome in group if outcome.suite not in BY_USERS]
        problems += check_outcomes(counted, params.max_failing_share)
    if valid < params.min_rows:
        problems.append(f"{valid} rows are left, fewer than validate.min_rows = {params.min_rows}")
    if problems:
        raise SuiteFailed("; ".join(problems))


def validate() -> str:
    """Validate data/construct and its material, write data/validate; returns what happened, in a sentence."""
    from transformers import AutoTokenizer

    params = load_params()
    domain = load_domain(params.domain)
    verify_manifest(layout.BASE_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    settings = parameters(params, domain, list(markers_of(tokenizer)))
    checker = Checker(settings)
    with fresh_directory(layout.VALIDATE) as folder:
        write_json(folder / "parameters.json", settings)
        judged = {}
        files = {}
        with table_writer(folder / "receipt.parquet", schema_of(Receipt)) as receipts:
            for path, suite in ((EXAMPLES, ""), (GENERAL, "example.general"), (SAFETY, "example.safety")):
                judge = ExampleJudge(checker, tokenizer, domain.system_text())
                files[path.stem] = judge_file(path, suite, judge, folder, receipts)
                judged[path.stem] = list(judge.outcomes.values())
        judged |= {name: [outcome] for name, outcome in judge_material(checker).items()}
        for outcome in (outcome for group in judged.values() for outcome in group):
            write_json(folder / RESULTS / f"{outcome.suite}.json", outcome.as_result())
        counts = files["examples"]
        check(judged, counts["valid"], params.validate_)
    suites = {one.suite: {"rows": one.rows, "failing": one.failing} for group in judged.values() for one in group}
    figures = {"examples": counts["valid"], "dropped": counts["rows"] - counts["valid"]}
    write_metrics(STAGE, figures, {**counts, "suites": suites})
    blind = "" if detector_of(domain.language) else f"; no check of the language: {domain.language!r} is not known"
    others = files["general"]["quarantined"] + files["safety"]["quarantined"]
    return (
        f"{counts['valid']} of {counts['rows']} rows are valid, {counts['quarantined']} in quarantine, "
        f"{counts['repeats']} repeats; "
        f"{others} of the general ones in quarantine; {sum(map(len, judged.values()))} suites{blind}"
    )


if __name__ == "__main__":
    run_stage(STAGE, validate)
