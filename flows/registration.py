"""What one run of the release flow knows, and its end: a version registered, promoted if it may be, seen to be served.

Everything here bears repeating: a version is known by its package and verdict, the ledger is asked before it is
written, and the `released` tag comes last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from flows import stages as dvc
from flows.console import ReleaseOutcome
from flows.live import promoted, used
from flows.workspace import Workspace, commit_results, is_dirty
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import folder_digest, sha256_file, verify_manifest, write_json
from tasks.core.package import read_package
from tasks.core.params import load_params
from tasks.core.pointers import read_feedback_pointer
from tasks.curate.quality.data_docs import render_data_docs
from tasks.evaluate.card.bom import render_bom
from tasks.evaluate.card.card import render_card, verdict_rows
from tasks.evaluate.card.usage import USAGE
from tasks.registry import runs
from tasks.registry.deploy import promote
from tasks.registry.versions import NOT_PASSED
from tasks.store import ledger

if TYPE_CHECKING:
    from dvc.repo import Repo

    from tasks.registry.versions import Registry, Version
    from tasks.store.store import Store


# No step is retried or cached by Prefect: DVC knows what is up to date, and a stage that failed would fail again.
STEP: dict[str, Any] = {"retries": 0, "cache_policy": NO_CACHE, "persist_result": False}
STATE_NAMES = {"promote": "Promoted", "hold": "Held", "reject": "Rejected"}
COLUMNS = ("name", "kind", "n", "estimate", "low", "high", "margin", "unit", "met", "reason")


def step(name: str, work: Callable[[], Any], wait_for: Iterable[State] = ()) -> Any:
    """Do something as a Prefect task of this name; returns what it returns."""

    @task(name=name, task_run_name=name, **STEP)
    def run() -> Any:
        return work()

    return run(wait_for=list(wait_for))


@dataclass
class Release:
    """One run of the flow: where it works, and what it has found so far. `ask`: a person decides on promotion.

    `night`: the number of the night that asks, if one does.
    """

    place: Workspace
    domain: str
    registry: Registry
    store: Store
    repo: Repo
    stages: list[dvc.Stage]
    inputs: str
    reason: str
    flow_run_id: str
    started: float
    ask: bool = False
    night: int | None = None
    mlflow_run: str = ""
    runs: list[dvc.StageRun] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)


class GateBlocked(FlywheelError):
    """There is no verdict that can be trusted, so nothing is registered or promoted."""


def trusted_verdict(work: Release) -> dict[str, Any]:
    """The verdict, if this flow ran or confirmed the gate and it judged the package that is here.

    Raises:
        GateBlocked: it cannot be trusted; the message says why.
    """
    if "gate" not in work.states:
        raise GateBlocked("the graph has no stage called gate, so nothing was judged; nothing was promoted")
    if not dvc.is_current(work.repo, "gate"):
        raise GateBlocked("what the gate judged has changed since it ran; nothing was promoted. Run the release again")
    verdict: dict[str, Any] = json.loads(layout.VERDICT.read_text(encoding="utf-8"))
    if verdict.get("outcome") not in STATE_NAMES:
        raise GateBlocked(f"{layout.VERDICT} has the outcome {verdict.get('outcome')!r}; nothing was promoted")
    package = verify_manifest(layout.PACKAGE)
    if verdict.get("candidate", {}).get("digest") != package:
        raise GateBlocked(f"{layout.VERDICT} judged another package than {layout.PACKAGE}; nothing was promoted")
    return verdict


def publish_reports(work: Release, verdict: dict[str, Any], tags: dict[str, str]) -> None:
    """Render the card and the data docs, and show them with the run."""

    def publish() -> None:
        render_data_docs(work.place.root)
        write_json(work.place.root / USAGE, used(work.registry, work.store))
        render_card(lineage=tags)
        render_bom(work.place.root, tags)
        show_artifacts(verdict)

    step("reports", publish, [work.states["gate"]])


def describe(work: Release, verdict: dict[str, Any]) -> dict[str, str]:
    """The tags of the version: everything that leads back from it; also which nights it learnt, and on top of whom."""
    own, pointer = dvc.output_paths(work.repo), read_feedback_pointer()
    commit = commit_results(work.place, f"Release of {work.domain}: {verdict['outcome']}")
    return {
        "git_sha": commit or "none",
        "dirty": "true" if is_dirty(work.place, own) else "false",
        "dvc_lock_sha256": sha256_file(work.place.root / "dvc.lock"),
        "manifest_sha256": verify_manifest(layout.PACKAGE),
        "base_manifest_sha256": verify_manifest(layout.BASE_MODEL),
        "verdict": str(verdict["outcome"]),
        "verdict_sha256": sha256_file(layout.VERDICT),
        "asked": str(verdict.get("asked") or "none"),
        NOT_PASSED: ",".join(row["name"] for row in verdict["criteria"] if not row["passed"]),
        "served_as": read_package(layout.PACKAGE).kind.served_as,
        "evaluation_sha256": folder_digest(layout.EVALUATION / "candidate") or "none",
        "feedback_night": str(pointer.watermark or 0),
        "feedback_sha256": pointer.digest or "none",
        "continues": pointer.start.version if pointer.start else "base",
        "data_snapshot": folder_digest(layout.INGEST) or "none",
        "data_sha256": folder_digest(layout.MIX) or "none",
        "inputs_sha256": work.inputs,
        "prefect_flow_run_id": work.flow_run_id,
        "reason": work.reason,
    }


def register(work: Release, verdict: dict[str, Any], tags: dict[str, str]) -> ReleaseOutcome:
    """Keep everything with the MLflow run, register the version, and promote it if it may be."""

    def keep() -> ReleaseOutcome:
        client, run_id, root = work.registry.client, work.mlflow_run, work.place.root
        runs.log_params(client, run_id, root / layout.PARAMS)
        runs.log_metrics(client, run_id, root / layout.REPORTS)
        runs.log_files(client, run_id, root)
        version = work.registry.register(run_id, tags)
        note = settle(work, version, verdict)
        work.registry.finish(version, work.inputs)
        return outcome_of(work, work.registry.get(version.number), note)

    outcome: ReleaseOutcome = step("register", keep, [work.states["gate"]])
    return outcome


def settle(work: Release, version: Version, verdict: dict[str, Any]) -> str:
    """Promote or not, as the verdict says, or ask a person; returns what happened, in a sentence.

    Raises:
        PromotionRefused: the verdict says promote, but not for this package against this champion.
    """
    champion = work.registry.alias("champion")
    if verdict["outcome"] != "promote":
        word = {"hold": "held back", "reject": "rejected"}[verdict["outcome"]]
        return f"version {version.number} was {word}"
    if champion is not None and champion.number != version.number and champion.manifest == version.manifest:
        return f"version {version.number} passes; its package is champion already, as version {champion.number}"
    if version.tags.get("rolled_back") and "champion" not in version.aliases:
        return f"version {version.number} passes, but a person rolled it back; only an override makes it champion again"
    if work.ask and "champion" not in version.aliases:
        asked = ledger.ask(work.store, work.domain, version.number, version.manifest)
        words = ledger.refusal(asked, load_params().nightly.approval_hours)
        return f"it passes; {words or ledger.WAITS.format(version.number)}"
    before = promote(work.registry, work.store, version, "release", work.reason)
    return promoted(work.registry, work.store, load_params(), version, before)[1]


def outcome_of(work: Release, version: Version, note: str) -> ReleaseOutcome:
    """What the summary shows."""
    return ReleaseOutcome(
        outcome=version.tags.get("verdict", ""),
        domain=work.domain,
        version=version.number,
        aliases=version.aliases,
        note=note,
        runs=tuple(work.runs),
        seconds=time.monotonic() - work.started,
    )


def verdict_table(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a criterion, figures to four places."""
    rows = []
    for criterion in verdict_rows(verdict):
        row = {column: criterion.get(column) for column in COLUMNS}
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def show_artifacts(verdict: dict[str, Any]) -> None:
    """Attach the verdict, the card and the links to the current run."""
    summary = f"{verdict['outcome']}: {'; '.join(verdict.get('reasons', []))}"
    create_table_artifact(key="verdict", table=verdict_table(verdict), description=summary)
    create_markdown_artifact(key="release-card", markdown=layout.CARD_MARKDOWN.read_text(encoding="utf-8"))
    for key, path in (("release-card-page", layout.CARD_HTML), ("data-docs", layout.DATA_DOCS / "index.html")):
        create_link_artifact(key=key, link=path.absolute().as_uri(), link_text=path.as_posix())
