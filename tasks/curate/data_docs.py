"""Great Expectations' data docs of the validated examples, as one HTML page at reports/data_docs/index.html.

Rendered outside the stages from data/validate/result.json, which holds the suite's result without run times. The page
is Great Expectations' own; scripts, styles and fonts that it would fetch from the network are taken out and a small
style is put in, so that it opens offline. Importing Great Expectations takes some 8 s, so a page that already shows
this result is left as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tasks import layout
from tasks.curate.suite import SUITE
from tasks.errors import FlywheelError
from tasks.files import sha256_file, write_text
from tasks.stage import run_stage

RESULT = layout.VALIDATE / "result.json"
FETCHED = re.compile(
    r"<script\b[^>]*>.*?</script\s*>|<link\b[^>]*>|<img\b[^>]*https?:[^>]*>", re.DOTALL | re.IGNORECASE
)
STYLE = """<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left }
.collapse { display: block } .navbar, .modal, .btn, #ge-cta-footer { display: none }
ul { list-style: none; padding-left: 0 }
</style>"""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)


class DataDocsError(FlywheelError):
    """There is no validation result to show."""


def render_data_docs(root: Path = Path()) -> Path:
    """Write the page for the last validation; returns its path.

    Raises:
        DataDocsError: the stage `validate` has not run.
    """
    source, page = root / RESULT, root / layout.DATA_DOCS / "index.html"
    if not source.is_file():
        raise DataDocsError(f"{source} is missing: run a release first (`make run`)")
    mark = f"<!-- of result {sha256_file(source)} -->"
    if page.is_file() and mark in page.read_text(encoding="utf-8"):
        return page
    write_text(page, offline(to_html(json.loads(source.read_text(encoding="utf-8")))) + mark + "\n")
    return page


def to_html(result: dict[str, Any]) -> str:
    """Great Expectations' own page for a result that tasks.curate.validate wrote."""
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    validation = ExpectationSuiteValidationResult(
        success=result["success"],
        results=[_restored(item) for item in result["results"]],
        suite_name=SUITE,
        statistics=result["statistics"],
        meta={
            "run_id": RunIdentifier(run_name="release"),
            "active_batch_definition": {},
            "great_expectations_version": "",
        },
    )
    return str(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(validation)))


def _restored(item: dict[str, Any]) -> Any:
    """One expectation's result, as Great Expectations holds it."""
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    exception = item.get("exception")
    return ExpectationValidationResult(
        success=item["success"],
        expectation_config=ExpectationConfiguration(type=item["type"], kwargs=item["kwargs"]),
        result=item["result"],
        exception_info={
            "raised_exception": bool(exception),
            "exception_message": exception,
            "exception_traceback": None,
        },
    )


def offline(page: str) -> str:
    """The page without anything a browser would fetch, and with a style of its own."""
    return FETCHED.sub("", page).replace("<head>", f"<head>{POLICY}{STYLE}", 1)


def main() -> str:
    """Render; returns where, in a sentence."""
    return f"rendered {render_data_docs()}"


if __name__ == "__main__":
    run_stage("data_docs", main)
