"""A file that only the holder of a passphrase or an age identity can read, in the format age (age-encryption.org).

One line comes before it. For recipients it says so; for a passphrase it carries, encrypted with the passphrase, the
identity that opens the rest: age's own passphrase mode is not bounded in memory here. By hand: `head -1 FILE | cut -d'
' -f4 | base64 -d | age -d > identity; tail -n +2 FILE | age -d -i identity`.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tasks.core.errors import FlywheelError

MAGIC = "flywheel-backup 1"
VARIABLE = "FLYWHEEL_BACKUP_PASSPHRASE"
SHORTEST = 12
LONGEST_HEADER = 4096


class SealError(FlywheelError):
    """A backup cannot be opened or written: the wrong key, a damaged file, a missing passphrase."""


def read_passphrase(path: Path | None, instead: str) -> str:
    """The passphrase from a file's first line, or FLYWHEEL_BACKUP_PASSPHRASE. Never from the command line.

    `instead`: the option that does without one.

    Raises:
        SealError: there is none, it is shorter than 12 characters, or the file is not UTF-8.
    """
    passphrase = (_lines(path) or [""])[0] if path else os.environ.get(VARIABLE, "")
    if len(passphrase) < SHORTEST:
        where = str(path) if path else VARIABLE
        raise SealError(f"a passphrase of at least {SHORTEST} characters is needed in {where}, or {instead}")
    return passphrase


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise SealError(f"{path} is not UTF-8 text") from None


def read_identity(path: Path) -> str:
    """The first AGE-SECRET-KEY of an age identity file.

    Raises:
        SealError: it holds none, or is not UTF-8.
    """
    for line in _lines(path):
        if line.strip().startswith("AGE-SECRET-KEY-"):
            return line.strip()
    raise SealError(f"{path} holds no age identity (a line AGE-SECRET-KEY-…)")


def public_keys(recipients: Sequence[str]) -> list[Any]:
    """The keys that these texts are. Raises SealError: one is no age public key."""
    import pyrage

    try:
        return [pyrage.x25519.Recipient.from_str(key) for key in recipients]
    except pyrage.RecipientError as error:
        raise SealError(f"not an age public key (age1…): {error}") from None


def seal(source: BinaryIO, target: BinaryIO, keys: list[Any], passphrase: str | None) -> None:
    """Encrypt what `source` holds into `target`, block by block, for the passphrase or else for the keys."""
    import pyrage

    if passphrase is not None:
        identity = pyrage.x25519.Identity.generate()
        kept = base64.b64encode(pyrage.passphrase.encrypt(str(identity).encode(), passphrase)).decode()
        header, keys = f"{MAGIC} passphrase {kept}\n", [identity.to_public()]
    else:
        header = f"{MAGIC} recipients\n"
    target.write(header.encode())
    pyrage.encrypt_io(source, target, keys)


def unseal(source: BinaryIO, target: BinaryIO, identity: str | None, passphrase: str | None) -> None:
    """Decrypt a sealed file into `target`; only when this returns is what lies there known to be whole.

    Raises:
        SealError: the key is wrong, or the file is damaged, cut off or no backup of ours.
    """
    import pyrage

    key = _identity(_header(source), identity, passphrase)
    try:
        pyrage.decrypt_io(source, target, [key])
    except (pyrage.DecryptError, OSError) as error:
        raise SealError(
            f"the backup cannot be opened: the key is wrong, or it is damaged or cut off ({error})"
        ) from None


def _header(source: BinaryIO) -> list[str]:
    line = source.readline(LONGEST_HEADER)
    words = line.decode("ascii", "replace").split()
    if not line.endswith(b"\n") or " ".join(words[:2]) != MAGIC or len(words) not in (3, 4):
        raise SealError("this is no backup that this Flywheel can read")
    return words[2:]


def _identity(header: list[str], identity: str | None, passphrase: str | None) -> Any:
    import pyrage

    if header[0] == "recipients":
        if identity is None:
            raise SealError("this backup is for an age public key: give --identity-file")
        try:
            return pyrage.x25519.Identity.from_str(identity)
        except pyrage.IdentityError as error:
            raise SealError(f"the identity file holds no usable age identity: {error}") from None
    if passphrase is None or len(header) != 2:
        raise SealError("this backup is sealed with a passphrase: give it, not an identity")
    try:
        kept = base64.b64decode(header[1], validate=True)
        return pyrage.x25519.Identity.from_str(pyrage.passphrase.decrypt(kept, passphrase).decode())
    except (pyrage.DecryptError, pyrage.IdentityError, binascii.Error, ValueError) as error:
        # age also refuses a passphrase whose cost this machine, slow or busy, would not bear
        raise SealError(
            f"the passphrase is wrong, the backup is damaged, or this machine is too busy: {error}"
        ) from None
