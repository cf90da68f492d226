"""Great Expectations' data docs, one HTML page a suite and an index of them, at reports/data_docs.

Rendered outside the stages from data/validate/results, which hold what every suite said without run times. A page is
Great Expectations' own; scripts, styles and fonts that it would fetch from the network are taken out and a small style
is put in, so that it opens offline. A suite that no row was judged by shows what it would ask for. Importing Great
Expectations takes some 8 s, so pages that already show these results are left as they are.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, fresh_directory, sha256_file, write_text
from tasks.core.stage import run_stage
from tasks.curate.quality.suite import FOLDER, read_suite, suite_names

RESULTS = layout.VALIDATE / "results"
PARAMETERS = layout.VALIDATE / "parameters.json"
FETCHED = re.compile(
    r"<script\b[^>]*>.*?</script\s*>|<footer\b.*?</footer>|<link\b[^>]*>|<img\b[^>]*https?:[^>]*>",
    re.DOTALL | re.IGNORECASE,
)
ELSEWHERE = re.compile(r'<a href="\.\./[^"]*"')  # into a site of Great Expectations' own, which there is none of
STYLE = """<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left; overflow-wrap: anywhere }
.collapse { display: block } .navbar, .modal, .btn, #ge-cta-footer { display: none }
.fa-check-circle::before { content: "✓"; color: #1a7f37 } .fa-times::before { content: "✗"; color: #b42318 }
ul { list-style: none; padding-left: 0 } .bad { color: #b42318; font-weight: 600 }
</style>"""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
BACK = '<p><a href="index.html">All suites</a></p>'


class DataDocsError(FlywheelError):
    """There is no validation result to show."""


def render_data_docs(root: Path = Path()) -> Path:
    """Write the pages of the last validation; returns the index's path.

    Raises:
        DataDocsError: the stage `validate` has not run.
    """
    index = root / layout.DATA_DOCS / "index.html"
    mark = mark_of(root)
    if index.is_file() and mark in index.read_text(encoding="utf-8"):
        return index
    parameters = json.loads((root / PARAMETERS).read_text(encoding="utf-8"))
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in _results(root)}
    with fresh_directory(root / layout.DATA_DOCS) as folder:
        for name in suite_names():
            page = to_html(results[name]) if name in results else to_suite_html(name, parameters)
            write_text(folder / f"{name}.html", offline(page, BACK))
        write_text(folder / "index.html", to_index(results) + mark + "\n")
    return index


def mark_of(root: Path) -> str:
    """The comment by which an index shows that it is of the results and suites that are there.

    Raises:
        DataDocsError: the stage `validate` has not run.
    """
    paths = _results(root)
    if not paths:
        raise DataDocsError(f"{root / RESULTS} is missing: run a release first (`make run`)")
    shown = [[path.name, sha256_file(path)] for path in [*paths, root / PARAMETERS, *sorted(FOLDER.glob("*.json"))]]
    return f"<!-- of {digest_of(shown)} -->"


def _results(root: Path) -> list[Path]:
    return sorted((root / RESULTS).glob("*.json"))


def to_index(results: dict[str, dict[str, Any]]) -> str:
    """The page that leads to every suite's."""
    rows = "".join(_index_row(name, results.get(name)) for name in suite_names())
    return offline(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Data docs</title></head><body>'
        "<h1>Data docs</h1><p>What Great Expectations said of every kind of record in the last release. "
        "Rows that fail do not go on; the receipt names them.</p>"
        "<table><tr><th>Suite</th><th>Rows</th><th>Failing</th><th>Expectations</th><th>Met by every row</th></tr>"
        f"{rows}</table></body></html>"
    )


def _index_row(name: str, result: dict[str, Any] | None) -> str:
    link = f'<a href="{html.escape(name)}.html">{html.escape(name)}</a>'
    expectations = len(read_suite(name)["expectations"])
    if result is None:
        return f"<tr><td>{link}</td><td>none</td><td></td><td>{expectations}</td><td></td></tr>"
    met = result["statistics"]["successful_expectations"]
    failing = f'<span class="bad">{result["failing"]}</span>' if result["failing"] else "0"
    return f"<tr><td>{link}</td><td>{result['rows']}</td><td>{failing}</td><td>{expectations}</td><td>{met}</td></tr>"


def to_html(result: dict[str, Any]) -> str:
    """Great Expectations' own page for a result that tasks.curate.validate.stage wrote."""
    import great_expectations as gx
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    import tasks.curate.quality.expectations  # noqa: F401 - how ours are worded

    validation = ExpectationSuiteValidationResult(
        success=result["success"],
        results=[_restored(item) for item in result["results"]],
        suite_name=result["suite"],
        statistics=result["statistics"],
        meta={
            "run_id": RunIdentifier(run_name="release"),
            "active_batch_definition": {},
            "great_expectations_version": gx.__version__,
        },
    )
    return str(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(validation)))


def to_suite_html(name: str, parameters: dict[str, Any]) -> str:
    """Great Expectations' own page for a suite that no row was judged by, with what its $PARAMETERs stand for."""
    import great_expectations as gx
    from great_expectations.render.renderer import ExpectationSuitePageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    import tasks.curate.quality.expectations  # noqa: F401 - known by name from here on

    expectations = read_suite(name)["expectations"]
    for expectation in expectations:
        kwargs = expectation["kwargs"]
        for key, value in kwargs.items():
            if isinstance(value, dict):
                kwargs[key] = parameters[value["$PARAMETER"]]
    suite = gx.ExpectationSuite(name=name, expectations=expectations)
    return str(DefaultJinjaPageView().render(ExpectationSuitePageRenderer().render(suite)))


def _restored(item: dict[str, Any]) -> Any:
    """One expectation's result, as Great Expectations holds it."""
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    exception = item.get("exception")
    figures = dict(item["result"])
    if "partial_unexpected_list" in figures:  # Great Expectations puts values into its pages as they are
        figures["partial_unexpected_list"] = [html.escape(str(value)) for value in figures["partial_unexpected_list"]]
    return ExpectationValidationResult(
        success=item["success"],
        expectation_config=ExpectationConfiguration(type=item["type"], kwargs=item["kwargs"]),
        result=figures,
        exception_info={
            "raised_exception": bool(exception),
            "exception_message": exception,
            "exception_traceback": None,
        },
    )


def offline(page: str, top: str = "") -> str:
    """The page without anything a browser would fetch, with a style of its own, and `top` at its beginning."""
    bare = ELSEWHERE.sub("<a", FETCHED.sub("", page)).replace("<head>", f"<head>{POLICY}{STYLE}", 1)
    return bare.replace("<body>", f"<body>{top}", 1)


def main() -> str:
    """Render; returns where, in a sentence."""
    return f"rendered {render_data_docs()}"


if __name__ == "__main__":
    run_stage("data_docs", main)
