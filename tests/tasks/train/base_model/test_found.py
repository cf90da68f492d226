"""What a model's files say of its licence and padding, and which line to write where they do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.base_model import BaseModelSource
from tasks.train.base_model.folder import BaseModelError
from tasks.train.base_model.found import licence_of, pad_token_of

APACHE = "https://www.apache.org/licenses/LICENSE-2.0"


def source(**more: str) -> BaseModelSource:
    return BaseModelSource.model_validate({"path": "m", **more})


@pytest.mark.parametrize(
    "card, text, licence, url",
    [
        ("---\nlicense: apache-2.0\n---\n# M\n", None, "apache-2.0", ""),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: https://e.org/l\n---\n",
            None,
            "own",
            "https://e.org/l",
        ),
        ("---\nlicense: llama3.2\nlicense_link: LICENSE\n---\n", "LLAMA 3.2\n", "llama3.2", ""),
        ("---\nlicense: other\n---\n", "\n  Terms of Our Model\n\nYou may\n", "Terms of Our Model", ""),
        ("---\nlicense: [\n---\n", "  Apache License\n  Version 2.0\n", "Apache-2.0", APACHE),
        (None, "MIT License\n", "MIT", "https://opensource.org/license/mit"),
    ],
)
def test_the_licence_is_the_readme_s_or_the_licence_file_s(
    card: str | None, text: str | None, licence: str, url: str, tmp_path: Path
) -> None:
    for name, content in (("README.md", card), ("LICENSE", text)):
        if content is not None:
            (tmp_path / name).write_text(content)
    assert licence_of(tmp_path, source()) == {"licence": licence, "licence_url": url}
    assert licence_of(tmp_path, source(licence="mine", licence_url="u")) == {"licence": "mine", "licence_url": "u"}


def test_a_model_that_says_nowhere_how_it_may_be_used_is_refused_with_the_line_to_write(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n")
    with pytest.raises(BaseModelError, match=r"write `licence: ITS NAME` under base_model in domain\.yaml"):
        licence_of(tmp_path, source())


def tokens(pad: str | None, *known: str) -> Any:
    vocabulary = {text: number for number, text in enumerate(known)}
    return SimpleNamespace(pad_token=pad, eos_token="<e>", get_vocab=lambda: vocabulary)  # noqa: S106 - no password


@pytest.mark.parametrize(
    "pad, known, given, taken",
    [
        ("<p>", ("<p>", "<e>"), "", "<p>"),
        ("<p>", ("<p>", "<e>", "<q>"), "<q>", "<q>"),
        ("<e>", ("<e>", "<unk>", "<|endoftext|>"), "", "<|endoftext|>"),
        (None, ("<e>", "<unk>", "<|finetune_right_pad_id|>"), "", "<|finetune_right_pad_id|>"),
        (None, ("<e>", "<unk>"), "", "<unk>"),
    ],
)
def test_padding_is_what_is_named_then_the_model_s_own_then_an_unused_token(
    pad: str | None, known: tuple[str, ...], given: str, taken: str
) -> None:
    assert pad_token_of(tokens(pad, *known), source(pad_token=given)) == taken


def test_a_model_that_could_only_pad_with_the_end_of_a_turn_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(BaseModelError, match=r"write `pad_token: TOKEN` under base_model .* never <e>"):
        pad_token_of(tokens("<e>", "<e>", "a"), source())
