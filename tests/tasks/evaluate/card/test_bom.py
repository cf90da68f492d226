"""The ML-BOM names what a version was made from; its form was checked with cyclonedx-python-lib's strict validator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json
from tasks.evaluate.card.bom import render_bom

CRITERION = {"name": "facts_right", "estimate": 0.25, "low": 0.125, "high": None, "passed": True}


def rendered(folder: Path, root: Path, lineage: dict[str, str]) -> dict[str, Any]:
    for name in (layout.PARAMS, layout.DOMAINS):
        (folder / name).symlink_to(root / name)
    (folder / layout.LOCKS).mkdir(parents=True)
    (folder / layout.LOCKS / "main.txt").write_text(
        "# by uv\nRay[data]==2.60.0 ; python_version == '3.11'\n    # via x\n"
    )
    write_json(folder / layout.VERDICT, {"candidate": {"digest": "c" * 64}, "criteria": [CRITERION]})
    return dict(json.loads(render_bom(folder, lineage).read_text()))


def test_the_bom_names_package_base_model_sources_data_and_python_packages(tmp_path: Path, root: Path) -> None:
    lineage = {"base_manifest_sha256": "b" * 64, "data_snapshot": "d" * 64, "data_sha256": "none"}
    bom = rendered(tmp_path, root, lineage)
    named = {one["name"]: one for one in bom["components"]}
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    base = named["SmolLM2-135M-Instruct"]
    assert base["hashes"][0]["content"] == "b" * 64 and base["licenses"][0]["license"]["name"] == "Apache-2.0"
    assert named["zaragoza-construction-faq"]["licenses"][0]["license"]["name"] == "CC-BY-4.0"
    assert "construction-seeds" in named, "seeds are material too"
    assert named["data_snapshot"]["hashes"][0]["content"] == "d" * 64 and "data_sha256" not in named
    assert named["Ray"]["purl"] == "pkg:pypi/ray@2.60.0" and named["Ray"]["version"] == "2.60.0"
    refs = [one["bom-ref"] for one in bom["components"]]
    assert len(refs) == len(set(refs)) and bom["dependencies"][0]["dependsOn"] == refs


def test_the_verdicts_criteria_are_the_model_cards_figures(tmp_path: Path, root: Path) -> None:
    card = rendered(tmp_path, root, {})["metadata"]["component"]["modelCard"]
    interval = {"lowerBound": "0.125"}
    figure = {"type": "facts_right", "value": "0.25", "confidenceInterval": interval}
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [figure]
