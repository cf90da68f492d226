"""domain.yaml: a domain's mistakes are all reported at once, by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.settings import SettingsError


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A root with the construction domain and the packages it reads."""
    shutil.copytree(root / "domains", tmp_path / "domains")
    (tmp_path / layout.PACKAGES).parent.mkdir(parents=True)
    (tmp_path / layout.PACKAGES).symlink_to(root / layout.PACKAGES)
    return tmp_path


def edit(copy: Path, change: Any) -> None:
    path = copy / "domains/construction/domain.yaml"
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(yaml.safe_dump(value))


def test_a_wrong_key_a_missing_file_and_an_empty_source_are_reported_together(copy: Path) -> None:
    def change(value: Any) -> None:
        value["titel"] = value.pop("title")
        value["mmlu"]["files"] = ["lm_eval/nowhere/*.yaml"]
        value["human"].append({**value["human"][0], "package": "", "files": ["empty.jsonl"]})

    (copy / "domains/construction/empty.jsonl").write_text("\n \n")
    edit(copy, change)
    with pytest.raises(SettingsError) as error:
        load_domain("construction", copy)
    text = str(error.value)
    assert "titel: unknown key" in text
    assert "mmlu.files: missing file" in text
    assert "lm_eval/nowhere/*.yaml" in text
    assert "human.1.files: empty source" in text
    assert "empty.jsonl" in text


def test_a_source_cannot_reach_out_of_its_folder(copy: Path) -> None:
    edit(copy, lambda value: value["safety"].update(files=["../../../etc/passwd"]))
    with pytest.raises(SettingsError, match="must lie inside"):
        load_domain("construction", copy)


def test_an_unknown_domain_names_those_there_are(copy: Path) -> None:
    with pytest.raises(SettingsError, match="domains here: construction"):
        load_domain("medicine", copy)


def test_a_base_model_in_a_folder_that_is_not_there_is_reported_with_the_rest(copy: Path) -> None:
    def change(value: Any) -> None:
        value["base_model"] = {"path": "model", "chat_template": "chatlm"}

    edit(copy, change)
    with pytest.raises(SettingsError) as error:
        load_domain("construction", copy)
    assert "base_model.path: missing folder" in str(error.value)
    assert "base_model.chat_template: missing file" in str(error.value)


def test_a_base_model_may_lie_below_the_domain_s_folder_with_a_shipped_template(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "domains/construction/model").mkdir()
    edit(copy, lambda value: value.update(base_model={"path": "model", "chat_template": "chatml"}))
    monkeypatch.chdir(copy)
    assert "<|im_start|>" in load_domain("construction").template_text()


def without_guards(value: Any) -> None:
    del value["mmlu"], value["safety"], value["evaluation"]["safety"]


def test_a_domain_may_go_without_mmlu_and_without_safety(copy: Path) -> None:
    edit(copy, without_guards)
    domain = load_domain("construction", copy)
    assert (domain.mmlu, domain.safety, domain.evaluation.safety) == (None, None, None)


@pytest.mark.parametrize("change", [lambda value: value.pop("safety"), lambda value: value["evaluation"].pop("safety")])
def test_the_size_of_the_safety_set_stands_with_its_source_or_not_at_all(copy: Path, change: Any) -> None:
    edit(copy, change)
    with pytest.raises(SettingsError, match=r"evaluation\.safety: a size belongs to"):
        load_domain("construction", copy)
