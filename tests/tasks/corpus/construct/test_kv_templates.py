"""Templates: what is wrong with a file is said at once, by what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.settings import SettingsError
from tasks.corpus.construct.kv_templates import Templates, load_templates


def a_template(**fields: Any) -> dict[str, Any]:
    return {"path": ["is"], "questions": ["{subject}?"], "answers": ["{object}."], **fields}


def load(path: Path, *templates: dict[str, Any], **fields: Any) -> Templates:
    path.write_text(yaml.safe_dump({"zh": {"templates": list(templates), **fields}}), encoding="utf-8")
    return load_templates(path, "zh")


def test_every_mistake_is_listed_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            tmp_path / "t.yaml",
            a_template(questions=["Who?"]),
            a_template(answers=["{via} {object}", "{subject}"]),
            a_template(path=["a", "b", "c"]),
            a_template(surplus=1),
        )
    text = str(caught.value)
    assert "zh.templates.0: 'Who?' lacks {subject}" in text
    assert "zh.templates.1: '{via} {object}': unknown {via}; '{subject}' lacks {object}" in text
    assert "zh.templates.2.path" in text
    assert "zh.templates.3.surplus: unknown key" in text


@pytest.mark.parametrize("text", ["{subject.__class__}", "{subject[0]}", "{subject!r}", "{subject:>10}", "{", "{0}"])
def test_a_placeholder_is_a_name_and_nothing_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"zh\.templates\.0"):
        load(tmp_path / "t.yaml", a_template(questions=["{subject}" + text]))


def test_a_path_stands_in_a_file_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="path is stands here 2 times"):
        load(tmp_path / "t.yaml", a_template(), a_template())


def test_the_node_between_is_there_on_paths_of_two_steps_only(tmp_path: Path) -> None:
    found = load(tmp_path / "t.yaml", a_template(path=["is", "^of"], answers=["{via}, {object}"]))
    assert found.templates[0].path == ["is", "^of"]


@pytest.mark.parametrize(
    "content, cause",
    [
        (b"en: {}", "no templates for the language 'zh'"),
        (b"[]", "no templates for the language 'zh'"),
        (b"zh: [", "not readable as YAML"),
        (b"\xff\xfe", "not readable as YAML"),
    ],
)
def test_a_file_that_cannot_serve_says_why(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "t.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=cause):
        load_templates(tmp_path / "t.yaml", "zh")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"t\.yaml: the file does not exist"):
        load_templates(tmp_path / "t.yaml", "zh")


def test_a_prompt_for_rewording_must_hold_the_question(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"lacks \{question\}"):
        load(tmp_path / "t.yaml", a_template(), paraphrase="Say it anew.")


@given(text=st.text(max_size=20))
def test_no_text_of_a_template_breaks_the_check(text: str) -> None:
    try:
        found = Templates.model_validate({"templates": [a_template(questions=[text])]})
    except ValueError:
        return
    assert found.templates[0].questions[0].format(subject="x")
