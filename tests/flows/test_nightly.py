"""The nightly flow on the project in miniature, against a real Prefect server, MLflow and database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.nightly import reaction_of
from tasks.corpus.from_feedback import read_feedback_pointer
from tasks.registry.champion import read_pointer
from tasks.store import ledger
from tasks.store.nights import Night, last_nights
from tests.flows.feedback import correct, store_of
from tests.flows.project import Project
from tests.flows.toy import environment, set_param, set_wanted

# Where the night is killed, in this order: a step of the night or a stage of its release.
KILLS = (
    ("claim", "after"),
    ("snapshot", "after"),
    ("pointer", "after"),
    ("sft", "before"),
    ("gate", "after"),
    ("register", "after"),
    ("close", "before"),
)


def test_a_snapshot_says_how_both_answers_of_a_choice_ended() -> None:
    """A row as tasks.store.nights.feedback_upto gives it."""
    row = {"seq": 1, "id": "f", "night": 1, "identity_id": "anna", "kind": "choice", "thumb": None, "rating": None}
    row |= {"text": None, "answer_id": "a", "messages": [{"role": "user", "content": "Why?"}], "answer": "So."}
    row |= {"version": "1", "digest": "", "draft_id": "d", "finish_reason": "length"}
    reaction = reaction_of(row | {"others": [{"text": "No.", "finish_reason": "cancelled"}]})
    assert (reaction.finish_reason, reaction.other_finish_reason) == ("length", "cancelled")
    assert reaction_of(row | {"others": []}).other_finish_reason == "stop"


def nights(root: Path) -> list[Night]:
    with store_of(root) as store:
        return last_nights(store, "toy", 10)


def test_too_little_is_a_reasoned_skip_and_kept_until_it_is_enough_for_a_version_that_leads_back_to_it(
    project: Project,
) -> None:
    """Two corrections, then three more: the five that a night needs. What is learnt is not learnt again."""
    correct(project.root, 2)
    said = project.release("--nightly")
    assert "Skipped" in said and "2 new corrections that the champion has not learnt" in said
    assert (nights(project.root)[0].outcome, nights(project.root)[0].rows) == ("skip", 2)
    assert "no release was worth it" in (project.root / ".flywheel/nights/00001.md").read_text()
    assert read_feedback_pointer(project.root).count == 0
    assert project.registry.get("champion").number == "1"

    correct(project.root, 3)
    assert "Promoted" in project.release("--nightly")
    champion, night = project.registry.get("champion"), nights(project.root)[0]
    pointer = read_feedback_pointer(project.root)
    assert (pointer.count, pointer.watermark, pointer.since) == (5, night.number, 0)
    assert pointer.start is not None and pointer.start.version == "1"
    assert read_pointer(project.root).night == night.number
    assert (night.outcome, night.version, night.rows, night.snapshot) == ("promote", "2", 3, pointer.digest)
    tags = ("feedback_night", "feedback_sha256", "continues")
    assert [champion.tags[key] for key in tags] == [str(night.number), pointer.digest, "1"]
    with store_of(project.root) as store:
        promoted = ledger.last(store, "toy", "promoted")
        assert promoted is not None and (promoted.version, promoted.digest) == ("2", champion.manifest)

    assert "Skipped" in project.release("--nightly")
    assert "0 new corrections" in nights(project.root)[0].reason
    assert len(project.registry.versions()) == 2


def test_a_rejected_night_changes_nothing_and_its_corrections_stay_new(project: Project) -> None:
    correct(project.root, 5, text="Worse.")
    set_wanted(project.root, outcome="reject")
    assert "Rejected" in project.release("--nightly")
    assert project.registry.get("champion").number == "1"
    assert nights(project.root)[0].outcome == "reject"
    set_wanted(project.root, outcome="promote")
    correct(project.root, 1)
    assert "Promoted" in project.release("--nightly")
    assert read_feedback_pointer(project.root).count == 6


def test_a_version_that_needs_approval_waits_for_a_person(project: Project) -> None:
    correct(project.root, 5)
    set_param(project.root, "nightly", "approval", True)
    said = project.release("--nightly")
    waiting = project.registry.get("candidate")
    assert f"waits for a person: `flywheel approve {waiting.number}`" in said
    assert "champion" not in waiting.aliases and nights(project.root)[0].outcome == "hold"
    command = [sys.executable, "-m", "flywheel", "approve", waiting.number, "--reason", "read it", "--json"]
    done = subprocess.run(command, cwd=project.root, env=environment(project.root), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.registry.get("champion").number == waiting.number


def test_a_failed_release_closes_the_night_and_the_next_one_takes_its_corrections(project: Project) -> None:
    correct(project.root, 5)
    set_wanted(project.root, fail=True)
    project.release("--nightly", status=1)
    assert nights(project.root)[0].outcome == "failed" and "out of memory on purpose" in nights(project.root)[0].reason
    set_wanted(project.root, fail=False)
    assert "Promoted" in project.release("--nightly")


@pytest.fixture
def kill(project: Project) -> Iterator[Callable[[str, str], None]]:
    """Runs a night that is killed at a step."""
    command = [sys.executable, "-m", "tests.flows.killed_night"]
    with subprocess.Popen(
        command,
        cwd=project.root,
        env=environment(project.root) | {"PREFECT_API_URL": project.api},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    ) as nights:
        assert nights.stdin is not None and nights.stdout is not None

        def kill(step: str, moment: str) -> None:
            print(step, moment, file=nights.stdin)
            said = []
            for line in nights.stdout:
                if line.startswith("ended "):
                    assert line == "ended -9\n", "".join(said)
                    return
                said.append(line)
            pytest.fail("".join(said))

        yield kill
        nights.stdin.close()


@pytest.mark.slow
def test_a_night_killed_at_every_step_ends_as_if_it_had_not_been(
    project: Project, kill: Callable[[str, str], None]
) -> None:
    """kill -9 seven times on the way, feedback arriving meanwhile: the same rows, one version, one promotion.

    What arrived, all of it after the night had claimed its rows, belongs to the next night.
    """
    ids = correct(project.root, 5)
    snapshots, packages = set(), set()
    for step, moment in KILLS:
        kill(step, moment)
        snapshots.add(nights(project.root)[0].snapshot if step != "claim" else None)
        correct(project.root, 1)
        if step in ("register", "close"):
            packages.add(project.registry.get("candidate").manifest)
    assert "Promoted" in project.release("--nightly")

    night, pointer = nights(project.root)[0], read_feedback_pointer(project.root)
    rows = (project.root / ".flywheel/feedback" / str(pointer.digest) / "rows.jsonl").read_text().splitlines()
    assert {row["id"] for row in map(json.loads, rows) if row["night"] == night.number} == set(ids)
    assert snapshots == {None, pointer.digest} and night.snapshot == pointer.digest
    champion = project.registry.get("champion")
    assert packages == {champion.manifest} and champion.number == night.version == "2"
    assert len(project.registry.versions()) == 2
    with store_of(project.root) as store:
        promoted = [e for e in ledger.entries(store, "toy") if e.version == night.version and e.event == "promoted"]
    assert len(promoted) == 1

    assert "Promoted" in project.release("--nightly")
    assert nights(project.root)[0].rows == len(KILLS)
