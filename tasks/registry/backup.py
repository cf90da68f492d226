"""One encrypted file that brings an installation back: store, registry, state, settings, secrets.

Taken while the platform runs: the store is copied as it is at one moment, MLflow's database by SQLite's own
backup, and only then are the artifacts of its versions read (a version is registered after its artifacts are there).
The plain copies lie in .flywheel/ for that time, readable by this user only. A manifest with the SHA-256 of every file
comes last: a backup without it is not whole.

Not in it: the git repository (push its branches, release/* too), the DVC cache, runs that led to no version, and
whatever a remote MLflow server or artifact store keeps.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from tasks.core import layout
from tasks.core.clock import now
from tasks.core.errors import FlywheelError
from tasks.core.files import canonical_json
from tasks.core.params import load_params
from tasks.registry.runs import STORE as MLFLOW
from tasks.registry.runs import tracking_uri
from tasks.registry.sealing import seal

FORMAT = 2
MANIFEST = "MANIFEST.json"
STORE = "store.db"
DATABASE = "mlflow.db"
ARTIFACTS = MLFLOW / "artifacts"
# Kept as they are, under files/ in the backup.
KEPT = (layout.STATE, Path("dvc.lock"), layout.PARAMS, layout.SECRETS, layout.FEEDBACK_SNAPSHOTS)


class BackupFailed(FlywheelError):
    """A backup cannot be written; the message says why. Nothing is left under its name."""


def back_up(home: Path, target: Path, recipients: list[str], passphrase: str | None) -> dict[str, Any]:
    """Write the backup of `home` to `target`, whole or not at all; returns what is in it and what is not.

    Raises:
        BackupFailed: a file cannot be read or written.
        SealError: a recipient is no age public key.
        StoreError: the store cannot be read.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    (home / layout.HOME).mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=home / layout.HOME, prefix="backup-") as folder:  # mode 700
            plan, about = _prepare(home, Path(folder))
            files = _write_tar(Path(folder) / "plain.tar", plan, about)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                with (Path(folder) / "plain.tar").open("rb") as plain:
                    seal(plain, stream, recipients, passphrase)
                stream.flush()
                os.fsync(stream.fileno())
        size = temporary.stat().st_size
        temporary.replace(target)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise BackupFailed(f"the backup could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return {**about, "file": str(target), "bytes": size, "files": files, "versions": len(about["versions"])}


def _prepare(home: Path, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Name in the backup → file; and what the manifest says of it all."""
    left_out: list[str] = []
    plan: dict[str, Path] = {}
    if _copy_store(home, folder / STORE):
        plan[STORE] = folder / STORE
    else:
        left_out.append("the store: there is none yet")
    versions: list[dict[str, Any]] = []
    database = embedded_database(home)
    if database is None:
        left_out.append(f"the registry: it is kept by {_without_password(tracking_uri(home))}; back that up itself")
    elif database.is_file():
        copy_database(database, folder / DATABASE)
        plan[DATABASE] = folder / DATABASE
        versions = registered(folder / DATABASE)
        plan |= _artifacts(home, versions, left_out)
    for path in KEPT:
        plan |= {f"files/{found.relative_to(home).as_posix()}": found for found in _files(home / path)}
    about = {
        "format": FORMAT,
        "taken_at": now().isoformat(timespec="seconds"),
        "domain": load_params(home / layout.PARAMS).domain,
        "artifacts": (home / ARTIFACTS).absolute().as_uri(),
        "versions": [f"{version['name']} {version['version']}" for version in versions],
        "not_included": left_out,
    }
    return plan, about


def _copy_store(home: Path, path: Path) -> bool:
    """The store as an SQLite file, whatever database it is in; False where there is none."""
    from tasks.store.copy import copy_store
    from tasks.store.errors import StoreOutdated
    from tasks.store.store import Store

    if not os.environ.get("FLYWHEEL_DATABASE_URL") and not (home / layout.STORE / "flywheel.db").is_file():
        return False
    try:
        store = Store.open(home=home)
    except StoreOutdated as error:
        raise BackupFailed(f"the store cannot be copied as it is: {error}") from None
    try:
        copy_store(store, f"sqlite:///{path}")
    finally:
        store.close()
    return True


def embedded_database(home: Path) -> Path | None:
    """MLflow's database where it is ours: without a tracking server, or with the one that `flywheel up` starts."""
    uri = tracking_uri(home)
    own = f":{load_params(home / layout.PARAMS).platform.mlflow_port}"
    if uri.rstrip("/") in (f"http://127.0.0.1{own}", f"http://localhost{own}"):
        return home / MLFLOW / DATABASE
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite database that others may be writing to."""
    address = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=60)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other, pages=1000)


def registered(database: Path) -> list[dict[str, Any]]:
    """Every registered version, with the address of its run's artifacts."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT v.name, v.version, r.artifact_uri FROM model_versions v LEFT JOIN runs r ON r.run_uuid = v.run_id "
            "WHERE v.current_stage != 'Deleted_Internal' OR v.current_stage IS NULL ORDER BY v.name, v.version"
        ).fetchall()
    return [dict(zip(("name", "version", "artifact_uri"), row, strict=True)) for row in rows]


def _artifacts(home: Path, versions: list[dict[str, Any]], left_out: list[str]) -> dict[str, Path]:
    """The files of all versions' runs: package, verdict, reports, parameters."""
    plan: dict[str, Path] = {}
    base = (home / ARTIFACTS).absolute()
    for version in versions:
        uri = version["artifact_uri"] or ""
        folder = Path(unquote(urlsplit(uri).path)) if uri.startswith(("file:", "/")) else None
        if folder is None or not folder.is_relative_to(base) or not folder.is_dir():
            left_out.append(f"the files of {version['name']} version {version['version']}: {uri or 'it has none'}")
            continue
        plan |= {f"artifacts/{path.relative_to(base).as_posix()}": path for path in _files(folder)}
    return plan


def _files(path: Path) -> Iterator[Path]:
    """A file, or every plain file under a folder, sorted."""
    if path.is_file() and not path.is_symlink():
        yield path
    elif path.is_dir():
        yield from sorted(found for found in path.rglob("*") if found.is_file() and not found.is_symlink())


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


def _without_password(uri: str) -> str:
    """An address that can be shown."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
