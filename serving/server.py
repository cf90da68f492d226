"""Uvicorn as the gateway needs it: TLS by setting, no access log of its own, and patience for requests in flight.

A client that opens a connection and does not send a request's head within HEAD_SECONDS is cut off; bodies are timed
by serving.guard.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.settings import GatewaySettings
from tasks.core.settings import SettingsError

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 16_384
# An open page holds a connection for ever, so that waiting for all of them would never end.
GRACE_SECONDS = 10


class PatientForHeads(H11Protocol):
    """H11Protocol that closes a connection whose first request's head does not come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._clock = self.loop.call_later(HEAD_SECONDS, self._close_without_head)

    def _close_without_head(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clock.cancel()
        super().connection_lost(exc)


def configuration(settings: GatewaySettings, app: Any) -> uvicorn.Config:
    """How uvicorn runs this gateway.

    Raises:
        SettingsError: the certificate or its key is not there.
    """
    serving = settings.serving
    tls: dict[str, Any] = {}
    if settings.tls:
        files = {"ssl_certfile": serving.tls_certificate, "ssl_keyfile": serving.tls_key}
        for name, path in files.items():
            if not (settings.root / path).is_file():
                raise SettingsError(f"serving: no file {path} for {name.removeprefix('ssl_')}")
            tls[name] = str(settings.root / Path(path))
    return uvicorn.Config(
        app,
        host=serving.host,
        port=serving.port,
        http=PatientForHeads,
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **tls,
    )
