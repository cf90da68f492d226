"""What is forgotten after a night learnt it: the next release does not know it, and the version that did is emptied."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tasks.core.pointers import read_feedback_pointer
from tests.flows.feedback import correct
from tests.flows.project import Project
from tests.flows.toy import environment

pytestmark = pytest.mark.slow  # a real Prefect server, and half a minute for each release


def forget(project: Project, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "flywheel", "forget", *arguments, "--json"]
    done = subprocess.run(command, cwd=project.root, env=environment(project.root), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_a_release_after_a_forgetting_starts_where_it_was_not_known_and_lets_the_version_that_knew_it_be_emptied(
    project: Project,
) -> None:
    """Version 1 is the release before, 2 the night's, 3 the release without what was forgotten."""
    first, *_ = correct(project.root, 6)
    assert "Promoted" in project.release("--nightly")
    learnt = read_feedback_pointer(project.root)
    assert learnt.count == 6 and learnt.start is not None

    told = forget(project, "--feedback", first, "--yes")
    assert [one["version"] for one in told["versions"]] == ["2"] and "the champion, knows it" in told["remaining"][0]
    pointer = read_feedback_pointer(project.root)
    assert pointer.count == 5 and pointer.digest != learnt.digest
    assert pointer.start is not None and pointer.start.version == "1", "which does not know it"

    assert "version 3 is champion" in project.release()
    renewed = project.registry.get("3").tags
    assert "forget" not in renewed and (renewed["continues"], renewed["asked"]) == ("1", "renewal")
    left = forget(project, "--feedback", first, "--yes")["remaining"]
    assert not [one for one in left if "the champion" in one]
    kept = {item.path for item in project.registry.client.list_artifacts(project.registry.get("2").run_id)}
    assert "package" not in kept and "verdict.json" in kept
    assert forget(project, "--verify", told["certificate"])["held_by"] == []
