"""What a suite said of all rows of one source: the results of its batches, added up in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.curate.quality.frames import Row
from tasks.curate.quality.suite import ROW_COUNT

SHOWN = 20  # failing rows that an expectation names in data docs
LONGEST = 500  # characters of a shown value


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
        passed = sum(item["success"] for item in results)
        return {
            "suite": self.suite,
            "rows": self.rows,
            "failing": self.failing,
            "success": passed == len(results),
            "statistics": {
                "evaluated_expectations": len(results),
                "successful_expectations": passed,
                "unsuccessful_expectations": len(results) - passed,
                "success_percent": 100.0 * passed / len(results) if results else None,
            },
            "results": results,
        }


def failing_rows(results: list[dict[str, Any]], rows: Sequence[Row]) -> dict[str, Failure]:
    """Row id → why it fails, in the order of the suite's expectations."""
    from tasks.curate.quality.expectations import measured

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
    result = item["result"]
    kept = {"observed_value": result["observed_value"]} if "observed_value" in result else _counts(result)
    return {**item, "result": kept}


def _counts(result: dict[str, Any]) -> dict[str, Any]:
    unexpected = result.get("unexpected_list") or []
    return _with_share(
        {
            "element_count": result.get("element_count", 0),
            "missing_count": result.get("missing_count", 0),
            "unexpected_count": result.get("unexpected_count", 0),
            "partial_unexpected_list": [_shown(value) for value in unexpected[:SHOWN]],
        }
    )


def _merge(into: dict[str, Any], item: dict[str, Any]) -> None:
    """Add one batch's result of an expectation to those before it."""
    into["success"] = into["success"] and item["success"]
    into["exception"] = into["exception"] or item["exception"]
    total, more = into["result"], _first(item)["result"]
    if into["type"] == ROW_COUNT:
        total["observed_value"] += more["observed_value"]
        low, high = (into["kwargs"].get(key) for key in ("min_value", "max_value"))
        into["success"] = (low is None or total["observed_value"] >= low) and (
            high is None or total["observed_value"] <= high
        )
    elif "observed_value" in more and not item["success"]:
        total["observed_value"] = more["observed_value"]
    elif "element_count" in more:
        for key in ("element_count", "missing_count", "unexpected_count"):
            total[key] += more[key]
        samples = total["partial_unexpected_list"] + more["partial_unexpected_list"]
        total["partial_unexpected_list"] = samples[:SHOWN]
        _with_share(total)


def _with_share(result: dict[str, Any]) -> dict[str, Any]:
    present = result["element_count"] - result["missing_count"]
    result["unexpected_percent"] = 100.0 * result["unexpected_count"] / present if present else 0.0
    return result


def _shown(value: Any) -> Any:
    """A failing value, cut where it is long; of several columns the first, which is the judged one."""
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return value[:LONGEST] if isinstance(value, str) else value
