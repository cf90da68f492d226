"""Asking a server over HTTP: one of this machine without any proxy, and whatever host its certificate names."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx

from tasks.core.processes import is_local


def fetch(url: str, body: Any = None, *, key: str = "", ours: bool = False, seconds: float = 5.0) -> httpx.Response:
    """The reply of an address; POST where there is a body.

    Args:
        url: what to ask.
        body: JSON values.
        key: sent as bearer token.
        ours: the server is one of ours, also where it listens on another address than the loopback.
        seconds: patience.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    near = ours or is_local(urlsplit(url).hostname)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(verify=not near, trust_env=not near, timeout=seconds, follow_redirects=True) as client:
        return client.request("GET" if body is None else "POST", url, json=body, headers=headers)


def answers(url: str, *, ours: bool = False) -> bool:
    """Whether an address answers with success."""
    try:
        return fetch(url, ours=ours, seconds=3.0).is_success
    except httpx.HTTPError:
        return False
