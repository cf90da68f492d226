"""What the documents name exists: links, commands, settings, schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert lost == []


def anchors_of(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_section_leads_to_its_heading(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", path.read_text(encoding="utf-8"))
    places = [((path.parent / file if file else path), anchor) for file, anchor in links]
    assert [f"{place.name}#{anchor}" for place, anchor in places if anchor not in anchors_of(place)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_make_target_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", path.read_text(encoding="utf-8")))
    assert named <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_verb_named_exists(path: Path) -> None:
    from flywheel.cli import main

    named = set(re.findall(r"`(?:\.venv/bin/)?flywheel ([a-z][a-z-]+)", path.read_text(encoding="utf-8")))
    assert named <= set(main.commands)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_setting_named_exists(path: Path) -> None:
    settings: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    sections = "|".join(name for name, value in settings.items() if isinstance(value, dict))
    named = re.findall(rf"`(?:-S )?((?:{sections})\.[a-z0-9_.]+)", path.read_text(encoding="utf-8"))
    for key in named:
        value: Any = settings
        for part in key.removesuffix(".yaml").split("."):
            assert isinstance(value, dict) and part in value, f"{key} is not in params.yaml"
            value = value[part]


def test_every_schema_is_a_valid_schema() -> None:
    from jsonschema import Draft202012Validator

    schemas = list((ROOT / "docs" / "schemas").glob("*.json"))
    assert schemas
    for path in schemas:
        Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_every_data_package_is_attributed() -> None:
    attributed = (ROOT / "docs" / "attributions.md").read_text()
    for lock in (ROOT / "infra/locks").glob("packages*.txt"):
        for line in lock.read_text().split():
            name, version = line.split("==")
            assert f"`{name}` {version}" in attributed
