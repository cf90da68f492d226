"""Who is asking: an API key in the Authorization header, or the signed cookie that a login with a key sets.

The store compares keys in constant time and keeps their hash only; here the answer is remembered for a few seconds
under the key's hash, so that a stream of requests costs one look-up. A disabled key ends within CACHE_SECONDS.
A cookie holds the identity's id, signed with a secret of this installation, and is refused to other sites' pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from serving.errors import ServiceError
from serving.settings import GatewaySettings
from serving.storage import Storage
from tasks.core import layout
from tasks.core.files import write_bytes
from tasks.store.identities import authenticate, get_identity
from tasks.store.schema import Identity

COOKIE = "flywheel_login"
COOKIE_SECONDS = 12 * 3600
CACHE_SECONDS = 3.0
MAX_KEY = 200
SECRET_BYTES = 48
_MAX_CACHED = 10_000


def cookie_secret(root: Path) -> str:
    """This installation's secret for cookies, made on first use, readable by its owner only."""
    path = root / layout.SECRETS / "cookie"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and path.stat().st_size < SECRET_BYTES:
        path.unlink()  # a start of an earlier release was killed while it wrote
    if not path.is_file():
        mine = path.with_name(f"cookie.{os.getpid()}")
        write_bytes(mine, secrets.token_urlsafe(SECRET_BYTES).encode(), mode=0o600)
        with contextlib.suppress(FileExistsError):  # of several gateways that start, the first one's counts
            os.link(mine, path)
        mine.unlink()
    return path.read_text(encoding="utf-8")


class Authenticator:
    """Turns requests into identities."""

    def __init__(self, settings: GatewaySettings, storage: Storage) -> None:
        self._storage = storage
        self._signer = URLSafeTimedSerializer(cookie_secret(settings.root), salt="flywheel-login")
        self._cache: dict[tuple[str, str], tuple[float, Identity | None]] = {}

    async def identity(self, request: HTTPConnection) -> Identity | None:
        """Who asks; None where nobody known does. For the event loop: a look-up runs in a thread."""
        claim = self._claim(request)
        if claim is None:
            return None
        name = claim[0], hashlib.sha256(claim[1].encode(errors="replace")).hexdigest()
        until, identity = self._cache.get(name, (0.0, None))
        if until <= time.monotonic():
            identity = await self._storage.call(authenticate if claim[0] == "key" else get_identity, claim[1])
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[name] = (time.monotonic() + CACHE_SECONDS, identity)
        return identity

    async def login(self, key: str) -> Identity | None:
        """Whose key this is, looked up now."""
        return await self._storage.call(authenticate, key) if len(key) <= MAX_KEY else None

    def cookie_of(self, identity: Identity) -> str:
        """The value of an identity's cookie."""
        return self._signer.dumps(identity.id)

    def _claim(self, request: HTTPConnection) -> tuple[str, str] | None:
        """What the request says it is: ("key", the key) or ("id", an identity's id whose signature is right)."""
        header = request.headers.get("authorization")
        if header is not None:
            kind, _, key = header.partition(" ")
            key = key.strip()
            return ("key", key) if kind.lower() == "bearer" and 0 < len(key) <= MAX_KEY else None
        try:
            return "id", str(self._signer.loads(request.cookies.get(COOKIE, ""), max_age=COOKIE_SECONDS))
        except BadSignature:
            return None


def refuse_other_sites(request: HTTPConnection) -> None:
    """A cookie is sent by the browser, not by the person: only the gateway's own pages may use it to change things.

    Raises:
        ServiceError: 403, another site's page sent this request.
    """
    origin = request.headers.get("origin")
    if "authorization" in request.headers or origin is None:
        return
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise ServiceError(403, "other_site", "another site's page may not use this login; give a key instead")
