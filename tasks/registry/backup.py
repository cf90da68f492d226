"""One encrypted file that brings an installation back: store, registry, state, settings, secrets.

Taken while the platform runs: both databases are copied as they are at one moment, and only then are the artifacts of
the versions read. A restore checks everything before it puts anything in place, by renaming. Not in it: the git
repository, the DVC cache, runs that led to no version, and what a remote MLflow server or artifact store keeps.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import psutil

from tasks.core import layout
from tasks.core.clock import now
from tasks.core.errors import FlywheelError
from tasks.core.files import canonical_json, sha256_file
from tasks.core.params import load_params
from tasks.registry.runs import STORE as MLFLOW
from tasks.registry.runs import tracking_uri
from tasks.registry.sealing import public_keys, seal, unseal
from tasks.store.errors import StoreOutdated
from tasks.store.forgotten import CERTIFICATES
from tasks.store.migrate import copy_store, migrate
from tasks.store.store import Store, database_url

FORMAT = 2
MANIFEST = "MANIFEST.json"
STORE = "store.db"
DATABASE = "mlflow.db"
ARTIFACTS = MLFLOW / "artifacts"
# Kept as they are, under files/ in the backup.
KEPT = (layout.STATE, Path("dvc.lock"), layout.PARAMS, layout.SECRETS, layout.FEEDBACK_SNAPSHOTS, CERTIFICATES)
# Where MLflow's database names the folder of the artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


class BackupFailed(FlywheelError):
    """A backup cannot be written; the message says why. Nothing is left under its name."""


class RestoreRefused(FlywheelError):
    """There is something here already, or what is asked cannot be done safely; the message says what to do."""


class BackupDamaged(FlywheelError):
    """The backup is not whole, or holds something that it should not. Nothing was changed."""


def back_up(home: Path, target: Path, recipients: list[str], passphrase: str | None) -> dict[str, Any]:
    """Write the backup of `home` to `target`, whole or not at all; returns what is in it and what is not.

    Raises:
        BackupFailed: a file cannot be read or written.
        SealError: a recipient is no age public key.
        StoreError: the store cannot be read.
    """
    keys = public_keys(recipients)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with (
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
            _private_folder(home) as folder,
        ):
            plan, about = _prepare(home, folder)
            files = _write_tar(folder / "plain.tar", plan, about)
            with (folder / "plain.tar").open("rb") as plain:
                seal(plain, stream, keys, passphrase)
            stream.flush()
            os.fsync(stream.fileno())
        size = temporary.stat().st_size
        temporary.replace(target)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise BackupFailed(f"the backup could not be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return {**about, "file": str(target), "bytes": size, "files": files, "versions": len(about["versions"])}


@contextmanager
def _private_folder(home: Path) -> Iterator[Path]:
    """A folder of mode 700 for what is not encrypted, gone in the end. One that a kill has left goes first."""
    (home / layout.HOME).mkdir(parents=True, exist_ok=True)
    for left in (home / layout.HOME).glob("unsealed-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home / layout.HOME, prefix=f"unsealed-{os.getpid()}-") as folder:
        yield Path(folder)


def _prepare(home: Path, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Name in the backup → file; and what the manifest says of it all."""
    plan: dict[str, Path] = {}
    left_out: list[str] = []
    versions: list[tuple[str, str]] = []
    if os.environ.get("FLYWHEEL_DATABASE_URL") or (home / layout.STORE / "flywheel.db").is_file():
        try:
            with closing(Store.open(home=home)) as store:
                copy_store(store, f"sqlite:///{folder / STORE}")
        except StoreOutdated as error:
            raise BackupFailed(f"the store cannot be copied as it is: {error}") from None
        plan[STORE] = folder / STORE
    else:
        left_out.append("the store: there is none yet")
    database = _embedded_database(home)
    if database is None:
        uri = urlsplit(tracking_uri(home))
        shown = uri._replace(netloc=uri.netloc.rpartition("@")[2]).geturl()  # without a password
        left_out.append(f"the registry: it is kept by {shown}; back that up itself")
    elif database.is_file():
        address = f"{database.absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(address, uri=True, timeout=60)) as one,
            closing(sqlite3.connect(folder / DATABASE)) as other,
        ):
            one.backup(other, pages=1000)
        plan[DATABASE] = folder / DATABASE
        versions = _registered(folder / DATABASE)
        plan |= _artifacts((home / ARTIFACTS).absolute(), versions, left_out)
    for path in KEPT:
        plan |= {f"files/{found.relative_to(home).as_posix()}": found for found in _files(home / path)}
    about = {
        "format": FORMAT,
        "taken_at": now().isoformat(timespec="seconds"),
        "domain": load_params(home / layout.PARAMS).domain,
        "artifacts": (home / ARTIFACTS).absolute().as_uri(),
        "versions": [name for name, _ in versions],
        "not_included": left_out,
    }
    return plan, about


def _embedded_database(home: Path) -> Path | None:
    """MLflow's database where it is ours: without a tracking server, or with the one that `flywheel up` starts."""
    uri = tracking_uri(home)
    own = f":{load_params(home / layout.PARAMS).platform.mlflow_port}"
    if uri.rstrip("/") in (f"http://127.0.0.1{own}", f"http://localhost{own}"):
        return home / MLFLOW / DATABASE
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _registered(database: Path) -> list[tuple[str, str]]:
    """Name and number of every registered version, and the address of its run's artifacts."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT v.name || ' ' || v.version, coalesce(r.artifact_uri, '') "
            "FROM model_versions v LEFT JOIN runs r ON r.run_uuid = v.run_id "
            "WHERE v.current_stage != 'Deleted_Internal' OR v.current_stage IS NULL ORDER BY v.name, v.version"
        ).fetchall()


def _artifacts(base: Path, versions: list[tuple[str, str]], left_out: list[str]) -> dict[str, Path]:
    """The files of all versions' runs: package, verdict, reports, parameters."""
    plan: dict[str, Path] = {}
    for version, uri in versions:
        folder = Path(unquote(urlsplit(uri).path)) if uri.startswith(("file:", "/")) else None
        if folder is None or not folder.is_relative_to(base) or not folder.is_dir():
            left_out.append(f"the files of version {version}: {uri or 'it has none'}")
            continue
        plan |= {f"artifacts/{path.relative_to(base).as_posix()}": path for path in _files(folder)}
    return plan


def _files(path: Path) -> Iterator[Path]:
    """A file, or every plain file under a folder, sorted."""
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    yield from (one for one in found if one.is_file() and not one.is_symlink())


def _write_tar(path: Path, plan: dict[str, Path], about: dict[str, Any]) -> int:
    """All files, then the manifest of what was written; returns how many files."""

    def private(member: tarfile.TarInfo) -> tarfile.TarInfo:
        return member.replace(mode=0o600, uid=0, gid=0, uname="", gname="", deep=False)

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for name, source in plan.items():
            tar.add(source, name, recursive=False, filter=private)
    files = {}
    with tarfile.open(path) as tar:
        for member in tar:
            digest = hashlib.file_digest(cast("io.BufferedReader", tar.extractfile(member)), "sha256")
            files[member.name] = {"sha256": digest.hexdigest(), "bytes": member.size}
    content = canonical_json({**about, "files": files}).encode()
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mode = len(content), 0o600
        tar.addfile(member, io.BytesIO(content))
    return len(files)


def put_back(home: Path, source: Path, identity: str | None, passphrase: str | None, force: bool) -> dict[str, Any]:
    """Restore `source` into `home`; returns the manifest's facts and what was restored.

    If the machine goes down in the middle, the same with `force` does it again.

    Raises:
        RestoreRefused: store, registry or secrets are there already and `force` is not given.
        SealError: the key is wrong, or the file is damaged.
        BackupDamaged: it is not whole.
        StoreError: the store cannot be put in place.
    """
    if not source.is_file():
        raise RestoreRefused(f"{source} does not exist")
    registry = _embedded_database(home) or home / MLFLOW / DATABASE  # beside a remote server: the one without it
    _refuse_unless_empty(home, registry, force)
    with _private_folder(home) as folder:
        with source.open("rb") as stream, (folder / "plain.tar").open("wb") as tar:
            unseal(stream, tar, identity, passphrase)
        manifest = _unpack(folder / "plain.tar", folder / "plain")
        restored = _place(home, registry, folder / "plain", manifest)
    facts = {key: manifest[key] for key in ("taken_at", "domain", "versions", "not_included")}
    return {**facts, "files": len(manifest["files"]), "restored": restored}


def _refuse_unless_empty(home: Path, registry: Path, force: bool) -> None:
    there = []
    url = database_url(None, home)
    if url.get_backend_name() == "sqlite":
        if Path(str(url.database)).exists():
            there.append(f"a store ({url.database})")
    elif force:
        raise RestoreRefused("--force cannot empty a PostgreSQL store; create an empty database and name that one")
    if registry.is_file() and _registered(registry):
        there.append(f"a registry ({registry})")
    if any((home / layout.SECRETS).glob("*")):
        there.append(f"secrets ({layout.SECRETS})")
    if there and not force:
        raise RestoreRefused(f"there is already {', '.join(there)}; --force replaces what is here")


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


def _place(home: Path, registry: Path, plain: Path, manifest: dict[str, Any]) -> list[str]:
    """The store first, because it alone can still refuse; then files by renaming. Returns what was restored."""
    files, done = manifest["files"], []
    if STORE in files:
        _place_store(home, plain / STORE)
        done.append("store")
    if DATABASE in files:
        move_addresses(plain / DATABASE, manifest["artifacts"], (home / ARTIFACTS).absolute().as_uri())
        for path in _files(plain / "artifacts"):
            _rename(path, home / ARTIFACTS / path.relative_to(plain / "artifacts"))
        _replace_database(plain / DATABASE, registry)
        done.append(f"registry ({len(manifest['versions'])} versions)")
    kept = set()
    for path in _files(plain / "files"):
        name = path.relative_to(plain / "files")
        _rename(path, home / name)
        kept.add("secrets" if name.parts[0] == layout.HOME.name else name.parts[0])
    return [*done, *sorted(kept)]


def _place_store(home: Path, file: Path) -> None:
    """Bring the store to this code's schema, and put it in place: by renaming, or row by row into PostgreSQL."""
    migrate(f"sqlite:///{file}")
    url = database_url(None, home)
    if url.get_backend_name() == "sqlite":
        _replace_database(file, Path(str(url.database)))
        return
    with closing(Store.open(f"sqlite:///{file}")) as store:
        copy_store(store, None, home)


def move_addresses(database: Path, old: str, new: str) -> None:
    """Let MLflow's database name the artifacts where they are now."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in ADDRESSES:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                    (new, len(old) + 1, len(old), old),
                )


def _replace_database(source: Path, target: Path) -> None:
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
    source.chmod(0o600 if layout.HOME.name in target.parts else 0o644)
    source.replace(target)
