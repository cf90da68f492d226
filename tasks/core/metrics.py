"""What a stage tells in figures: a few that releases are compared by, for `dvc metrics`; all of them as a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json


def write_metrics(stage: str, figures: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> None:
    """Write reports/metrics/<stage>.json, and reports/details/<stage>.json for a stage that has more to tell.

    Stages of one kind give their figures the same names, so that `dvc metrics show` is a table without holes.
    """
    write_json(layout.METRICS / f"{stage}.json", figures)
    if details is not None:
        write_json(layout.DETAILS / f"{stage}.json", details)
