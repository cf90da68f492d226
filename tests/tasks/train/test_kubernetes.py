"""infra/kubernetes/training.yaml: the machines it starts find each other as tasks/train/run/launch.py expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """The file's objects by kind."""
    documents = list(yaml.safe_load_all((ROOT / "infra/kubernetes/training.yaml").read_text()))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def container(parts: dict[str, Any]) -> Any:
    [found] = parts["Job"]["spec"]["template"]["spec"]["containers"]
    return found


def test_there_is_one_pod_for_each_machine_and_all_run_at_once(parts: dict[str, Any], container: Any) -> None:
    job = parts["Job"]["spec"]
    place = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(place["PET_NNODES"])
    assert int(place["PET_NPROC_PER_NODE"]) == int(container["resources"]["limits"]["nvidia.com/gpu"])


def test_a_machine_s_rank_is_its_index_and_the_first_is_found_by_its_name(
    parts: dict[str, Any], container: Any
) -> None:
    job, service = parts["Job"], parts["Service"]
    place = {entry["name"]: entry for entry in container["env"]}
    field = place["PET_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    name = service["metadata"]["name"]
    assert place["PET_MASTER_ADDR"]["value"] == f"{job['metadata']['name']}-0.{name}"
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert job["spec"]["template"]["spec"]["subdomain"] == name
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert int(place["PET_MASTER_PORT"]["value"]) in [port["port"] for port in service["spec"]["ports"]]


def test_the_first_machine_s_end_is_the_job_s_end(parts: dict[str, Any], container: Any) -> None:
    assert parts["Job"]["spec"]["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    script = container["command"][-1]
    assert "tasks.train.run.follow" in script and "dvc repro" in script


def test_all_machines_share_one_checkout(parts: dict[str, Any], container: Any) -> None:
    """Checkpoints, data and the announcement of a launch all lie under the working directory."""
    claim = parts["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["workingDir"] == mounts["checkout"] and not layout.HOME.is_absolute()
    volumes = {volume["name"]: volume for volume in parts["Job"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["checkout"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert set(mounts) == set(volumes)
