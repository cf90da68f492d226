"""An evaluation whose model process is killed ends in an error and a shut gate, never in a verdict."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.core.records import make_item, write_jsonl
from tests.training import link_weights

pytestmark = pytest.mark.slow

# Long enough answers that the kill falls into the generation.
NEW_TOKENS = 1500


@pytest.fixture
def repository(root: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """A two-layer model as champion, one item a set."""
    for name in ("infra", "domains"):
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / ".flywheel").mkdir()
    (tmp_path / ".flywheel/packages").symlink_to(root / ".flywheel/packages")
    (tmp_path / ".venv-evaluation").symlink_to(root / ".venv-evaluation")
    settings = yaml.safe_load((root / "params.yaml").read_text())
    settings["evaluate"] |= {"max_new_tokens": NEW_TOKENS, "batch_size": 1, "threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    items = [make_item(set=name, prompt=f"{name}?", reference="So.") for name in ("domain", "dialogue")]
    items += [make_item(set=name, prompt="Which?", choices=("a", "b"), answer=0) for name in ("mmlu", "safety")]
    for item in items:
        write_jsonl(tmp_path / f"data/ingest/evaluation/{item.set}.jsonl", [item])
    link_weights(tiny_model, tmp_path / "data/base_model")
    digest = write_manifest(tmp_path / "data/base_model")
    write_json(tmp_path / "data/champion/champion.json", {"kind": "base", "version": "base", "digest": digest})
    write_manifest(tmp_path / "data/champion")
    (tmp_path / "models/package/adapter").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "models/package/adapter" / name).write_text("{}")
    write_json(tmp_path / "models/package/base.json", {"digest": digest})
    write_json(tmp_path / "models/package/prompt.json", {"system": "Be brief."})
    write_manifest(tmp_path / "models/package")
    return tmp_path


def stage(*arguments: str, cwd: Path, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=layout.child_environment(PYTHONPATH=str(root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_model(parent: subprocess.Popen[str], log: Path) -> psutil.Process:
    """OpenCompass's process, once it has begun to generate."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and parent.poll() is None:
        if log.is_file() and "Start inferencing" in log.read_text(errors="replace"):
            (supervisor,) = psutil.Process(parent.pid).children()
            (child,) = supervisor.children()
            return child
        time.sleep(0.2)
    pytest.fail("OpenCompass never began" if parent.poll() is None else f"it ended: {parent.communicate()}")


def test_a_killed_model_process_blocks_the_gate(repository: Path, root: Path) -> None:
    scores = repository / "reports/evaluation/champion/scores.jsonl"
    scores.parent.mkdir(parents=True)
    scores.write_text("scores of an earlier run")
    parent = stage("tasks.evaluate.run.stage", "--who", "champion", cwd=repository, root=root)
    child = wait_for_model(parent, repository / ".flywheel/evaluation/champion/opencompass.log")
    os.kill(child.pid, 9)
    _, error = parent.communicate(timeout=60)
    assert parent.returncode == 1
    assert "killed by signal 9" in error
    assert "Traceback" not in error
    assert not scores.exists()
    assert not (repository / "reports/metrics/evaluate_champion.json").exists()
    assert not list((repository / ".flywheel/cache").rglob("*.json"))

    judge = stage("tasks.evaluate.gate.stage", cwd=repository, root=root)
    _, error = judge.communicate(timeout=120)
    assert judge.returncode == 1
    assert "gate: " in error
    assert "again" in error
    assert not (repository / "reports/verdict.json").exists()


def test_killing_the_stage_takes_the_model_process_with_it(repository: Path, root: Path) -> None:
    parent = stage("tasks.evaluate.run.stage", "--who", "champion", cwd=repository, root=root)
    child = wait_for_model(parent, repository / ".flywheel/evaluation/champion/opencompass.log")
    parent.kill()
    parent.wait(timeout=30)
    child.wait(timeout=30)
    assert not child.is_running()
