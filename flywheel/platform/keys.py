"""The keys of the first two identities, made by `up`: in .flywheel/secrets (mode 600); the store has hashes only."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tasks.core import layout
from tasks.core.files import write_bytes
from tasks.store.identities import create_identity, list_identities
from tasks.store.store import Store

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
    (root / layout.SECRETS).mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(Store.open(home=root)) as store:
        known = {identity.name for identity in list_identities(store)}
        for name in FIRST:
            if name not in known:
                _, key = create_identity(store, name, name)
                write_bytes(secret_path(root, name), f"{key}\n".encode(), mode=0o600)
