"""The nightly flow: what users said becomes a release, or a reasoned skip.

Claim the feedback of this night in the database (exactly once), lay it down as a snapshot, write the pointer
state/feedback.json, run the data stages, decide by what they leave whether it is worth a release, run the release flow,
close the night. It decides WHEN; cleaning, training and judging are stages.

Safe to kill anywhere: a night that was begun is taken up again with the same rows, a snapshot that was written is found
again by its digest, a pointer of this night is not written twice, and the release finds what it did before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Completed, State

from flows.console import reporter
from flows.context import STEP
from flows.release import release, run_up_to
from flows.workspace import Workspace, commit_results, one_at_a_time, open_workspace
from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.core.params import Params, load_params

if TYPE_CHECKING:
    from tasks.core.pointers import FeedbackPointer
    from tasks.corpus.feedback.stage import Cleaned
    from tasks.registry.versions import Registry
    from tasks.store.nights import Night
    from tasks.store.store import Store

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
    from tasks.registry.versions import Registry
    from tasks.store.migrate import migrate
    from tasks.store.store import Store

    os.environ.update(layout.OFFLINE)
    home = layout.home()
    with one_at_a_time(home, reporter.get().say, "nightly"):
        place = open_workspace(home, workspace)
        migrate(home=home)
        with contextlib.chdir(place.root), contextlib.closing(Store.open(home=home)) as store:
            params = load_params()
            work = Work(place, workspace, params, store, Registry(params.domain, home), str(current_flow_run.id or ""))
            return one_night(work, force)


def one_night(work: Work, force: bool) -> State:
    """Claim, decide, release, close. An error closes the night as failed; a kill leaves it to be taken up again."""
    from tasks.store.nights import close_night

    night = claim(work)
    try:
        outcome, reason, version, cleaned = carry_out(work, night, force)
    except Exception as error:
        close_night(work.store, night.number, "failed", f"{error}"[:2000])
        raise
    closed = close_night(work.store, night.number, outcome, reason, version)
    show_card(work, closed, cleaned)
    return Completed(name=NAMES[outcome], message=f"night {night.number}: {reason}")


def step(name: str, work: Callable[[], Any]) -> Any:
    """Run one step of the night as a Prefect task of that name."""

    @task(name=name, task_run_name=name, **STEP)
    def run() -> Any:
        return work()

    return run()


def claim(work: Work) -> Night:
    """This night, with its rows: the one that was begun and not finished, or a new one."""
    from tasks.store.nights import open_night

    night: Night = step("claim", lambda: open_night(work.store, work.params.domain, work.flow_run_id))
    said = f"night {night.number}: {night.rows} reactions since the night before"
    get_run_logger().info(said)
    reporter.get().say(said[0].upper() + said[1:])
    return night


def carry_out(work: Work, night: Night, force: bool) -> tuple[str, str, str | None, Cleaned]:
    """(outcome, reason in words, version, what the feedback came to)."""
    pointer, cleaned = step("snapshot", lambda: take_snapshot(work, night))
    wanted = wanted_rows(work, pointer, force)
    reason = too_little(cleaned, len(cleaned.new), wanted)
    if not reason:
        step("pointer", lambda: write_pointer(work, night, pointer))
        reason = too_little(cleaned, left_to_learn(work, night, cleaned), wanted)
        if reason:
            step("pointer back", lambda: put_pointer_back(work, night))
    if reason:
        reporter.get().say(f"Skipped: {reason}")
        return "skip", reason, None, cleaned
    state = release(
        reason=f"night {night.number}",
        workspace=work.workspace,
        ask=work.params.nightly.approval,
        night=night.number,
        return_state=True,
    )
    outcome, reason, version = ended(work, state)
    return outcome, reason, version, cleaned


def wanted_rows(work: Work, pointer: FeedbackPointer, force: bool) -> int:
    """How many new corrections a release needs: what the settings say, and as many as its gate can judge."""
    from tasks.core.intervals import fewest_items
    from tasks.train.start.stage import starting_version

    judged = starting_version(pointer, work.params.feedback) is not None
    judgeable = fewest_items(work.params.gate.level) if judged else 1
    return max(1 if force else work.params.nightly.min_examples, judgeable)


def left_to_learn(work: Work, night: Night, cleaned: Cleaned) -> int:
    """New corrections that the data stages, which run here, leave to be trained on and judged."""
    run_up_to(work.place, "mix", f"data of night {night.number}")
    commit_results(work.place, f"Data of night {night.number}")
    path = work.place.root / layout.METRICS / "mix.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["corrections"]) if path.is_file() else len(cleaned.new)


def take_snapshot(work: Work, night: Night) -> tuple[FeedbackPointer, Cleaned]:
    """Everything said up to this night, under its digest, and what cleaning leaves of it.

    A pointer of this night that is there already is kept: it names the champion of the moment the night began.
    """
    from tasks.core.pointers import read_feedback_pointer
    from tasks.corpus.feedback.stage import clean_snapshot, write_snapshot
    from tasks.store.nights import feedback_upto, update_night

    pointer = read_feedback_pointer(work.place.root)
    if pointer.watermark != night.number:
        reactions = [reaction_of(row) for row in feedback_upto(work.store, work.params.domain, night.number)]
        pointer = point_at(work, night, len(reactions), write_snapshot(reactions, work.place.home))
        update_night(work.store, night.number, snapshot=pointer.digest)
    domain = load_domain(work.params.domain)
    return pointer, clean_snapshot(pointer, work.params.feedback, domain, work.place.home)


def point_at(work: Work, night: Night, count: int, digest: str) -> FeedbackPointer:
    """The pointer of this night: what the present champion has not learnt is new, unless a person rolled it back."""
    from tasks.core.pointers import FeedbackPointer, StartPoint
    from tasks.registry.pointer import fetch_weights
    from tasks.registry.versions import held_nights, line_of

    if count == 0:
        return FeedbackPointer(count=0)
    champion = work.registry.alias("champion")
    line = line_of(work.registry, champion) if champion is not None else []
    for version in line[:1] + line[-1:]:
        fetch_weights(work.registry, version, work.place.home)
    points = [StartPoint(version=version.number, digest=version.manifest) for version in line]
    return FeedbackPointer(
        count=count,
        digest=digest,
        watermark=night.number,
        since=int(line[0].tags.get("feedback_night", "0")) if line else 0,
        held=held_nights(work.registry),
        start=points[0] if points else None,
        origin=points[-1] if points else None,
    )


def reaction_of(row: dict[str, Any]) -> Any:
    """A row of the database as a snapshot keeps it."""
    from tasks.core.records import Message, Reaction

    others = row["others"]
    return Reaction(
        seq=row["seq"],
        id=row["id"],
        night=row["night"],
        identity=row["identity_id"],
        kind=row["kind"],
        thumb=row["thumb"],
        rating=row["rating"],
        text=row["text"] or "",
        answer_id=row["answer_id"],
        messages=tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"]),
        answer=row["answer"],
        version=row["version"],
        digest=row["digest"],
        draft=row["draft_id"] or "",
        other_answer=others[0]["text"] if others else "",
        finish_reason=row["finish_reason"],
        other_finish_reason=others[0]["finish_reason"] if others else "stop",
    )


def too_little(cleaned: Cleaned, left: int, wanted: int) -> str:
    """Why this night is not worth a release with `left` corrections to learn, or "" if it is."""
    if left >= wanted:
        return ""
    dropped = sum(not receipt.kept for receipt in cleaned.receipts)
    lost = f", {dropped} were dropped in cleaning" if dropped else ""
    later = len(cleaned.new) - left
    lost += f", {later} in validation, deduplication or by the leak guard" if later else ""
    return (
        f"{left} new corrections that the champion has not learnt{lost}; "
        f"a night needs {wanted} (nightly.min_examples, and what the gate can judge). They are kept for the next"
    )


def write_pointer(work: Work, night: Night, pointer: FeedbackPointer) -> None:
    """Point state/feedback.json at this night's snapshot; in a worktree, committed at once: the release resets it.

    What it pointed at before is kept, for a night that turns out to be too little.
    """
    from tasks.core.pointers import read_feedback_pointer

    before = read_feedback_pointer(work.place.root)
    if before.watermark != night.number:
        write_json(pointer_before(work, night), before.model_dump(mode="json"))
    _point(work, pointer, f"Feedback up to night {night.number}")


def put_pointer_back(work: Work, night: Night) -> None:
    """Point state/feedback.json at what it pointed at before this night."""
    from tasks.core.pointers import FeedbackPointer

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
    from tasks.registry.inputs import inputs_digest

    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        raise NightFailed(f"the release ended without a verdict: {error if error else state.message}")
    version = work.registry.of_inputs(inputs_digest(work.params.domain, work.place.root))
    if version is None:
        raise NightFailed("the release registered no version")
    verdict, said = version.tags.get("verdict", ""), state.message or ""
    if verdict == "promote":
        return "promote" if "champion" in version.aliases else "hold", said, version.number
    failed = [item["reason"] for item in work.registry.verdict(version)["criteria"] if not item["passed"]]
    return verdict, " ".join([f"version {version.number} was judged {verdict}.", *failed]), version.number


def show_card(work: Work, night: Night, cleaned: Cleaned) -> None:
    """The night's own card: a page in Prefect, and a file under .flywheel/nights."""
    from tasks.evaluate.night_card import render_night, write_night

    text = render_night(night, cleaned.facts(), work.params.nightly.min_examples)
    write_night(work.place.home, night.number, text)
    create_markdown_artifact(key="night", markdown=text, description=f"night {night.number}: {night.outcome}")


if __name__ == "__main__":  # Prefect reads its settings when it is imported, so the launcher comes before it
    os.execv(sys.executable, [sys.executable, "-m", "flows.run", "--nightly", *sys.argv[1:]])  # noqa: S606 - ourselves
