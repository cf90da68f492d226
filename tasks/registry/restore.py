"""Bring back what tasks/registry/backup.py wrote: everything is read, checked and rebuilt aside, then put in place.

A backup that was cut off, changed or opened with the wrong key changes nothing here. Putting in place is a row of
renames; if the machine goes down in the middle of it, the same restore with `force` does it again. The caller makes
sure that nothing is running.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import sha256_file
from tasks.registry.backup import ARTIFACTS, DATABASE, FORMAT, KEPT, MANIFEST, STORE, embedded_database, registered
from tasks.registry.sealing import unseal
from tasks.store.address import database_url
from tasks.store.copy import copy_store
from tasks.store.migrate import migrate
from tasks.store.store import Store

# Where MLflow's database names the folder of the artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


class RestoreRefused(FlywheelError):
    """There is something here already, or what is asked cannot be done safely; the message says what to do."""


class BackupDamaged(FlywheelError):
    """The backup is not whole, or holds something that it should not. Nothing was changed."""


def put_back(home: Path, source: Path, identity: str | None, passphrase: str | None, force: bool) -> dict[str, Any]:
    """Restore `source` into `home`; returns the manifest's facts and what was restored.

    Raises:
        RestoreRefused: store, registry or secrets are there already and `force` is not given.
        SealError: the key is wrong, or the file is damaged.
        BackupDamaged: it is not whole.
        StoreError: the store cannot be put in place.
    """
    if not source.is_file():
        raise RestoreRefused(f"{source} does not exist")
    _refuse_unless_empty(home, force)
    (home / layout.HOME).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / layout.HOME, prefix="restore-") as name:
        folder = Path(name)
        with source.open("rb") as stream, (folder / "plain.tar").open("wb") as tar:
            unseal(stream, tar, identity, passphrase)
        manifest = _unpack(folder / "plain.tar", folder / "plain")
        _check(manifest, folder / "plain")
        restored = _place(home, folder, manifest)
    facts = {key: manifest[key] for key in ("taken_at", "domain", "versions", "not_included")}
    return {**facts, "files": len(manifest["files"]), "restored": restored}


def _refuse_unless_empty(home: Path, force: bool) -> None:
    there = []
    url = database_url(None, home)
    if url.get_backend_name() == "sqlite":
        if Path(str(url.database)).exists():
            there.append(f"a store ({url.database})")
    elif force:
        raise RestoreRefused("--force cannot empty a PostgreSQL store; create an empty database and name that one")
    registry = _registry(home)
    if registry.is_file() and registered(registry):
        there.append(f"a registry ({registry})")
    if any((home / layout.SECRETS).glob("*")):
        there.append(f"secrets ({layout.SECRETS})")
    if there and not force:
        raise RestoreRefused(f"there is already {', '.join(there)}; --force replaces what is here")


def _registry(home: Path) -> Path:
    """The registry's database; beside a remote tracking server, the one to be used without it."""
    return embedded_database(home) or home / ARTIFACTS.parent / DATABASE


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Write every member below `folder`, and hold it against the manifest, which comes last."""
    try:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for member in members:
                if not member.isreg() or not _is_ours(member.name):
                    raise BackupDamaged(f"the backup holds something that does not belong there: {member.name!r}")
            tar.extractall(folder, members, filter="data")
        names = [member.name for member in members]
        manifest = json.loads((folder / MANIFEST).read_bytes()) if names and names[-1] == MANIFEST else None
    except (tarfile.TarError, ValueError, OSError) as error:
        raise BackupDamaged(f"the backup cannot be read to its end: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BackupDamaged("the backup has no manifest that this Flywheel can read; it is not whole")
    written = {name: folder / name for name in names[:-1]}
    found = {name: {"sha256": sha256_file(at), "bytes": at.stat().st_size} for name, at in written.items()}
    if manifest.get("files") != found:
        raise BackupDamaged("the files in the backup are not those its manifest lists")
    os.sync()  # what is renamed into its place next has to be on the disk
    return manifest


def _is_ours(name: str) -> bool:
    """Whether a name in a backup is one that a backup can hold: no way leads out of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return False
    if name in (STORE, DATABASE, MANIFEST) or path.parts[0] == "artifacts":
        return True
    inner = Path(*path.parts[1:])
    return path.parts[0] == "files" and any(inner.is_relative_to(kept) for kept in KEPT)


def _check(manifest: dict[str, Any], plain: Path) -> None:
    """Both databases must be sound, before anything is replaced."""
    for name in {STORE, DATABASE} & manifest["files"].keys():
        with closing(sqlite3.connect(plain / name)) as connection:
            try:
                found = connection.execute("PRAGMA integrity_check").fetchone()[0]
            except sqlite3.DatabaseError as error:
                found = str(error)
        if found != "ok":
            raise BackupDamaged(f"the database {name} in the backup is damaged: {found}")


def _place(home: Path, folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The store first, because it alone can still refuse; then files by renaming."""
    plain, files = folder / "plain", manifest["files"]
    done = []
    if STORE in files:
        _place_store(home, plain / STORE)
        done.append("store")
    if DATABASE in files:
        move_addresses(plain / DATABASE, manifest["artifacts"], (home / ARTIFACTS).absolute().as_uri())
        for path in sorted((plain / "artifacts").rglob("*")):
            if path.is_file():
                _rename(path, home / ARTIFACTS / path.relative_to(plain / "artifacts"))
        replace_database(plain / DATABASE, _registry(home))
        done.append(f"registry ({len(manifest['versions'])} versions)")
    for name in sorted(files):
        if name.startswith("files/"):
            _rename(plain / name, home / name.removeprefix("files/"))
    kept = sorted({name.removeprefix("files/").partition("/")[0] for name in files if name.startswith("files/")})
    return [*done, *(name if name != layout.HOME.name else "secrets" for name in kept)]


def _place_store(home: Path, file: Path) -> None:
    """Bring the store to this code's schema, and put it in place: by renaming, or row by row into PostgreSQL."""
    migrate(f"sqlite:///{file}")
    url = database_url(None, home)
    if url.get_backend_name() == "sqlite":
        replace_database(file, Path(str(url.database)))
        return
    store = Store.open(f"sqlite:///{file}")
    try:
        copy_store(store, None, home)
    finally:
        store.close()


def move_addresses(database: Path, old: str, new: str) -> None:
    """Let MLflow's database name the artifacts where they are now."""
    if old == new:
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in ADDRESSES:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                    (new, len(old) + 1, len(old), old),
                )


def replace_database(source: Path, target: Path) -> None:
    """Put an SQLite database in the place of another, whose log must not be taken for the new one's."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for suffix in ("-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    source.chmod(0o600)
    source.replace(target)


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if target.parent.name == layout.SECRETS.name else 0o755)
    if target.is_dir():
        shutil.rmtree(target)
    private = layout.HOME.name in target.parts
    source.chmod(0o600 if private else 0o644)
    source.replace(target)
