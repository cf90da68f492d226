"""The base model's entry: exactly one kind, and everything wrong with it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.core.base_model import BaseModelSource, shipped_template, told
from tasks.core.files import write_json

FILE = {"name": "m", "files": ["m.gguf"], "sha256": "0" * 64, "licence": "MIT", "licence_url": "u", "pad_token": "p"}
HUB = {"hub": "org/model", "revision": "a" * 40}


@pytest.mark.parametrize(
    "entry, said",
    [
        ({}, "exactly one of `files` (with `package`), `path` and `hub`; found none of them"),
        ({"package": "p"}, "found none of them"),
        ({**FILE, "path": "m"}, "found files and path"),
        ({"path": "m", **HUB}, "found path and hub"),
        ({"hub": "org/model"}, "`revision` is missing"),
        ({"path": "m", "revision": "a" * 40}, "`revision` has no meaning beside `path`"),
        ({"path": "m", "package": "p", "sha256": "0" * 64}, "`package` has no meaning beside `path`; `sha256` has"),
        ({**HUB, "package": "p"}, "`package` has no meaning beside `hub`"),
        ({"files": ["m.gguf"]}, "`name` is missing; `sha256` is missing; `licence` is missing"),
    ],
)
def test_an_entry_of_no_kind_of_two_or_with_what_contradicts_its_kind_is_refused(entry: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BaseModelSource.model_validate(entry)
    assert said in str(caught.value)


@pytest.mark.parametrize("key, value", [("revision", "main"), ("hub", "model"), ("hub", "../a/b"), ("paths", "m")])
def test_a_branch_a_name_without_its_owner_and_an_unknown_key_are_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BaseModelSource.model_validate({**HUB, key: value})
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]


def test_a_folder_and_a_repository_are_called_what_they_are_called() -> None:
    assert BaseModelSource.model_validate({"path": "/models/Large-7B/"}).name == "Large-7B"
    assert BaseModelSource.model_validate(HUB).name == "org/model"
    assert BaseModelSource.model_validate({**HUB, "name": "mine"}).name == "mine"


def test_what_domain_yaml_says_goes_before_what_the_model_s_files_said(tmp_path: Path) -> None:
    found = {"name": "m", "licence": "MIT", "licence_url": "", "pad_token": "<pad>"}
    write_json(tmp_path / "source.json", {"entry": "", "found": found})
    source = BaseModelSource.model_validate({"path": "m", "licence": "Apache-2.0"})
    assert (told(source, tmp_path).licence, told(source, tmp_path).pad_token) == ("Apache-2.0", "<pad>")
    assert told(source, tmp_path / "nowhere") == source
    assert told(BaseModelSource.model_validate(FILE), tmp_path).licence == "MIT"


def test_a_shipped_template_is_found_by_its_name_alone() -> None:
    assert shipped_template("chatml") is not None
    assert [shipped_template(name) for name in ("chatml.jinja", "../templates/chatml", "own", "")] == [None] * 4
