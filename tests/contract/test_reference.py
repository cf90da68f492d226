"""The reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.reference import is_fresh, pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = pages(ROOT)


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_no_reference_page_is_stale(path: Path) -> None:
    assert is_fresh(ROOT / path, PAGES[path]), "stale: make docs"


def test_addresses_settings_and_verbs_are_on_their_pages() -> None:
    text = {path.name: content for path, content in PAGES.items()}
    assert "## POST /v1/chat/completions" in text["reference_http.md"] and "| `stream` |" in text["reference_http.md"]
    assert "| `serving.host` | `127.0.0.1` |" in text["reference_params.md"]
    assert "## flywheel promote VERSION" in text["reference_commands.md"]
