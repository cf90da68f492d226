"""What state/forgotten.json tells the stages: hashes of names, that stand for their parts too and for nothing else."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tasks.core.files import write_json
from tasks.corpus.reading.forgotten import FORGOTTEN, Forgotten, ForgottenUnreadable, read_forgotten


def forgotten(*names: str) -> Forgotten:
    return Forgotten(frozenset(sha256(name.encode()).hexdigest() for name in names))


@pytest.mark.parametrize(
    "asked, name, gone",
    [
        ("faq", "faq", True),
        ("faq", "faq/7", True),
        ("faq/7", "faq/7", True),
        ("faq/7", "faq/70", False),
        ("faq/7", "faq", False),
        ("letters/a.pdf", "letters/a.pdf#0-344", True),
        ("graph/edges.csv:2", "graph/edges.csv:2", True),
        ("graph/edges.csv:2", "graph/edges.csv:21", False),
        ("feedback:fb_1", "feedback:fb_1", True),
        ("", "/etc", True),
    ],
)
def test_who_forgets_a_whole_forgets_its_parts(asked: str, name: str, gone: bool) -> None:
    assert forgotten(asked)("something else", name) is gone
    assert not Forgotten()(name)


@pytest.mark.parametrize("content", [None, "", "[]\n"])
def test_a_missing_or_empty_file_forgets_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        write_json(tmp_path / FORGOTTEN, [])
        (tmp_path / FORGOTTEN).write_text(content)
    assert read_forgotten(tmp_path) == Forgotten()


@pytest.mark.parametrize("content", ["[", '["anna"]', "[7]", "7"])
def test_anything_but_hashes_is_refused(tmp_path: Path, content: str) -> None:
    write_json(tmp_path / FORGOTTEN, [])
    (tmp_path / FORGOTTEN).write_text(content)
    with pytest.raises(ForgottenUnreadable, match=r"forgotten\.json"):
        read_forgotten(tmp_path)
