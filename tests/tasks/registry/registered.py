"""Versions registered as the release flow registers them, with packages of one letter."""

from __future__ import annotations

from typing import Any

from tasks.core.files import canonical_json, sha256_bytes
from tasks.registry.runs import close_run, open_run
from tasks.registry.versions import Registry, Version

BASE = "b" * 64


def judged(
    registry: Registry, package: str, *, outcome: str = "promote", against: str = BASE, **changes: Any
) -> Version:
    """Register a package (its digest: one letter, 64 times) with a verdict, as the flow does."""
    run_id = open_run(registry.client, registry.home, registry.domain, package, "test")
    verdict = {"outcome": outcome, "candidate": {"digest": package * 64}, "champion": {"digest": against}} | changes
    text = canonical_json(verdict)
    registry.client.log_text(run_id, text, "verdict.json")
    registry.client.log_text(run_id, "weights", "package/adapter.bin")
    tags = {
        "manifest_sha256": package * 64,
        "verdict_sha256": sha256_bytes(text.encode()),
        "verdict": outcome,
        "base_manifest_sha256": BASE,
        "inputs_sha256": package,
    }
    version = registry.register(run_id, tags)
    close_run(registry.client, run_id, "FINISHED")
    return version
