"""From a version back to everything it was made from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.registry.versions import Registry, Version

if TYPE_CHECKING:
    import pyarrow as pa

DIGESTS = (
    "dvc_lock_sha256",
    "manifest_sha256",
    "data_sha256",
    "data_snapshot",
    "base_manifest_sha256",
    "verdict_sha256",
)


def lineage(registry: Registry, version: Version) -> dict[str, Any]:
    """Commit, dvc.lock, digests of data and base, params, and a count of the receipt of the training examples."""
    run = registry.client.get_run(version.run_id)
    names = {item.path for item in registry.client.list_artifacts(version.run_id)}
    return {
        "domain": registry.domain,
        "version": version.number,
        "aliases": list(version.aliases),
        "verdict": version.tags.get("verdict"),
        "git_sha": version.tags.get("git_sha"),
        "dirty": version.tags.get("dirty") == "true",
        **{key: version.tags.get(key) for key in DIGESTS},
        "inputs_sha256": version.tags.get("inputs_sha256"),
        "prefect_flow_run_id": version.tags.get("prefect_flow_run_id"),
        "mlflow_run_id": version.run_id,
        "dvc_lock": f"runs:/{version.run_id}/dvc.lock" if "dvc.lock" in names else None,
        "receipt": f"runs:/{version.run_id}/receipt.parquet" if "receipt.parquet" in names else None,
        "params": dict(sorted(run.data.params.items())),
        "examples": _example_counts(registry, version) if "receipt.parquet" in names else {},
    }


def receipt_rows(registry: Registry, version: Version) -> list[dict[str, Any]]:
    """The receipt of a version's examples: one row for every example that any stage saw."""
    return list(_receipt(registry, version).to_pylist())


def _receipt(registry: Registry, version: Version, columns: list[str] | None = None) -> pa.Table:
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as folder:
        path = registry.client.download_artifacts(version.run_id, "receipt.parquet", folder)
        return pyarrow.parquet.read_table(Path(path), columns=columns)


def _example_counts(registry: Registry, version: Version) -> dict[str, int]:
    trained = _receipt(registry, version, ["trained"])["trained"].to_pylist()
    return {"rows": len(trained), "trained": sum(trained), "left_out": len(trained) - sum(trained)}
