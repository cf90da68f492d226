"""A backup brings everything back on another machine, or changes nothing there."""

from __future__ import annotations

import filecmp
import io
import os
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from tasks.registry.backup import BackupDamaged, RestoreRefused, back_up, put_back
from tasks.registry.runs import open_run
from tasks.registry.sealing import SealError, public_keys, read_identity, read_passphrase, seal, unseal
from tasks.registry.versions import Registry
from tasks.store.identities import authenticate, create_identity
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.mlflow_store import lay_mlflow

PASSPHRASE = "correct horse battery"  # noqa: S105 - of tests
# Opening by an identity is quick; a passphrase is slow on purpose.
IDENTITY = pyrage.x25519.Identity.generate()
PUBLIC, SECRET = str(IDENTITY.to_public()), str(IDENTITY)


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "FLYWHEEL_DATABASE_URL", "FLYWHEEL_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def key_of_anna() -> list[str]:
    return []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, root: Path, key_of_anna: list[str]) -> Iterator[Path]:
    """An installation with one identity and one version, whose package is one file."""
    home = tmp_path_factory.mktemp("first")
    patch = pytest.MonkeyPatch()
    patch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "FLYWHEEL_DATABASE_URL"):
        patch.delenv(name, raising=False)
    (home / "params.yaml").write_text((root / "params.yaml").read_text())
    (home / "dvc.lock").write_text("schema: '2.0'\n")
    (home / "state").mkdir()
    (home / "state/feedback.json").write_text('{"count": 3}\n')
    (home / ".flywheel/secrets").mkdir(parents=True)
    (home / ".flywheel/secrets/chat.key").write_text("fw_secret\n")
    migrate(None, home=home)
    store = Store.open(home=home)
    key_of_anna.append(create_identity(store, "Anna 安娜", "chat")[1])
    store.close()
    registry = Registry("construction", lay_mlflow(home))
    run = open_run(registry.client, home, "construction", "inputs", "test")
    package = home / "package"
    package.mkdir()
    (package / "weights.txt").write_text("weights")
    registry.client.log_artifacts(run, str(package), "package")
    registry.register(run, {"manifest_sha256": "1" * 64, "verdict_sha256": "1", "verdict": "hold"})
    yield home
    patch.undo()


@pytest.fixture(scope="module")
def backup(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "flywheel.backup"
    found = back_up(home, path, [], PASSPHRASE)
    assert found["versions"] == 1 and found["not_included"] == []
    return path


@pytest.fixture(scope="module")
def backup_for_key(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "flywheel.backup"
    back_up(home, path, [PUBLIC], None)
    return path


def other_machine(folder: Path, root: Path) -> Path:
    folder.mkdir()
    (folder / "params.yaml").write_text((root / "params.yaml").read_text())
    return folder


def sealed_tar(folder: Path, *members: tarfile.TarInfo) -> Path:
    """A backup with these members, each of four bytes."""
    with tarfile.open(folder / "tar", mode="w") as tar:
        for member in members:
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    with (folder / "tar").open("rb") as plain, (folder / "b").open("wb") as stream:
        seal(plain, stream, public_keys([PUBLIC]), None)
    return folder / "b"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_backup_brings_everything_back_in_another_place(
    home: Path, backup: Path, key_of_anna: list[str], tmp_path: Path, root: Path
) -> None:
    content = backup.read_bytes()
    assert not any(word in content for word in (b"fw_secret", b"weights", b"construction"))
    assert backup.stat().st_mode & 0o777 == 0o600
    second = other_machine(tmp_path / "second", root)
    found = put_back(second, backup, None, PASSPHRASE, force=False)
    assert found["versions"] == ["construction 1"]

    store = Store.open(home=second)
    person = authenticate(store, key_of_anna[0])
    store.close()
    assert person is not None and person.name == "Anna 安娜"
    assert (second / "state/feedback.json").read_text() == '{"count": 3}\n'
    secret = second / ".flywheel/secrets/chat.key"
    assert secret.read_text() == "fw_secret\n" and secret.stat().st_mode & 0o777 == 0o600
    registry = Registry("construction", second)
    version = registry.get("1")
    assert "candidate" in version.aliases
    uri = registry.client.get_run(version.run_id).info.artifact_uri
    assert str(second) in uri and str(home) not in uri
    fetched = registry.client.download_artifacts(version.run_id, "package", str(tmp_path))
    assert (Path(fetched) / "weights.txt").read_text() == "weights"


def test_the_wrong_passphrase_or_a_cut_head_changes_nothing(backup: Path, tmp_path: Path, root: Path) -> None:
    second = other_machine(tmp_path / "second", root)
    before = everything(second)
    with pytest.raises(SealError, match="passphrase is wrong"):
        put_back(second, backup, None, "another passphrase", force=False)
    cut = tmp_path / "cut"
    cut.write_bytes(backup.read_bytes()[:100])  # in the line before the rest
    with pytest.raises(SealError, match="no backup"):
        put_back(second, cut, None, PASSPHRASE, force=False)
    assert everything(second) == before


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_a_backup_that_was_cut_off_or_changed_anywhere_changes_nothing(
    part: float, backup_for_key: Path, tmp_path: Path, root: Path
) -> None:
    second = other_machine(tmp_path / "second", root)
    before = everything(second)
    content = backup_for_key.read_bytes()
    place = int(len(content) * part)
    cut, changed = tmp_path / "cut", tmp_path / "changed"
    cut.write_bytes(content[:place])
    changed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    for path in (cut, changed):
        with pytest.raises(SealError):
            put_back(second, path, SECRET, None, force=False)
    assert everything(second) == before


def test_what_is_there_is_replaced_only_when_told_to(
    home: Path, backup_for_key: Path, key_of_anna: list[str], tmp_path: Path, root: Path
) -> None:
    second = other_machine(tmp_path / "second", root)
    migrate(None, home=second)
    store = Store.open(home=second)
    _, other = create_identity(store, "somebody else", "chat")
    store.close()
    with pytest.raises(RestoreRefused, match="--force"):
        put_back(second, backup_for_key, SECRET, None, force=False)
    put_back(second, backup_for_key, SECRET, None, force=True)
    store = Store.open(home=second)
    assert authenticate(store, other) is None and authenticate(store, key_of_anna[0]) is not None
    store.close()


def test_a_backup_for_a_public_key_opens_with_its_identity_only(
    backup_for_key: Path, tmp_path: Path, root: Path
) -> None:
    second = other_machine(tmp_path / "second", root)
    stranger = str(pyrage.x25519.Identity.generate())
    with pytest.raises(SealError, match="key is wrong"):
        put_back(second, backup_for_key, stranger, None, force=False)
    with pytest.raises(SealError, match="public key"):
        put_back(second, backup_for_key, None, PASSPHRASE, force=False)
    (tmp_path / "key.txt").write_text(f"# made today\n{SECRET}\n")
    assert put_back(second, backup_for_key, read_identity(tmp_path / "key.txt"), None, force=False)["versions"]


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "files/../../outside", "files/dvc.yaml", "other"])
def test_a_backup_cannot_write_outside_what_a_backup_holds(name: str, tmp_path: Path, root: Path) -> None:
    second = other_machine(tmp_path / "second", root)
    with pytest.raises(BackupDamaged, match="does not belong"):
        put_back(second, sealed_tar(tmp_path, tarfile.TarInfo(name)), SECRET, None, force=False)
    assert not (tmp_path / "outside").exists() and not (second / "dvc.yaml").exists()


@pytest.mark.parametrize("names", [[], ["files/dvc.lock"]])
def test_a_backup_without_its_manifest_is_not_whole(names: list[str], tmp_path: Path, root: Path) -> None:
    second = other_machine(tmp_path / "second", root)
    with pytest.raises(BackupDamaged, match="manifest"):
        put_back(second, sealed_tar(tmp_path, *map(tarfile.TarInfo, names)), SECRET, None, force=False)


def test_a_failed_backup_leaves_the_older_one(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_text("older")
    with pytest.raises(SealError, match="age public key"):
        back_up(home, path, ["age1nonsense"], None)
    assert path.read_text() == "older" and [found.name for found in tmp_path.iterdir()] == ["b"]


def test_a_short_passphrase_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_BACKUP_PASSPHRASE", "short")
    with pytest.raises(SealError, match="12 characters"):
        read_passphrase(None, "--recipient")
    (tmp_path / "p").write_text(PASSPHRASE + "\nsecond line\n")
    assert read_passphrase(tmp_path / "p", "--recipient") == PASSPHRASE
    (tmp_path / "p").write_bytes("lösenord med ö".encode("latin-1"))
    with pytest.raises(SealError, match="p is not UTF-8 text"):
        read_passphrase(tmp_path / "p", "--recipient")


def test_a_backup_that_is_ended_in_the_middle_leaves_nothing_unencrypted(
    home: Path, root: Path, tmp_path: Path
) -> None:
    """Ended by SIGTERM it takes away what it wrote; what a kill has left goes with the next backup."""
    code = (
        "import os, signal, sys\n"
        "from flywheel.cli import main\n"
        "from tasks.registry import backup\n"
        "backup.seal = lambda *_: os.kill(os.getpid(), getattr(signal, sys.argv.pop()))\n"
        "main(['backup', sys.argv.pop()])"
    )
    environment = {**os.environ, "FLYWHEEL_BACKUP_PASSPHRASE": PASSPHRASE, "FLYWHEEL_ROOT": str(home)}
    for name, status, left in (("SIGKILL", -9, 1), ("SIGTERM", 143, 0)):
        ended = subprocess.run([sys.executable, "-c", code, name, str(tmp_path / "b")], cwd=root, env=environment)
        assert (ended.returncode, len([*(home / ".flywheel").glob("unsealed-*/plain.tar")])) == (status, left)
    assert not (tmp_path / "b").exists()


def test_sealing_takes_little_memory(tmp_path: Path) -> None:
    plain, sealed, opened = tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"
    plain.write_bytes(os.urandom(64 << 20))
    tracemalloc.start()
    with plain.open("rb") as source, sealed.open("wb") as target:
        seal(source, target, public_keys([PUBLIC]), None)
    with sealed.open("rb") as source, opened.open("wb") as target:
        unseal(source, target, SECRET, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert filecmp.cmp(plain, opened, shallow=False) and peak < 16 << 20
