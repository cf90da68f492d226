"""New documents for the champion, without training: a version that differs from it in its knowledge alone.

Read, judged on what its passages can change, registered as any version is, promoted if its verdict says so. Whatever
fails leaves the champion as it is. The documents are kept in the domain's folder, where every release reads them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.live import live, promoted
from flows.workspace import one_at_a_time
from tasks.core import layout
from tasks.core.domain import LEARNED_FOLDER, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import folder_digest, sha256_file, verify_manifest, write_bytes
from tasks.core.package import read_package
from tasks.evaluate.gate.verdict import Verdict
from tasks.evaluate.learned import Judgement, judge_learned
from tasks.evaluate.scoring.subject import subject_in
from tasks.knowledge.learn import Lesson, build_package, file_of, lesson_of
from tasks.knowledge.search import Knowledge
from tasks.registry import runs
from tasks.registry.deploy import promote, this_person
from tasks.registry.pointer import EVALUATION_TAG, fetch_evaluation, fetch_weights
from tasks.registry.versions import FORGET, Registry, Version
from tasks.text.prompts import PromptBook

# What a version has of the champion whose weights it carries: its base, its training data, the nights it learnt.
SAME_TAGS = (
    *("git_sha", "dirty", "dvc_lock_sha256", "base_manifest_sha256", "served_as"),
    *("feedback_night", "feedback_sha256", "data_snapshot", "data_sha256"),
)
SAME_FILES = ("params.yaml", "dvc.lock", "dvc.yaml", "receipt.parquet")


class NothingToLearn(FlywheelError):
    """There is no champion with an index, or no document that can be read."""


@dataclass(frozen=True)
class Learned:
    """What became of it, also in words: passages by file; what was not used, and why; the version and its verdict.

    `outcome` is promote, hold or reject, or nothing where nothing was judged. Of the evaluation's items `changed` find
    other passages; for them `asked` responses had to be asked for.
    """

    words: str
    added: dict[str, int]
    removed: dict[str, int]
    unused: list[str]
    outcome: str = ""
    version: str | None = None
    changed: int = 0
    asked: int = 0
    reasons: tuple[str, ...] = field(default=())


def learn(home: Path, folder: Path | None, removed: Sequence[str] = (), dry_run: bool = False) -> Learned:
    """Let the champion know the documents of a folder, and forget the files named in `removed`; see the module.

    Raises:
        NothingToLearn: see there.
        PromotionRefused: the champion changed meanwhile, or a person rolled this very version back.
    """
    with live(home) as (params, registry, store), contextlib.chdir(home), one_at_a_time(home, print):
        champion, package, index = _champion(registry)
        kept = load_domain(params.domain).folder / LEARNED_FOLDER
        _refuse_unknown(removed, index, kept)
        lesson = lesson_of(index, folder, removed, params)
        found, changes = _found(lesson), lesson.changes(index)
        if folder is not None and not lesson.read:
            raise NothingToLearn("\n  ".join([f"{folder} holds no document that can be read", *found.unused]))
        if not changes:
            found = replace(found, words=f"nothing to do: version {champion.number} is up to date")
        if dry_run:
            return found
        if changes:
            with tempfile.TemporaryDirectory() as scratch:
                new, digest = build_package(package, lesson, params)
                judged = _judge(registry, champion, package, new, digest, Path(scratch))
                version = _register(registry, champion, new, digest, judged.verdict, Path(scratch) / "reports")
            found = _judged(found, version, judged)
        if found.outcome in ("", "promote"):
            _keep(lesson, removed, kept)
        if found.outcome == "promote":
            before = promote(registry, store, version, this_person(), "flywheel learn")
            found = replace(found, words=promoted(registry, store, params, version, before)[1])
        return found


def _champion(registry: Registry) -> tuple[Version, Path, Knowledge]:
    """The champion, its package and its index."""
    champion = registry.alias("champion")
    if champion is None:
        raise NothingToLearn(f"{registry.domain} has no champion that could learn; make one: make run")
    if champion.tags.get(FORGET):
        raise NothingToLearn(f"version {champion.number} knows what was forgotten; release one that does not: make run")
    package = fetch_weights(registry, champion, Path())
    knowledge = read_package(package).knowledge
    if knowledge is None:
        raise NothingToLearn(f"version {champion.number} answers without passages; release with retrieval.enabled")
    return champion, package, Knowledge(knowledge, PromptBook(layout.BASE_MODEL).count)


def _refuse_unknown(removed: Sequence[str], index: Knowledge, kept: Path) -> None:
    known = {*filter(None, map(file_of, index.passages)), *(path.name for path in kept.glob("*"))}
    if unknown := set(removed) - known:
        there = ", ".join(sorted(known)) or "none"
        raise NothingToLearn(f"no file {', '.join(sorted(unknown))} was learned; those that were: {there}")


def _judged(found: Learned, version: Version, judged: Judgement) -> Learned:
    verdict = judged.verdict
    return replace(
        found,
        words=f"version {version.number} was judged {verdict.outcome}",
        outcome=verdict.outcome,
        version=version.number,
        changed=judged.changed,
        asked=judged.asked,
        reasons=verdict.reasons,
    )


def _found(lesson: Lesson) -> Learned:
    unused = [f"{Path(one.file).name}:{one.line}: {one.cause}" for one in lesson.bad]
    unused += [f"{one.detail}: {one.reason}" for one in lesson.refused]
    words = f"would add {len(lesson.new)} passages and remove {sum(lesson.removed.values())}"
    return Learned(words, lesson.added, lesson.removed, unused)


def _judge(registry: Registry, champion: Version, package: Path, new: Path, digest: str, scratch: Path) -> Judgement:
    base = verify_manifest(layout.BASE_MODEL)
    before = subject_in(package, "champion", champion.number, champion.manifest, base, "release")
    after = subject_in(new, "candidate", None, digest, base, "release")
    evaluation = fetch_evaluation(registry, champion, str(scratch))
    return judge_learned(before, after, evaluation, scratch / "reports")


def _register(
    registry: Registry, champion: Version, package: Path, digest: str, verdict: Verdict, reports: Path
) -> Version:
    """A run of its own with package, reports and what it shares with the champion, and the version over it."""
    client = registry.client
    run = client.create_run(runs.experiment_id(client, registry.home, registry.domain), tags={"reason": "learn"})
    run_id = str(run.info.run_id)
    client.log_artifacts(run_id, str(package), runs.PACKAGE_ARTIFACT)
    client.log_artifacts(run_id, str(reports), layout.REPORTS.name)
    client.log_artifact(run_id, str(reports / layout.VERDICT.name))
    runs.log_metrics(client, run_id, reports)
    there = {item.path for item in client.list_artifacts(champion.run_id)}
    for name in there.intersection(SAME_FILES):
        path = Path(client.download_artifacts(champion.run_id, name, str(reports)))
        client.log_artifact(run_id, str(path))
        if path.name == layout.PARAMS.name:
            runs.log_params(client, run_id, path)
    tags = {key: champion.tags[key] for key in SAME_TAGS if key in champion.tags}
    version = registry.register(
        run_id,
        tags
        | {
            "kind": "knowledge",
            "continues": champion.number,
            "manifest_sha256": digest,
            "verdict": verdict.outcome,
            "verdict_sha256": sha256_file(reports / layout.VERDICT.name),
            EVALUATION_TAG: folder_digest(reports / layout.EVALUATION.name / "candidate") or "none",
            "reason": "learn",
        },
    )
    runs.close_run(client, run_id, "FINISHED")
    return version


def _keep(lesson: Lesson, removed: Sequence[str], folder: Path) -> None:
    """Keep the documents for the releases to come, and none of those that were taken out."""
    for name, path in lesson.read.items():
        write_bytes(folder / name, path.read_bytes())
    for name in removed:
        (folder / name).unlink(missing_ok=True)
