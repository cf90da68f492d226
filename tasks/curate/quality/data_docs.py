"""Data docs: what every suite asked and found in the last release, one page at reports/data_docs/index.html.

Rendered outside the stages from data/validate/results. It opens offline, and whatever rows hold is escaped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import fresh_directory, write_text
from tasks.curate.quality.suite import read_suites

RESULTS = layout.VALIDATE / "results"
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Data docs</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"><style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left; overflow-wrap: anywhere }
.bad { color: #b42318; font-weight: 600 }
</style></head><body><h1>Data docs</h1>
<p>What Great Expectations said of every kind of record in the last release. Rows that fail do not go on; the receipt
names them.</p>
<table><tr><th>Suite</th><th>Rows</th><th>Failing</th><th>Expectations</th><th>Met by every row</th></tr>
{% for name, suite, result in suites %}<tr><td><a href="#{{ name }}">{{ name }}</a></td>
<td>{{ result.rows or "none" }}</td>
<td>{% if result %}<span class="{{ 'bad' if result.failing }}">{{ result.failing }}</span>{% endif %}</td>
<td>{{ suite | length }}</td><td>{{ result.results | selectattr('success') | list | length if result }}</td></tr>
{% endfor %}</table>
{% for name, suite, result in suites %}<h2 id="{{ name }}">{{ name }}</h2>
<table><tr><th>A row fails that is</th><th>Expectation</th><th>Settings</th><th>Found</th><th>Failing values</th></tr>
{% for item in result.results or suite %}<tr><td>{{ item.reason or item.meta.reason }}</td>
<td>{{ item.type | replace("_", " ") }}</td>
<td>{% for key, value in item.kwargs.items() %}{{ key }}: {{ value | bound }}<br>{% endfor %}</td>
<td>{% if item.result is defined %}<span class="{{ 'bad' if not item.success }}">{{ item.exception or (
    item.result.observed_value if "observed_value" in item.result
    else "%d of %d" % (item.result.unexpected_count, item.result.element_count)) }}</span>{% endif %}</td>
<td>{% for value in item.result.partial_unexpected_list %}{{ value }}<br>{% endfor %}</td></tr>
{% endfor %}</table>{% endfor %}</body></html>
"""


class DataDocsError(FlywheelError):
    """There is no validation result to show."""


def render_data_docs(root: Path = Path()) -> Path:
    """Write the page of the last validation; returns its path. Raises DataDocsError where `validate` has not run."""
    paths = sorted((root / RESULTS).glob("*.json"))
    if not paths:
        raise DataDocsError(f"{root / RESULTS} is missing: run a release first (`make run`)")
    parameters = json.loads((root / layout.VALIDATE / "parameters.json").read_text(encoding="utf-8"))
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def bound(value: Any) -> Any:
        return parameters[value["$PARAMETER"]] if isinstance(value, dict) else value

    environment = Environment(autoescape=True, undefined=ChainableUndefined)
    environment.filters["bound"] = bound
    suites = [(name, expected, results.get(name, {})) for name, expected in sorted(read_suites().items())]
    with fresh_directory(root / layout.DATA_DOCS) as folder:
        write_text(folder / "index.html", environment.from_string(PAGE).render(suites=suites))
    return root / layout.DATA_DOCS / "index.html"
