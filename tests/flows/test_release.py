"""The release flow as `make run` starts it, on the project in miniature, against a real Prefect server and MLflow."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.workspace import git
from flywheel.trace import lineage
from tests.flows.project import Project, Released
from tests.flows.toy import STAGES, commit, environment, set_param, set_wanted

pytestmark = pytest.mark.slow  # a real Prefect server, and ten seconds for each release


def test_a_promoted_release_ends_with_a_champion_and_a_summary(released: Released) -> None:
    project, output, _ = released
    assert "PROMOTE  version 1 is champion" in output
    assert "0.120 (0.100 to 0.140)" in output and "after   <script>alert(1)</script>" in output
    champion = project.registry.get("champion")
    contract = {"git_sha", "dvc_lock_sha256", "manifest_sha256", "verdict", "verdict_sha256", "data_snapshot"}
    contract |= {"prefect_flow_run_id", "base_manifest_sha256", "inputs_sha256", "data_sha256"}
    assert champion.number == "1" and contract <= champion.tags.keys()
    assert champion.tags["dirty"] == "false" and champion.tags["prefect_flow_run_id"] == released.run["id"]
    run = project.registry.client.get_run(champion.run_id)
    assert run.info.status == "FINISHED" and run.data.params["methods.lora.rank"] == "16"
    assert run.data.metrics["verdict.domain_rouge_l.low"] == 0.01


def is_logged(project: Project, flow_run: str, message: str, seconds: float = 30) -> bool:
    """Whether the server has a run's message; on a busy machine it stores logs behind everything else."""
    end = time.monotonic() + seconds
    while True:
        logs = project.ask("logs/filter", logs={"flow_run_id": {"any_": [flow_run]}}, limit=200)
        if message in [log["message"] for log in logs] or time.monotonic() > end:
            return message in [log["message"] for log in logs]
        time.sleep(1)


def test_prefect_shows_one_task_a_stage_with_its_output_and_the_graphs_edges(released: Released) -> None:
    project, _, run = released
    assert run["state"]["name"] == "Promoted"
    states = project.task_states(run["id"])
    assert states == dict.fromkeys([*STAGES, "reports", "register"], "Completed")
    assert is_logged(project, run["id"], "epoch 1 of 1")
    tasks = project.ask("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    names = {task["id"]: task["name"] for task in tasks}
    waits = {task["name"]: {names[up["id"]] for up in task["task_inputs"].get("wait_for", [])} for task in tasks}
    assert waits["gate"] == {"champion", "package", "evaluate_candidate", "evaluate_champion"}
    shown = project.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    assert {item["key"] for item in shown if item["key"]} == {
        "verdict",
        "release-card",
        "release-card-page",
        "data-docs",
    }


def test_dvc_repro_in_a_clean_clone_gives_the_same_lock(released: Released, tmp_path: Path) -> None:
    project, clone = released.project, tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(project.root), str(clone)], check=True)
    command = [sys.executable, "-m", "dvc", "repro", "-q"]
    subprocess.run(command, cwd=clone, env=environment(clone), check=True, timeout=400)
    assert (clone / "dvc.lock").read_bytes() == (project.root / "dvc.lock").read_bytes()


def test_a_second_run_finds_nothing_to_do_and_shows_every_stage_cached(project: Project) -> None:
    assert "nothing to do: version 1, verdict promote" in project.release()
    run = project.last_run()
    assert run["state"]["name"] == "NothingToDo"
    assert project.task_states(run["id"]) == dict.fromkeys(STAGES, "Cached")
    assert len(project.registry.versions()) == 1


def test_without_an_api_nothing_to_do_is_found_without_a_server(project: Project) -> None:
    variables = environment(project.root)
    command = [sys.executable, "-m", "flows.run", "--fail-unless-promoted"]
    done = subprocess.run(command, cwd=project.root, env=variables, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do: version 1, verdict promote" in done.stdout and "= gate" in done.stdout
    assert not (project.root / ".flywheel/prefect").exists()


def test_a_dry_run_names_the_stages_and_a_failing_stage_fails_the_release_and_neither_changes_anything(
    project: Project,
) -> None:
    set_param(project.root, "sft", "epochs", 5)
    set_wanted(project.root, fail=True)
    output = project.release("--dry-run")
    assert re.search(r"would run sft, package, evaluate_candidate, gate, about \d:\d\d", output)
    assert len(project.registry.versions()) == 1 and '"base"' in (project.root / "state/champion.json").read_text()
    output = project.release(status=1)
    assert "stage sft failed" in output and "out of memory on purpose" in output and "Traceback" not in output
    run = project.last_run()
    assert run["state"]["type"] == "FAILED" and project.task_states(run["id"])["sft"] == "Failed"
    assert len(project.registry.versions()) == 1 and project.registry.get("champion").number == "1"


def wait_for_worker(project: Project, release: subprocess.Popen[str]) -> int:
    path = project.root / "worker.pid"
    deadline = time.monotonic() + 300
    while not (path.exists() and path.read_text()):
        assert release.poll() is None, release.communicate()[0]
        assert time.monotonic() < deadline, "sft was not reached"
        time.sleep(0.1)
    return int(path.read_text())


def is_alive(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def sleeping(project: Project) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A release in the middle of sft, and the process id of a worker in a session of its own that ignores SIGTERM."""
    set_param(project.root, "sft", "epochs", 5)
    set_wanted(project.root, sleep=300)
    process = project.start()
    try:
        yield process, wait_for_worker(project, process)
    finally:
        process.kill()
        process.wait()


def test_cancelling_in_prefect_ends_the_stage_and_all_it_started(
    project: Project, sleeping: tuple[subprocess.Popen[str], int]
) -> None:
    process, worker = sleeping
    run = project.last_run()["id"]
    project.ask(f"flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130 and "Cancelled" in output
    assert not is_alive(worker)
    assert project.last_run()["state"]["type"] == "CANCELLED"


def test_sigterm_ends_the_stage_and_all_it_started(
    project: Project, sleeping: tuple[subprocess.Popen[str], int]
) -> None:
    process, worker = sleeping
    process.terminate()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130 and "nothing was promoted" in output
    assert not is_alive(worker)


def test_kill_9_ends_the_stage_and_the_next_run_goes_on_to_the_end(
    project: Project, sleeping: tuple[subprocess.Popen[str], int]
) -> None:
    """The run that is killed has opened an MLflow run; the next one takes it up: one run for one version.

    Then as if killed between registering and promoting: the version has its verdict, but is not champion or released.
    """
    process, worker = sleeping
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 90
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)
    set_wanted(project.root, sleep=0)
    assert "PROMOTE  version 2 is champion; version 1 is previous" in project.release()
    assert (project.root / "state/champion.json").read_text().count(project.registry.get("1").manifest) == 1

    client = project.registry.client
    client.set_registered_model_alias("toy", "champion", "1")
    client.delete_model_version_tag("toy", "2", "released")
    assert "PROMOTE  version 2 is champion" in project.release()
    assert len(project.registry.versions()) == 2 and project.registry.get("champion").number == "2"


def test_a_held_version_is_registered_not_promoted_and_judged_again_without_training(project: Project) -> None:
    """Told to hold; the exit status says so only where that was asked for."""
    set_param(project.root, "sft", "epochs", 7)
    set_wanted(project.root, outcome="hold")
    output = project.release("--fail-unless-promoted", status=3)
    assert "HOLD  version 2 was held back" in output and "told to hold" in output
    registry = project.registry
    assert (registry.get("champion").number, registry.get("candidate").number) == ("1", "2")

    assert "Stages   gate" in project.release("--rejudge")
    states = project.task_states(project.last_run()["id"])
    assert states["gate"] == "Completed" and states["sft"] == states["package"] == "Cached"
    assert project.registry.get("champion").number == "1"


def test_a_verdict_about_another_package_blocks(project: Project) -> None:
    """The gate's output is swapped behind DVC's back, with DVC told that it is right: only the digest gives it away."""
    verdict = project.root / "reports/verdict.json"
    forged = re.sub(r'(?<="candidate": \{"digest": ")[0-9a-f]{64}', "9" * 64, verdict.read_text())
    assert forged != verdict.read_text()
    verdict.write_text(forged)
    command = [sys.executable, "-m", "dvc", "commit", "-q", "-f"]
    subprocess.run(command, cwd=project.root, env=environment(project.root), check=True)
    set_param(project.root, "validate", "min_rows", 101)  # something new, so that the verdict is asked for
    output = project.release(status=1)
    assert "judged another package" in output and "nothing was promoted" in output
    assert project.registry.get("champion").number == "1"


def test_a_release_in_a_workspace_commits_what_it_released_and_leaves_the_checkout_alone(project: Project) -> None:
    set_param(project.root, "sft", "epochs", 11)
    commit(project.root, "another setting")
    own_lock = (project.root / "dvc.lock").read_text()
    assert "PROMOTE  version 2 is champion" in project.release("--workspace", "toy")
    found, place = (
        lineage(project.registry, project.registry.get("champion")),
        project.root / ".flywheel/workspaces/toy",
    )
    assert (found["git_sha"], found["dirty"]) == (git(project.root, "rev-parse", "release/toy"), False)
    assert found["prefect_flow_run_id"] == project.last_run()["id"]
    assert found["examples"] == {"rows": 2, "trained": 1, "left_out": 1}
    assert git(project.root, "show", "release/toy:dvc.lock") == (place / "dvc.lock").read_text().rstrip("\n")
    assert (project.root / "dvc.lock").read_text() == own_lock != (place / "dvc.lock").read_text()
    assert (place / ".flywheel/weights").samefile(project.root / ".flywheel/weights")


def test_wrong_settings_are_named_before_anything_runs(project: Project) -> None:
    path = project.root / "params.yaml"
    path.write_text(path.read_text().replace("epochs:", "epoks:").replace("level:", "levle:"))
    output = project.release(status=1)
    assert "sft.epoks: unknown key" in output and "gate.levle: unknown key" in output


def test_without_an_api_a_server_is_started_and_ended(project: Project) -> None:
    """`python -m flows.release` too: it hands over to the launcher."""
    variables = environment(project.root)
    variables.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.release", "--dry-run"]
    done = subprocess.run(command, cwd=project.root, env=variables, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dry run" in done.stdout
    assert (project.root / ".flywheel/prefect/prefect.db").is_file()
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(project.root) in " ".join(p.info["cmdline"] or [])]
    assert not mine
