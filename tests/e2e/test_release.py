"""The release deployment as it is shipped: a real Prefect server and worker, infra/prefect.yaml, a git worktree."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from flows.server import EmbeddedServer, prefect_environment
from flywheel.trace import lineage
from tasks.registry.versions import Registry
from tests.flows.toy import commit, environment, make_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The project in miniature with this repository's code in it, as a checkout has it."""
    project = make_toy(tmp_path_factory.mktemp("e2e") / "toy")
    for name in ("flows", "tasks"):
        shutil.copytree(root / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "tests/flows").mkdir(parents=True)
    shutil.copy(root / "tests/flows/toy.py", project / "tests/flows/toy.py")
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    commit(project, "code")
    return project


@pytest.fixture(scope="module")
def surroundings(project: Path) -> Iterator[dict[str, str]]:
    """The environment of a worker: a server with its services, and where the project is."""
    with EmbeddedServer(project, services=True) as server:
        server.wait()
        variables = environment(project) | prefect_environment(project) | {"PREFECT_API_URL": server.api}
        variables.pop("PYTHONPATH")
        yield variables


def prefect(*arguments: str, project: Path, surroundings: dict[str, str]) -> str:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=project, env=surroundings, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def worker(project: Path, surroundings: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "flywheel"]
    with (project / ".flywheel/worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=project, env=surroundings, stdout=log, stderr=log)
    try:
        yield
    finally:  # at once: a scheduled run may have begun, and a worker waits for its runs
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(60)


def test_the_deployment_runs_in_its_workspace_and_commits_what_it_released(
    project: Path, surroundings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    prefect("work-pool", "create", "flywheel", "--type", "process", project=project, surroundings=surroundings)
    deploy = ("--no-prompt", "deploy", "--all", "--prefect-file", "infra/prefect.yaml")
    prefect(*deploy, project=project, surroundings=surroundings)
    api = surroundings["PREFECT_API_URL"]
    with worker(project, surroundings):
        run = ("deployment", "run", "release/release", "-p", "workspace=toy", "--watch")
        prefect(*run, project=project, surroundings=surroundings)
    wanted = {"flows": {"name": {"any_": ["release"]}}}  # besides it there are the scheduled nights
    (flow_run,) = httpx.post(f"{api}/flow_runs/filter", json=wanted).json()
    assert flow_run["state"]["name"] == "Promoted"

    registry = Registry("toy", project)
    found = lineage(registry, registry.get("champion"))
    branch = subprocess.check_output(["git", "rev-parse", "release/toy"], cwd=project, text=True).strip()
    assert found["git_sha"] == branch and not found["dirty"]
    assert found["prefect_flow_run_id"] == flow_run["id"]
    assert found["examples"] == {"rows": 2, "trained": 1, "left_out": 1}
    committed = subprocess.check_output(["git", "show", "release/toy:dvc.lock"], cwd=project)
    assert committed == (project / ".flywheel/workspaces/toy/dvc.lock").read_bytes()
    assert not (project / "dvc.lock").exists() and not (project / "reports").exists()
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=project) == b""
    assert (project / ".flywheel/workspaces/toy/.flywheel/weights").samefile(project / ".flywheel/weights")
