"""Who made a version: an Ed25519 signature over the digests of its package, verdict and evaluation.

A manifest shows that files changed by accident; whoever may write to the artifact store and to MLflow can write a new
one. The signature shows that the version was registered, or answered for, by an installation whose public key is
trusted here: this one, and those that FLYWHEEL_TRUSTED_KEYS names. The private key is .flywheel/secrets/signing.key.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import canonical_json, write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "signature"  # the tag: public key and signature in hex, a space between
SIGNED = ("manifest_sha256", "verdict_sha256", "evaluation_sha256")
TRUSTED = "FLYWHEEL_TRUSTED_KEYS"


class NotTrusted(FlywheelError):
    """A version is not signed, or not by a key that is trusted here; or a key cannot be read."""


def key_path(home: Path) -> Path:
    """Where this installation's private key lies."""
    return home / layout.SECRETS / "signing.key"


def private_key(home: Path) -> Ed25519PrivateKey:
    """This installation's key, made on first use, readable by its owner only. Raises NotTrusted: it is damaged."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = key_path(home)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            made = Ed25519PrivateKey.generate().private_bytes_raw()
            write_bytes(path, f"{made.hex()}\n".encode(), mode=0o600)
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="utf-8")))
    except ValueError:
        raise NotTrusted(f"{path} holds no key; restore it from a backup (docs/operations.md)") from None


def public_key(home: Path) -> str:
    """What other machines pin to trust this one: the public key, in hex."""
    return private_key(home).public_key().public_bytes_raw().hex()


def adopted_path(home: Path) -> Path:
    """A file that says: what the registry held when this installation got its first key has been signed."""
    return home / layout.SECRETS / "signing.adopted"


def pinned_keys() -> set[str]:
    """The public keys that FLYWHEEL_TRUSTED_KEYS names."""
    return set(os.environ.get(TRUSTED, "").split())


def trusted_keys(home: Path) -> set[str]:
    """The public keys whose versions are served here: this installation's own, and those that are pinned."""
    return pinned_keys() | ({public_key(home)} if key_path(home).is_file() else set())


def message(domain: str, tags: Mapping[str, str]) -> bytes:
    """What is signed: which domain's version it is, and the digests that say what it is."""
    signed = {key: tags.get(key) for key in SIGNED}
    return f"flywheel version 1 {canonical_json({'domain': domain, **signed})}".encode()


def evidence(tags: Mapping[str, str]) -> dict[str, str | None]:
    """What the ledger keeps of a version that becomes champion: what was signed, and the signature."""
    return {key: tags.get(key) for key in (*SIGNED, SIGNATURE)}


def sign(home: Path, domain: str, tags: Mapping[str, str]) -> str:
    """The tag `signature` of a version with these tags."""
    return f"{public_key(home)} {private_key(home).sign(message(domain, tags)).hex()}"


def untrusted(home: Path, domain: str, number: str, tags: Mapping[str, str]) -> str | None:
    """None where a version's signature holds, by a key that is trusted here; else what is wrong and what to do."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    way_out = f"if you know it to be right, `flywheel promote {number} --override REASON` signs it here"
    key, _, signature = tags.get(SIGNATURE, "").partition(" ")
    if not key:
        return f"version {number} is not signed; {way_out}"
    if key not in trusted_keys(home):
        return f"version {number} is signed by the key {key}, which is not in {TRUSTED} here; {way_out}"
    try:
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        signer.verify(bytes.fromhex(signature), message(domain, tags))
    except (ValueError, InvalidSignature):
        return f"version {number} is not what was signed: its tags were changed since; {way_out}"
    return None
