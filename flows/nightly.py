"""The nightly flow: what users said becomes a release, or a reasoned skip.

Safe to kill anywhere: a night that was begun is taken up again with the rows it claimed, a snapshot that was written is
found by its digest, a pointer of this night is not written twice, and the release finds what it did before.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Completed, State

from flows.console import reporter
from flows.live import live, used
from flows.registration import step
from flows.release import release, run_up_to
from flows.workspace import Workspace, commit_results, one_at_a_time, open_workspace
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.core.intervals import fewest_items
from tasks.core.params import Params
from tasks.core.pointers import FeedbackPointer, StartPoint, read_feedback_pointer, read_pointer
from tasks.core.processes import start, stop
from tasks.core.records import Message, Reaction
from tasks.corpus.feedback.stage import read_snapshot, write_snapshot
from tasks.evaluate.gate.words import RENEWALS
from tasks.evaluate.influence import INFLUENCE
from tasks.evaluate.night_card import render_night, write_night
from tasks.registry.inputs import inputs_digest
from tasks.registry.pointer import fetch_weights
from tasks.registry.versions import Registry, held_nights, line_of, renewal_of
from tasks.store.answers import get_feedback
from tasks.store.nights import close_night, feedback_upto, note_snapshot, open_night
from tasks.store.schema import AnswerRow, FeedbackRow, Night
from tasks.store.store import Store
from tasks.train.start.stage import starting_version

NAMES = {"promote": "Promoted", "hold": "Held", "reject": "Rejected", "skip": "Skipped", "nothing": "NothingToDo"}


class NightFailed(FlywheelError):
    """The release of a night ended without a verdict."""


@dataclass
class Work:
    """One run of the flow, with what it works on."""

    place: Workspace
    workspace: str | None
    params: Params
    store: Store
    registry: Registry
    flow_run_id: str


@flow(name="nightly", log_prints=False, retries=0, persist_result=False)
def nightly(workspace: str | None = None, force: bool = False) -> State:
    """Turn the feedback since the last night into a release, if there is enough of it.

    Args:
        workspace: a domain, to work in its own git worktree; None for the checkout itself.
        force: release even if there are fewer new corrections than nightly.min_examples: one, or where training goes
            on from a champion, as many as the gate can judge.

    Returns:
        A Completed state named Promoted, Held, Rejected, Skipped or NothingToDo.
    """
    os.environ.update(layout.OFFLINE)
    home = layout.home()
    with one_at_a_time(home, reporter.get().say, "nightly"):
        place = open_workspace(home, workspace)
        with contextlib.chdir(place.root), live(home, place.root) as (params, registry, store):
            return one_night(Work(place, workspace, params, store, registry, str(current_flow_run.id or "")), force)


def one_night(work: Work, force: bool) -> State:
    """Claim, decide, release, close. An error closes the night as failed; a kill leaves it to be taken up again."""
    night, usage = claim(work), used(work.registry, work.store)
    try:
        outcome, reason, version, facts = carry_out(work, night, force)
    except Exception as error:
        close_night(work.store, night.number, "failed", f"{error}"[:2000])
        raise
    closed = close_night(work.store, night.number, outcome, reason, version)
    text = render_night(closed, facts, work.params.nightly.min_examples, usage)
    write_night(work.place.home, night.number, text)
    create_markdown_artifact(key="night", markdown=text, description=f"night {night.number}: {outcome}")
    return Completed(name=NAMES[outcome], message=f"night {night.number}: {reason}")


def claim(work: Work) -> Night:
    """This night, with its rows: the one that was begun and not finished, or a new one."""
    night: Night = step("claim", lambda: open_night(work.store, work.params.domain, work.flow_run_id))
    line = f"night {night.number}: {night.rows} reactions since the night before"
    get_run_logger().info(line)
    reporter.get().say(line[0].upper() + line[1:])
    return night


def carry_out(work: Work, night: Night, force: bool) -> tuple[str, str, str | None, dict[str, Any]]:
    """(outcome, reason in words, version, what the feedback came to: the facts of stage feedback, where it ran)."""
    pointer = step("snapshot", lambda: take_snapshot(work, night))
    wanted = wanted_rows(work, pointer, force)
    corrections = corrections_said(work, pointer)
    facts: dict[str, Any] = {"new_examples": corrections}
    reason = too_little(corrections, facts, wanted)
    if not reason:
        step("pointer", lambda: write_pointer(work, night, pointer))
        left, facts = left_to_learn(work, night)
        reason = too_little(left, facts, wanted)
        if reason:
            step("pointer back", lambda: put_pointer_back(work, night))
    if reason:
        reporter.get().say(f"Skipped: {reason}")
        return "skip", reason, None, facts
    state = release(
        reason=f"night {night.number}",
        workspace=work.workspace,
        ask=work.params.nightly.approval,
        night=night.number,
        return_state=True,
    )
    outcome, said, version = ended(work, state)
    tags = work.registry.get(version).tags if version is not None else {}
    if tags.get("asked") == "renewal":
        facts |= {"renewal": RENEWALS[read_pointer(work.place.root).renewal]}
    if tags and tags.get("verdict") != "promote":
        facts |= {"influence": step("which rows", lambda: which_rows(work))}
    return outcome, said, version, facts


def which_rows(work: Work) -> dict[str, Any] | None:
    """Which training rows pulled at what was lost; None where that cannot be told, which stops no night."""
    command = [sys.executable, "-m", "tasks.evaluate.influence"]
    reporter.get().say("Asking which training rows pulled at what was lost")
    asking = start(command, grace=5, cwd=work.place.root, env=layout.child_environment(), out=subprocess.PIPE)
    try:
        said = asking.stdout.read().decode(errors="replace") if asking.stdout else ""
        if asking.wait() != 0:
            get_run_logger().warning(f"which rows did it cannot be told: {said[-500:]}")
            return None
    finally:
        stop(asking)
    found = dict(json.loads((work.place.root / INFLUENCE).read_text(encoding="utf-8")))
    return found | {"people": by_person(work.store, found["rows"])}


def by_person(store: Store, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who gave the corrections among the rows, by id, whose pulled against most first: one person may block all."""
    pulls: dict[str, list[float]] = {}
    for row in rows:  # one may be of two corrections
        for source in row["source"]:
            said = get_feedback(store, source.removeprefix("feedback:")) if source.startswith("feedback:") else None
            if said is not None:
                pulls.setdefault(said.identity_id, []).append(row["influence"])
    found = [{"identity": key, "rows": len(own), "influence": fmean(own)} for key, own in pulls.items()]
    return sorted(found, key=lambda one: (one["influence"] * one["rows"], one["identity"]))


def wanted_rows(work: Work, pointer: FeedbackPointer, force: bool) -> int:
    """How many new corrections a release needs: what the settings say, and as many as its gate can judge."""
    champion = work.registry.alias("champion")
    judged = starting_version(pointer, work.params.feedback) or renewal_of(work.registry, champion)
    judgeable = fewest_items(work.params.gate.level) if judged else 1
    return max(1 if force else work.params.nightly.min_examples, judgeable)


def corrections_said(work: Work, pointer: FeedbackPointer) -> int:
    """New corrections as they were said: no more than these are left when the data stages have cleaned them."""
    rows = read_snapshot(pointer, work.place.home)
    return sum(r.kind == "correction" and r.night > pointer.since and r.night not in pointer.held for r in rows)


def left_to_learn(work: Work, night: Night) -> tuple[int, dict[str, Any]]:
    """Run the data stages; new corrections that they leave to be trained on and judged, and what cleaning found."""
    run_up_to(work.place, "mix", f"data of night {night.number}")
    commit_results(work.place, f"Data of night {night.number}")
    mixed, cleaned = layout.DETAILS / "mix.json", layout.FEEDBACK / "facts.json"
    left, facts = (json.loads((work.place.root / path).read_text(encoding="utf-8")) for path in (mixed, cleaned))
    return int(left["corrections"]), facts


def take_snapshot(work: Work, night: Night) -> FeedbackPointer:
    """Lay down everything said up to this night, under its digest, which the pointer names.

    A pointer of this night that is there already is kept: it names the champion of the moment the night began.
    """
    pointer = read_feedback_pointer(work.place.root)
    if pointer.watermark != night.number:
        reactions = [reaction_of(*row) for row in feedback_upto(work.store, work.params.domain, night.number)]
        pointer = point_at(work, night, len(reactions), write_snapshot(reactions, work.place.home))
        note_snapshot(work.store, night.number, pointer.digest)
    return pointer


def point_at(work: Work, night: Night, count: int, digest: str) -> FeedbackPointer:
    """The pointer of this night: what the present champion has not learnt is new, unless a person rolled it back."""
    if count == 0:
        return FeedbackPointer(count=0)
    champion = work.registry.alias("champion")
    line = line_of(work.registry, champion) if champion is not None else []
    # What must begin anew is not gone on from: a line would know what was forgotten, or drift on.
    continued = [] if renewal_of(work.registry, champion) else line
    for version in continued[:1] + continued[-1:]:
        fetch_weights(work.registry, version, work.place.home)
    points = [StartPoint(version=version.number, digest=version.manifest) for version in continued]
    return FeedbackPointer(
        count=count,
        digest=digest,
        watermark=night.number,
        since=int(line[0].tags.get("feedback_night", "0")) if line else 0,
        held=held_nights(work.registry),
        start=points[0] if points else None,
        origin=points[-1] if points else None,
    )


def reaction_of(row: FeedbackRow, answer: AnswerRow, other: AnswerRow | None) -> Reaction:
    """A reaction of the database as a snapshot keeps it; `other` is the draft's second answer."""
    fields = {name: getattr(row, name) for name in ("seq", "id", "night", "kind", "thumb", "rating", "answer_id")}
    served = {name: getattr(answer, name) for name in ("version", "digest", "finish_reason")}
    return Reaction(
        **fields,
        **served,
        answer=answer.text,
        identity=row.identity_id,
        text=row.text or "",
        other_words=row.other_words or "",
        messages=tuple(Message(role=m["role"], content=m["content"]) for m in answer.messages),
        draft=answer.draft_id or "",
        other_answer=other.text if other else "",
        other_finish_reason=other.finish_reason if other else "stop",
    )


def too_little(left: int, facts: dict[str, Any], wanted: int) -> str:
    """Why this night is not worth a release with `left` corrections to learn, or "" if it is."""
    if left >= wanted:
        return ""
    dropped, later = sum(facts.get("dropped", {}).values()), facts["new_examples"] - left
    lost = f", {dropped} were dropped in cleaning" if dropped else ""
    lost += f", {later} in validation, deduplication or by the leak guard" if later else ""
    return (
        f"{left} new corrections that the champion has not learnt{lost}; "
        f"a night needs {wanted} (nightly.min_examples, and what the gate can judge). They are kept for the next"
    )


def write_pointer(work: Work, night: Night, pointer: FeedbackPointer) -> None:
    """Point state/feedback.json at this night's snapshot; in a worktree, committed at once: the release resets it.

    What it pointed at before is kept, for a night that turns out to be too little.
    """
    before = read_feedback_pointer(work.place.root)
    if before.watermark != night.number:
        write_json(pointer_before(work, night), before.model_dump(mode="json"))
    _point(work, pointer, f"Feedback up to night {night.number}")


def put_pointer_back(work: Work, night: Night) -> None:
    """Point state/feedback.json at what it pointed at before this night."""
    before = FeedbackPointer.model_validate_json(pointer_before(work, night).read_text(encoding="utf-8"))
    _point(work, before, f"Night {night.number} was skipped")
    pointer_before(work, night).unlink()


def pointer_before(work: Work, night: Night) -> Path:
    """Where the pointer before a night is kept."""
    return work.place.home / layout.HOME / "nights" / f"{night.number:05d}.before.json"


def _point(work: Work, pointer: FeedbackPointer, message: str) -> None:
    write_json(work.place.root / layout.FEEDBACK_POINTER, pointer.model_dump(mode="json"))
    commit_results(work.place, message)


def ended(work: Work, state: State) -> tuple[str, str, str | None]:
    """(outcome, reason, version) of a release, read from the registry, so that it is the same after a kill.

    Raises:
        NightFailed: the release was blocked, cancelled, or failed.
    """
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        raise NightFailed(f"the release ended without a verdict: {error if error else state.message}")
    version = work.registry.of_inputs(inputs_digest(work.params.domain, work.place.root))
    if version is None:
        raise NightFailed("the release registered no version")
    verdict, message = version.tags.get("verdict", ""), state.message or ""
    if verdict == "promote":
        return "promote" if "champion" in version.aliases else "hold", message, version.number
    failed = [item["reason"] for item in work.registry.verdict(version)["criteria"] if not item["passed"]]
    return verdict, " ".join([f"version {version.number} was judged {verdict}.", *failed]), version.number


if __name__ == "__main__":  # Prefect reads its settings when it is imported, so the launcher comes before it
    os.execv(sys.executable, [sys.executable, "-m", "flows.run", "--nightly", *sys.argv[1:]])  # noqa: S606 - ourselves
