"""evaluation.yaml: what is read, and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.benchmarks import Benchmark, load_benchmarks
from tasks.core.settings import SettingsError

OWN = {"name": "own", "config": "evaluation/own.py"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A domain's folder with a configuration, and rows beside it."""
    found = tmp_path / "domains/d"
    (found / "evaluation").mkdir(parents=True)
    (found / "evaluation/own.py").write_text("own_datasets = []\n")
    (found / "evaluation/rows.jsonl").write_text('{"question": "?"}\n')
    return found


def load(folder: Path, *sets: Any) -> tuple[Benchmark, ...]:
    (folder / "evaluation.yaml").write_text(yaml.safe_dump(list(sets)))
    return load_benchmarks("d", folder.parents[1])


def example(root: Path) -> list[dict[str, Any]]:
    """The example of docs/evaluation.md."""
    section = (root / "docs/evaluation.md").read_text().partition("## Benchmarks of your own")[2]
    text = re.search(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    assert text is not None
    return list(yaml.safe_load(text[1]))


def test_a_domain_without_the_file_or_with_nothing_but_comments_has_none(folder: Path) -> None:
    assert load_benchmarks("d", folder.parents[1]) == ()
    (folder / "evaluation.yaml").write_text("# none yet\n")
    assert load_benchmarks("d", folder.parents[1]) == ()


def test_the_example_of_the_documentation_is_read_and_takes_no_more_than_eight_lines_a_set(
    root: Path, folder: Path
) -> None:
    sets = example(root)
    for one in sets:
        assert len(yaml.safe_dump(one, default_flow_style=None).splitlines()) <= 8
        (folder / one.get("data", ".")).mkdir(parents=True, exist_ok=True)
        if path := one.get("config"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("")
    found = load(folder, *sets)
    assert [one.name for one in found] == [one["name"] for one in sets]
    assert {bool(one.opencompass) for one in found} == {True, False}


@pytest.mark.parametrize(
    ("sets", "cause"),
    [
        ([{**OWN, "margin": 1}], r"0\.margin: unknown key"),
        ([{**OWN, "gate": {"non_inferiority": -1}}], "greater than 0"),
        ([{**OWN, "gate": {"flor": 0.5}}], "flor: unknown key"),
        ([{**OWN, "gate": "always"}], "'report' or 'superiority'"),
        ([{"name": "own"}], "either `opencompass:` or `config:`"),
        ([{**OWN, "opencompass": "gsm8k_gen"}], "either `opencompass:` or `config:`"),
        ([{**OWN, "name": "mmlu"}], "mmlu is a set of Flywheel's own"),
        ([{**OWN, "name": "Own set"}], r"0\.name"),
        ([{**OWN, "gate": {"floor": 0.5}, "higher_is_better": False}], "more is better"),
        ([{**OWN, "most": 4}], "greater than or equal to 5"),
        ([OWN, OWN], "own is listed twice"),
        ([{**OWN, "config": "evaluation/other.py"}], r"config: .*other\.py does not exist; nothing is fetched"),
        ([{**OWN, "config": "../own.py"}], "must lie inside d"),
        ([{**OWN, "config": "own.py"}], "needs a folder of its own"),
        ([{**OWN, "data": "nowhere"}], "data: .*nowhere does not exist"),
        ([{"name": "sums", "opencompass": "../gsm8k"}], r"0\.opencompass"),
        ("own", "valid tuple"),
    ],
)
def test_what_is_wrong_is_refused_by_name(folder: Path, sets: Any, cause: str) -> None:
    (folder / "evaluation.yaml").write_text(yaml.safe_dump(sets))
    with pytest.raises(SettingsError, match=cause) as refused:
        load_benchmarks("d", folder.parents[1])
    assert "evaluation.yaml" in str(refused.value)


def test_a_set_is_another_once_its_configuration_its_data_or_what_is_taken_of_them_changes(folder: Path) -> None:
    def digest(**fields: Any) -> str:
        return load(folder, {**OWN, **fields})[0].definition(folder)

    before = digest()
    assert len({before, digest(metric="score"), digest(most=5), digest(only=["a"])}) == 4
    (folder / "evaluation/own.py").write_text("own_datasets = [1]\n")
    edited = digest()
    (folder / "evaluation/rows.jsonl").write_text('{"question": "!"}\n')
    assert len({before, edited, digest()}) == 3


def test_what_the_gate_makes_of_a_set_changes_nothing_of_what_is_asked(folder: Path) -> None:
    before = load(folder, OWN)[0].definition(folder)
    assert load(folder, {**OWN, "gate": {"floor": 0.5}})[0].definition(folder) == before


def test_data_are_looked_for_where_the_set_or_the_environment_says_and_nowhere_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("COMPASS_DATA_CACHE", raising=False)
    named = {"name": "sums", "opencompass": "gsm8k_gen"}
    with pytest.raises(SettingsError, match="sums: nothing is fetched, so say in `data:`"):
        load(folder, named)[0].data_folder(folder)
    monkeypatch.setenv("COMPASS_DATA_CACHE", str(tmp_path))
    assert load(folder, named)[0].data_folder(folder) == tmp_path
    assert load(folder, {**named, "data": "evaluation"})[0].data_folder(folder) == folder / "evaluation"
    assert load(folder, {**named, "data": str(tmp_path)})[0].data_folder(folder) == tmp_path
    assert load(folder, OWN)[0].data_folder(folder) == folder / "evaluation"
