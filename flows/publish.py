"""What a person finds with the run on Prefect's page: the verdict as a table, the card, links to the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.evaluate.card.card import verdict_rows

COLUMNS = ("name", "kind", "n", "estimate", "low", "high", "margin", "unit", "met", "reason")


def render_data_docs(root: Path) -> None:
    """Render the data docs in a process of their own: Great Expectations takes 8 s and half a gigabyte to import.

    Raises:
        FlywheelError: they could not be rendered.
    """
    command = [sys.executable, "-m", "tasks.curate.quality.data_docs"]
    done = subprocess.run(command, cwd=root, env=layout.child_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise FlywheelError(f"the data docs could not be rendered: {done.stderr.strip()[-2000:]}")


def verdict_table(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a criterion, figures to four places."""
    rows = []
    for criterion in verdict_rows(verdict):
        row = {column: criterion.get(column) for column in COLUMNS}
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def show_artifacts(verdict: dict[str, Any]) -> None:
    """Attach the verdict, the card and the links to the current run."""
    summary = f"{verdict['outcome']}: {'; '.join(verdict.get('reasons', []))}"
    create_table_artifact(key="verdict", table=verdict_table(verdict), description=summary)
    create_markdown_artifact(key="release-card", markdown=layout.CARD_MARKDOWN.read_text(encoding="utf-8"))
    for key, path in (("release-card-page", layout.CARD_HTML), ("data-docs", layout.DATA_DOCS / "index.html")):
        create_link_artifact(key=key, link=path.absolute().as_uri(), link_text=path.as_posix())
