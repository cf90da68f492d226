"""Keys: the first two that `up` makes, and `flywheel keys`.

A key is a secret: it is written to .flywheel/secrets (mode 600) or shown once, to the person who asked for it. The
store holds its hash only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import layout

if TYPE_CHECKING:
    from tasks.store.identities import Identity

FIRST = ("admin", "chat")  # names, and roles


def secret_path(root: Path, name: str) -> Path:
    """Where the key of a first identity lies."""
    return root / layout.SECRETS / f"{name}.key"


def read_key(root: Path, name: str) -> str | None:
    """The key of a first identity, None where it is not here."""
    try:
        return secret_path(root, name).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def first_keys(root: Path) -> None:
    """Make the identities `admin` and `chat` where the store lacks them, and keep their keys."""
    from tasks.store.identities import create_identity, list_identities
    from tasks.store.store import Store

    store = Store.open(home=root)
    try:
        known = {identity.name for identity in list_identities(store)}
        for name in FIRST:
            if name not in known:
                _, key = create_identity(store, name, name)
                write_secret(secret_path(root, name), key)
    finally:
        store.close()


def write_secret(path: Path, secret: str) -> None:
    """Write a secret that only this user can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(secret + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def add(root: Path, name: str, role: str) -> tuple[Identity, str]:
    """A new identity and its key, which is shown this once."""
    from tasks.store.identities import create_identity
    from tasks.store.migrate import migrate
    from tasks.store.store import Store

    migrate(None, home=root)
    store = Store.open(home=root)
    try:
        return create_identity(store, name, role)
    finally:
        store.close()


def everybody(root: Path) -> list[Identity]:
    """All identities, oldest first."""
    from tasks.store.identities import list_identities
    from tasks.store.store import Store

    store = Store.open(home=root)
    try:
        return list_identities(store)
    finally:
        store.close()


def disable(root: Path, name: str) -> Identity:
    """Make a key worthless, at once."""
    from tasks.store.identities import disable_identity
    from tasks.store.store import Store

    store = Store.open(home=root)
    try:
        return disable_identity(store, name)
    finally:
        store.close()
