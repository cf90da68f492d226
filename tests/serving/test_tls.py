"""HTTPS by setting, with a certificate made here."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.server import configuration
from serving.settings import GatewaySettings, load_settings
from tasks.core.settings import SettingsError
from tests.serving.gateways import params, running, wait_for


def certify(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    paths = folder / "certificate.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1".split()  # noqa: SIM905
    named = ["-subj", "/CN=flywheel test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *named, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def test_the_gateway_speaks_https_only_and_its_cookie_is_secure(stub: Any, home: Path) -> None:
    certificate, key = certify(home)
    with running(home, stub.url, tls_certificate=certificate.name, tls_key=key.name) as gateway:
        trust = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=gateway.url, verify=trust) as client:
            wait_for(lambda: client.get("/readyz").status_code == 200)
            assert client.get("/v1/models", headers=gateway.headers()).status_code == 200
            login = client.get("/login", params={"key": gateway.keys["ann"]})
            assert "secure" in login.headers["set-cookie"].lower()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{gateway.url}/healthz")
        with pytest.raises(httpx.HTTPError):
            httpx.get(gateway.url.replace("https", "http") + "/healthz")


def test_a_missing_certificate_is_named_at_the_start(home: Path) -> None:
    settings = GatewaySettings(params(tls_certificate="no.pem", tls_key="no.key"), home)
    with pytest.raises(SettingsError, match=r"no file no\.pem"):
        configuration(settings, app=object())


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.5", "gateway.example"])
def test_other_machines_are_served_over_tls_or_not_at_all(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.chdir(root)
    text = (root / "params.yaml").read_text(encoding="utf-8").replace("host: 127.0.0.1", f"host: {host}")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "infra").symlink_to(root / "infra")
    with pytest.raises(SettingsError, match="tls_certificate"):
        load_settings(tmp_path)
