"""Crash-safe files and manifests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tasks.core import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "inner").mkdir(parents=True)
    (made / "a.txt").write_text("one")
    (made / "inner" / "b.txt").write_text("two")
    return made


def test_the_digest_of_a_directory_is_the_hash_of_its_sorted_listing(folder: Path) -> None:
    """sha256 of {"a.txt":sha256("one"),"inner/b.txt":sha256("two")} as canonical JSON, put together by hand."""
    one, two = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()
    listing = f'{{"a.txt":"{one}","inner/b.txt":"{two}"}}'
    assert files.write_manifest(folder) == hashlib.sha256(listing.encode()).hexdigest()
    assert files.verify_manifest(folder) == hashlib.sha256(listing.encode()).hexdigest()


def test_every_difference_from_the_manifest_is_named(folder: Path) -> None:
    files.write_manifest(folder)
    (folder / "a.txt").write_text("changed")
    (folder / "inner" / "b.txt").unlink()
    (folder / "c.txt").write_text("new")
    with pytest.raises(files.ManifestError) as error:
        files.verify_manifest(folder)
    for part in ("changed: a.txt", "missing: inner/b.txt", "not listed: c.txt"):
        assert part in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3', "null"])
def test_a_torn_manifest_is_an_error_that_says_to_build_again(folder: Path, content: str) -> None:
    (folder / files.MANIFEST).write_text(content)
    with pytest.raises(files.ManifestError, match="again"):
        files.verify_manifest(folder)


def test_a_link_out_of_a_directory_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(files.ManifestError, match="symbolic link"):
        files.write_manifest(folder)


def test_an_error_while_a_directory_is_written_leaves_the_old_one(folder: Path) -> None:
    with pytest.raises(RuntimeError), files.fresh_directory(folder) as temporary:
        (temporary / "half").write_text("half")
        raise RuntimeError
    assert (folder / "a.txt").read_text() == "one"
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_a_written_directory_replaces_the_old_one_whole(folder: Path) -> None:
    with files.fresh_directory(folder) as temporary:
        (temporary / "only").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["only"]


def test_json_with_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_links_that_the_manifest_names_count_as_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("heavy")
    (folder / "copy").write_text("heavy")
    copied = files.write_manifest(folder)
    (folder / "copy").unlink()
    (folder / "copy").symlink_to(tmp_path / "weights")
    with pytest.raises(files.ManifestError, match="symbolic link"):
        files.write_manifest(folder)
    assert files.write_manifest(folder, ["copy"]) == copied == files.verify_manifest(folder)
    (tmp_path / "weights").write_text("other")
    with pytest.raises(files.ManifestError, match="changed: copy"):
        files.verify_manifest(folder)
    (tmp_path / "weights").unlink()
    with pytest.raises(files.ManifestError, match="missing: copy"):
        files.verify_manifest(folder)
