"""What a version was made from, as an ML-BOM for other tools: CycloneDX 1.6, reports/bom.cdx.json.

The package, its base model, sources and data with licences and digests, the Python packages of the lock, and the
verdict's criteria as the model card's figures. No time and no serial number: equal releases have equal files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.base_model import found_in
from tasks.core.files import write_json
from tasks.evaluate.card.card import collect, licences

BOM = layout.REPORTS / "bom.cdx.json"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)")
DIGESTS = {"data_snapshot": "all ingested records", "data_sha256": "the mix that was trained on"}
SHA256 = re.compile(r"^[0-9a-f]{64}$")


def render_bom(root: Path, lineage: Mapping[str, Any]) -> Path:
    """Write reports/bom.cdx.json from the last release's files; `lineage` are the version's tags, as far as known."""
    name = str(yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))["domain"])
    verdict = collect(root).verdict
    digest = str(verdict.get("candidate", {}).get("digest"))
    base, *data = _material(root, name, lineage)
    parts = [base, *data, *_packages(root)]
    model = _component("machine-learning-model", f"package:{digest}", name, digest)
    model["modelCard"] = {
        "modelParameters": {"task": "text-generation", "datasets": [{"ref": one["bom-ref"]} for one in data]},
        "quantitativeAnalysis": {"performanceMetrics": [*map(_figure, verdict.get("criteria", []))]},
    }
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": model},
        "components": parts,
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": [one["bom-ref"] for one in parts]}],
    }
    write_json(root / BOM, document)
    return root / BOM


def _component(kind: str, ref: str, name: str, digest: Any = None, **more: Any) -> dict[str, Any]:
    hashes = {"hashes": [{"alg": "SHA-256", "content": digest}]} if SHA256.match(str(digest)) else {}
    return {"type": kind, "bom-ref": ref, "name": name, **hashes, **more}


def _material(root: Path, domain: str, lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The base model, then each source once, then what was made of the sources."""
    about = yaml.safe_load((root / layout.DOMAINS / domain / "domain.yaml").read_text(encoding="utf-8"))
    about["human"] = [one for key in ("human", "seeds", "documents", "triples") for one in about.get(key) or []]
    rows = {row["name"]: row for row in licences(about, found_in(root / layout.BASE_MODEL))}
    for place, row in enumerate(rows.values()):
        kind, digest = ("data", None) if place else ("machine-learning-model", lineage.get("base_manifest_sha256"))
        url = {"url": row["licence_url"]} if row.get("licence_url") else {}
        licence = {"licenses": [{"license": {"name": row["licence"], **url}}]} if row.get("licence") else {}
        credit = {"copyright": row["attribution"]} if row.get("attribution") else {}
        yield _component(kind, f"material:{place}", row["name"], digest, **licence, **credit)
    for key, words in DIGESTS.items():
        if SHA256.match(str(lineage.get(key))):
            yield _component("data", key, key, lineage[key], description=words)


def _packages(root: Path) -> Iterator[dict[str, Any]]:
    for line in (root / layout.LOCKS / "main.txt").read_text(encoding="utf-8").splitlines():
        if found := PINNED.match(line.strip()):
            name, version = found.groups()
            purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _figure(criterion: Mapping[str, Any]) -> dict[str, Any]:
    """A criterion's difference between candidate and champion, with its interval where it has one."""
    bounds = {"lowerBound": criterion.get("low"), "upperBound": criterion.get("high")}
    known = {key: str(value) for key, value in bounds.items() if value is not None}
    interval = {"confidenceInterval": known} if known else {}
    return {"type": str(criterion["name"]), "value": str(criterion["estimate"]), **interval}
