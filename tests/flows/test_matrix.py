"""What is offered runs: methods, alignments and domains, each through dvc.yaml in a checkout that has released before.

The base model is cut down to two narrow layers and the sources to few rows (tests/checkout.py); stages, settings and
graph are the repository's own. docs/matrix.md, written by tests/matrix.py, says which combinations these tests run.
What each stage reads on the way is compared with what dvc.yaml declares.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.registry.versions import Registry
from tasks.store.nights import last_nights
from tests.checkout import PACKAGES, change, cut_domain, lay_checkout, python, read_records, repro
from tests.flows.feedback import react_in_every_way, store_of
from tests.flows.project import Project
from tests.matrix import CELLS, DEFAULT, QUICK, SERVED_AS, Cell
from tests.read_declared import undeclared, unread

VERDICTS = ("promote", "hold", "reject")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def released(root: Path, tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Path:
    """A checkout in which the default domain was released with the default settings, but for the size of things."""
    folder = lay_checkout(root, tmp_path_factory.mktemp("matrix") / "checkout")
    change(folder, DEFAULT.settings())
    release(folder, prefect_api)
    return folder


def release(folder: Path, api: str) -> None:
    """What `dvc repro` gives, registered as `make run` registers it."""
    repro(folder)
    Project(folder, api).release()


def verdict(folder: Path, domain: str) -> str:
    """Of the domain's only version."""
    (version,) = Registry(domain, folder).versions()
    return str(version.tags["verdict"])


def quick_or_not() -> list[Any]:
    """Every pair that is offered; what `make test` has no time for is marked."""
    offered = [cell for cell in CELLS if cell != DEFAULT and not cell.refused]
    return [pytest.param(cell, marks=[] if cell in QUICK else pytest.mark.matrix) for cell in offered]


def test_a_release_of_the_default_domain_ends_in_a_version(released: Path) -> None:
    assert verdict(released, "construction") in VERDICTS
    assert repro(released) == []


@pytest.mark.parametrize("cell", quick_or_not(), ids="-".join)
def test_a_method_and_an_alignment_run_after_another_release(released: Path, cell: Cell) -> None:
    change(released, cell.settings())
    repro(released, "package")
    steps = {name: json.loads((released / f"reports/details/{name}.json").read_text())["steps"] for name in cell.stages}
    assert all(count > 1 for count in steps.values()), steps
    kind = json.loads((released / "models/package/kind.json").read_text())
    assert kind["served_as"] == SERVED_AS[cell.method]


def test_switched_back_everything_is_as_it_was(released: Path) -> None:
    change(released, DEFAULT.settings())
    repro(released, "package")
    assert (released / "data/pairs/train.jsonl").read_text() == ""
    assert repro(released, "package") == []


def test_a_stage_reads_nothing_that_dvc_yaml_does_not_declare(released: Path) -> None:
    assert undeclared(released, read_records(released)) == {}


def test_dvc_yaml_declares_nothing_that_its_stage_never_reads(released: Path) -> None:
    assert unread(released, read_records(released)) == {}


@pytest.fixture(scope="module")
def chinese(released: Path) -> Path:
    """The checkout with the Chinese domain cut down, whose base model other Chinese domains take."""
    cut_domain(released, "traffic_law")
    return released


@pytest.mark.matrix
def test_a_release_of_the_second_domain_ends_in_a_version(chinese: Path, prefect_api: str) -> None:
    change(chinese, DEFAULT.settings() | {"domain": "traffic_law"})
    release(chinese, prefect_api)
    assert verdict(chinese, "traffic_law") in VERDICTS


def questions(folder: Path, language: str) -> list[tuple[str, str]]:
    """Sixty questions with answers in a language, of the sources that are here."""
    path, question, answer = {
        "en": (PACKAGES / "zaragoza_construction_faq/data/faq-en.jsonl", "q", "a"),
        "sv": (PACKAGES / "zaragoza_construction_faq/data/faq.jsonl", "q", "a"),
        "zh": (Path("domains/traffic_law/evaluation/domain.jsonl"), "question", "answer"),
    }[language]
    rows = [json.loads(line) for line in (folder / path).read_text().splitlines()]
    return [(row[question], row[answer]) for row in rows][:60]


@pytest.mark.matrix
@pytest.mark.parametrize("language", ["en", "zh", "sv"])
def test_a_release_of_a_domain_that_new_domain_made_ends_in_a_version(
    language: str, chinese: Path, prefect_api: str, tmp_path: Path
) -> None:
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *questions(chinese, language)])
    python(chinese, "-m", "flywheel", "new-domain", f"made_{language}", "--from", str(tmp_path))
    change(chinese, DEFAULT.settings() | {"domain": f"made_{language}"})
    release(chinese, prefect_api)
    assert verdict(chinese, f"made_{language}") in VERDICTS


@pytest.mark.matrix
def test_three_nights_a_rollback_and_the_night_after_it_all_end_in_a_verdict(released: Path, prefect_api: str) -> None:
    """Whatever was said: choices, thumbs, corrections after other turns, rows made to break things."""
    change(released, DEFAULT.settings() | {"domain": "construction"})
    project = Project(released, prefect_api)
    python(released, "-m", "flywheel", "promote", "1", "--override", "the first one to serve")
    for night in ("monday", "tuesday", "wednesday"):
        react_in_every_way(released, "construction", night)
        project.release("--nightly")
    numbers = [version.number for version in Registry("construction", released).versions()]
    python(released, "-m", "flywheel", "promote", max(numbers, key=int), "--override", "to be rolled back")
    python(released, "-m", "flywheel", "rollback")
    react_in_every_way(released, "construction", "thursday")
    project.release("--nightly")
    with store_of(released) as store:
        nights = last_nights(store, "construction", 10)
    assert len(nights) == 4 and {night.outcome for night in nights} <= {*VERDICTS}
