"""The nightly flow on the project in miniature, against a real Prefect server, MLflow and database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.nightly import by_person, reaction_of, wanted_rows
from tasks.core.clock import now
from tasks.core.params import load_params
from tasks.core.pointers import FeedbackPointer, StartPoint, read_feedback_pointer, read_pointer
from tasks.evaluate.night_card import influence_lines
from tasks.registry.deploy import roll_back
from tasks.registry.versions import Registry
from tasks.store import ledger
from tasks.store.answers import get_feedback
from tasks.store.nights import last_nights
from tasks.store.schema import FeedbackRow, Night
from tests.answers import AN_ANSWER
from tests.flows.feedback import correct, store_of
from tests.flows.project import Project
from tests.flows.toy import environment, set_param, set_wanted
from tests.mlflow_store import lay_mlflow

pytestmark = pytest.mark.slow  # a real Prefect server, and half a minute for each night

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
    said = {"domain": "toy", "kind": "choice", "thumb": None, "rating": None, "text": None, "created_at": now()}
    row = FeedbackRow(id="f", key="k", answer_id="a", identity_id="anna", night=1, **said)
    row.seq = 1
    answer = replace(AN_ANSWER, id="a", draft_id="d", finish_reason="length")
    reaction = reaction_of(row, answer, replace(AN_ANSWER, text="No.", finish_reason="cancelled"))
    assert (reaction.finish_reason, reaction.other_finish_reason) == ("length", "cancelled")
    assert (reaction.answer, reaction.other_answer) == ("A contract.", "No.")
    assert reaction_of(row, answer, None).other_finish_reason == "stop"


def test_a_snapshot_has_the_other_words_of_a_correction() -> None:
    said = {"domain": "toy", "kind": "correction", "thumb": None, "rating": None, "text": "So.", "created_at": now()}
    for other_words, kept in (("What?", "What?"), (None, "")):
        row = FeedbackRow(id="f", key="k", answer_id="a", identity_id="anna", night=1, other_words=other_words, **said)
        row.seq = 1
        assert reaction_of(row, AN_ANSWER, None).other_words == kept


def nights(root: Path) -> list[Night]:
    with store_of(root) as store:
        return last_nights(store, "toy", 10)


def test_a_held_night_says_whose_corrections_pulled_against_it(tmp_path: Path) -> None:
    """Two of one person at -0.4 and -0.2, one of another at 0.3; a domain row is nobody's, nor one that is gone."""
    first, second = correct(tmp_path, 2), correct(tmp_path, 1)
    sources = [*first, *second, "gone"]
    rows = [
        {"kind": "correction", "question": "?", "source": [f"feedback:{one}"], "influence": pull}
        for one, pull in zip(sources, (-0.4, -0.2, 0.3, -0.9), strict=True)
    ]
    with store_of(tmp_path) as store:
        people = by_person(store, [*rows, {**rows[0], "source": ["faq/1"]}])
        given = [get_feedback(store, one) for one in (first[0], second[0])]
    assert [(one["identity"], one["rows"], round(one["influence"], 6)) for one in people] == [
        (given[0] and given[0].identity_id, 2, -0.3),
        (given[1] and given[1].identity_id, 1, 0.3),
    ]
    found = {"criterion": "facts_right", "answers": 30, "kinds": [], "rows": rows, "people": people}
    assert f"| {people[0]['identity']} | 2 | -0.300 |" in influence_lines(found)


def test_too_little_is_a_reasoned_skip_and_kept_until_it_is_enough_for_a_version_that_leads_back_to_it(
    project: Project,
) -> None:
    """Two corrections, four that the data stages drop, then three more: the five that a night needs.

    What is learnt is not learnt again, and what a person rolled back is not promoted again.
    """
    before = read_feedback_pointer(project.root)
    correct(project.root, 2, digest=project.registry.get("champion").manifest)
    said = project.release("--nightly")
    assert "Skipped" in said and "2 new corrections that the champion has not learnt" in said
    assert (nights(project.root)[0].outcome, nights(project.root)[0].rows) == ("skip", 2)
    card = (project.root / ".flywheel/nights/00001.md").read_text()
    assert "no release was worth it" in card and "| answers corrected | 2 of 2: 100% (16% to 100%) |" in card

    correct(project.root, 4, text="Leak.")
    assert "Skipped" in project.release("--nightly")
    reason = "2 new corrections that the champion has not learnt, 4 in"
    assert nights(project.root)[0].outcome == "skip" and nights(project.root)[0].reason.startswith(reason)
    assert read_feedback_pointer(project.root) == before and before.count == 0
    assert [version.number for version in project.registry.versions()] == ["1"]

    correct(project.root, 3)
    assert "Promoted" in project.release("--nightly")
    champion, night = project.registry.get("champion"), nights(project.root)[0]
    pointer = read_feedback_pointer(project.root)
    assert (pointer.count, pointer.watermark, pointer.since) == (9, night.number, 0)
    assert pointer.start is not None and pointer.start.version == "1"
    assert project.registry.client.get_run(champion.run_id).data.metrics["usage.champion.corrections"] == 2
    assert read_pointer(project.root).night == night.number
    assert (night.outcome, night.version, night.rows, night.snapshot) == ("promote", "2", 3, pointer.digest)
    tags = ("feedback_night", "feedback_sha256", "continues")
    assert [champion.tags[key] for key in tags] == [str(night.number), pointer.digest, "1"]
    with store_of(project.root) as store:
        promoted = ledger.last(store, "toy", "promoted")
        assert promoted is not None and (promoted.version, promoted.digest) == ("2", champion.manifest)
    found_nothing(project)
    with store_of(project.root) as store:
        roll_back(project.registry, store, "anna", "worse at stairs")
    found_nothing(project)
    correct(project.root, 5)
    assert "Promoted" in project.release("--nightly")
    learnt = range(int(read_feedback_pointer(project.root).since) + 1, night.number + 1)
    assert read_feedback_pointer(project.root).held == tuple(learnt)


def found_nothing(project: Project) -> None:
    """A night in which nothing is new."""
    assert "Skipped" in project.release("--nightly")
    assert nights(project.root)[0].reason.startswith("0 new corrections") and len(project.registry.versions()) == 2


def test_a_failed_and_a_rejected_night_change_nothing_and_their_corrections_stay_new(project: Project) -> None:
    correct(project.root, 5, text="Worse.")
    set_wanted(project.root, fail=True)
    project.release("--nightly", status=1)
    assert nights(project.root)[0].outcome == "failed" and "out of memory on purpose" in nights(project.root)[0].reason
    set_wanted(project.root, fail=False, outcome="reject")
    assert "Rejected" in project.release("--nightly")
    assert project.registry.get("champion").number == "1"
    assert nights(project.root)[0].outcome == "reject"
    assert project.registry.get("candidate").tags["not_passed"] == "domain_rouge_l"
    set_wanted(project.root, outcome="promote")
    correct(project.root, 1)
    assert "Promoted" in project.release("--nightly")
    assert read_feedback_pointer(project.root).count == 6


def test_after_a_night_that_the_anchor_held_the_next_begins_at_the_base_model_as_a_renewal_and_a_new_line(
    project: Project,
) -> None:
    correct(project.root, 5)
    set_wanted(project.root, outcome="hold", criterion="dialogue_nll_since_anchor")
    assert "Held" in project.release("--nightly")
    assert project.registry.get("candidate").tags["asked"] == "night"
    set_wanted(project.root, outcome="promote")
    assert "Promoted" in project.release("--nightly"), "what the night would have learnt is new still"
    pointer, champion = read_feedback_pointer(project.root), project.registry.get("champion")
    assert (pointer.start, pointer.origin, read_pointer(project.root).renewal) == (None, None, "drifted")
    assert [champion.tags[key] for key in ("continues", "asked", "feedback_night")] == ["base", "renewal", "2"]
    assert "| A renewal | the last night was held" in (project.root / ".flywheel/nights/00002.md").read_text()
    correct(project.root, 5)
    assert "Promoted" in project.release("--nightly")
    assert project.registry.get("champion").tags["asked"] == "night"
    judged = read_pointer(project.root)
    assert (judged.version, judged.anchor, judged.spent) == (champion.number, None, {}), "the anchor is the champion"


def test_a_version_that_needs_approval_waits_for_a_person(project: Project) -> None:
    correct(project.root, 5)
    set_param(project.root, "nightly", "approval", True)
    said = project.release("--nightly")
    waiting = project.registry.get("candidate")
    assert f"waits for a person: `flywheel approve {waiting.number}`" in said
    assert "champion" not in waiting.aliases and nights(project.root)[0].outcome == "hold"
    surroundings = environment(project.root) | {"PREFECT_API_URL": project.api}
    form = f"from flows.operate import approve; approve({waiting.number!r}, 'approve', 'read it')"
    for command in (["-c", form], ["-m", "flywheel", "approve", waiting.number, "--reason", "read it", "--json"]):
        asked = {"cwd": project.root, "env": surroundings, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, *command], **asked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert project.registry.get("champion").number == waiting.number


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


def test_a_gate_judges_five_corrections_or_more_whoever_forces_a_night(toy: Path) -> None:
    work = SimpleNamespace(params=load_params(toy / "params.yaml"), registry=Registry("toy", lay_mlflow(toy)))
    on_top = FeedbackPointer(count=0).model_copy(update={"count": 1, "start": StartPoint(version="1", digest="0" * 64)})
    assert [wanted_rows(work, on_top, force) for force in (True, False)] == [5, 5]  # type: ignore[arg-type]
    assert [wanted_rows(work, FeedbackPointer(count=0), force) for force in (True, False)] == [1, 5]  # type: ignore[arg-type]
    gate = work.params.gate.model_copy(update={"level": 0.95})
    work.params = work.params.model_copy(update={"gate": gate})
    assert [wanted_rows(work, on_top, force) for force in (True, False)] == [6, 6]  # type: ignore[arg-type]
