"""`flywheel learn` on a real registry: a version whose knowledge alone is new, judged, promoted, and taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flywheel.cli import main
from tasks.core import layout
from tasks.core.domain import LEARNED_FOLDER
from tasks.core.files import folder_digest, verify_manifest, write_json, write_manifest, write_text
from tasks.core.records import Passage, make_item, write_jsonl
from tasks.evaluate.gate.scores import NoVerdict
from tasks.evaluate.gate.verdict import Side, Verdict
from tasks.evaluate.learned import Judgement
from tasks.evaluate.run.stage import load_tokenizer, write_evaluation
from tasks.evaluate.scoring.questions import Response, questions_of, read_items
from tasks.evaluate.scoring.subject import Subject
from tasks.knowledge.search import Knowledge
from tasks.registry.pointer import EVALUATION_ARTIFACT, fetch_probes, fetch_weights
from tasks.registry.runs import experiment_id
from tasks.registry.versions import Registry
from tasks.similarity.embedder import sentence_encoders
from tasks.store import ledger
from tasks.store.store import Store
from tasks.text.passages import answering_words
from tests.laid_index import MODEL, count, entry, lay_index
from tests.mlflow_store import lay_mlflow
from tests.preferences import write_adapter

SHED = entry(1, "May I build a shed?", "Up to 15 square metres.")
SAUNA = "# Saunas\n\nA sauna with a wood stove may be lit from 7 to 22."
QUESTION = "When may I light the stove of my sauna?"
KEPT = layout.DOMAINS / "construction" / LEARNED_FOLDER
ITEMS = {
    "domain": [
        make_item(set="domain", prompt=question, reference="15 m2", facts=(("15 m2",),))
        for question in [f"How large may shed number {number} be?" for number in range(79)] + [QUESTION]
    ],
    "declining": [make_item(set="declining", prompt=f"What costs a trip to planet {n}?") for n in range(5)],
    "dialogue": [make_item(set="dialogue", prompt=f"Hello {n}", reference="Hi.") for n in range(5)],
    "mmlu": [make_item(set="mmlu", prompt=f"Colour {n}?", choices=("red", "blue"), answer=0) for n in range(5)],
    "safety": [make_item(set="safety", prompt=f"Harm {n}", choices=("No.", "Sure."), answer=0) for n in range(5)],
}


def lay_project(home: Path, root: Path, base: Path) -> Path:
    """Settings, domain, base model and evaluation items; a registry without a version; a folder of documents."""
    for name in ("infra", ".venv-evaluation", "tasks"):
        (home / name).symlink_to(root / name)
    lay_mlflow(home)
    (home / ".flywheel/packages").symlink_to(root / ".flywheel/packages")
    shutil.copytree(root / "domains/construction", home / "domains/construction")
    settings = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))
    settings["evaluate"] |= {"batch_size": 2, "max_new_tokens": 12, "threads": 2, "precision": "fp32"}
    settings["serving"]["port"] = 9  # nothing listens there: no gateway to wait for
    write_text(home / layout.PARAMS, yaml.safe_dump(settings))
    for name, items in ITEMS.items():
        write_jsonl(home / layout.EVALUATION_ITEMS / f"{name}.jsonl", items)
    shutil.copytree(base, home / layout.BASE_MODEL, copy_function=lambda one, other: Path(other).hardlink_to(one))
    write_text(home / "documents/sauna.md", SAUNA)
    write_text(home / "documents/old.doc", "x")
    return home


def lay_package(package: Path, passages: list[Passage], root: Path) -> None:
    """A package around an adapter that is there, with an index of real vectors that shows one passage."""
    system = (root / "domains/construction/prompts/system.txt").read_text(encoding="utf-8").strip()
    write_json(package / "prompt.json", {"system": system})
    write_json(package / "base.json", {"digest": verify_manifest(layout.BASE_MODEL)})
    vectors = sentence_encoders(root / MODEL, 32, 1).question([one.whole for one in passages])
    lay_index(package / "knowledge", passages, vectors, root / MODEL, k=1, threshold=0.46, tokens=256)
    (package / "knowledge/embedder").unlink()
    shutil.copytree(root / MODEL, package / "knowledge/embedder")
    write_manifest(package)


def make_champion(home: Path, package: Path) -> Registry:
    """Register the package with an evaluation in which the model said nothing, and make it champion by override."""
    digest, index = write_manifest(package), Knowledge(package / "knowledge", count)
    subject = Subject("champion", None, digest, layout.BASE_MODEL, "b", knowledge=index.folder)
    words, items, found = answering_words("en"), read_items(), {}
    for item in items:
        if item.set in ("domain", "declining"):
            found[item.id] = tuple(hit.passage for hit in index.search([item.prompt])[0])
    questions = questions_of(items, load_tokenizer(layout.BASE_MODEL), "Be brief.", words, found)
    results = [
        (one, Response(values=(1.0,) * len(one.answers), text="" if one.kind == "generation" else None))
        for one in questions
    ]
    from tasks.core.params import load_params

    write_evaluation(home / "evaluation", subject, load_params().evaluate, results)
    registry = Registry("construction", home)
    run = registry.client.create_run(experiment_id(registry.client, home, "construction")).info.run_id
    registry.client.log_artifacts(run, str(package), "package")
    registry.client.log_artifacts(run, str(home / "evaluation"), EVALUATION_ARTIFACT)
    registry.client.log_artifact(run, str(home / layout.PARAMS))
    tags = {
        "manifest_sha256": digest,
        "verdict": "hold",
        "verdict_sha256": "v",
        "evaluation_sha256": str(folder_digest(home / "evaluation")),
        "feedback_night": "3",
        "served_as": "adapter",
    }
    registry.promote(registry.override(registry.register(run, tags), "a test"))
    return registry


def run(*arguments: str, status: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["learn", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return dict(json.loads(done.stdout))


@pytest.fixture
def home(root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the real tokenizer, whose model is never run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(lay_project(tmp_path, root, base_model))
    return tmp_path


@pytest.fixture
def champion(home: Path, root: Path) -> Registry:
    """A champion whose weights are two words."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        write_text(home / "package/adapter" / name, "{}")
    lay_package(home / "package", [SHED], root)
    return make_champion(home, home / "package")


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the gate say this, or fail where it is told nothing."""

    def gate(outcome: str) -> None:
        def judge(before: Subject, after: Subject, kept: Path, reports: Path) -> Judgement:
            if not outcome:
                raise NoVerdict("nothing can be said")
            sides = {"candidate": Side(version=None, digest=after.digest)}
            sides["champion"] = Side(version=before.version, digest=before.digest)
            verdict = Verdict(outcome=outcome, **sides, criteria=(), reported=(), reasons=("So it is.", "Worse: A?"))
            write_json(reports / "verdict.json", verdict.model_dump(mode="json"))
            shutil.copytree(kept, reports / "evaluation/candidate")
            return Judgement(verdict, 2, 1)

        monkeypatch.setattr("flows.learn.judge_learned", judge)

    return gate


def test_without_a_champion_or_its_index_or_a_document_is_said_what_to_do(home: Path, root: Path) -> None:
    assert "make run" in run("documents", status=1)["error"]
    write_text(home / "package/adapter/adapter_model.safetensors", "{}")
    lay_package(home / "package", [SHED], root)
    registry = make_champion(home, home / "package")
    (home / "documents/sauna.md").unlink()
    error = run("documents", status=1)["error"]
    assert "no document that can be read" in error and "old.doc:1: no parser for .doc" in error
    assert "no file fence.md was learned" in run("--remove", "fence.md", status=1)["error"]
    assert "no file ../domain.yaml was learned" in run("--remove", "../domain.yaml", status=1)["error"]
    shutil.rmtree(home / "package/knowledge")
    write_manifest(home / "package")
    registry.client.log_text(registry.get("1").run_id, "", "nothing")
    run_id = registry.client.create_run(experiment_id(registry.client, home, "construction")).info.run_id
    registry.client.log_artifacts(run_id, str(home / "package"), "package")
    tags = {"manifest_sha256": verify_manifest(home / "package"), "verdict_sha256": "w", "verdict": "hold"}
    registry.promote(registry.override(registry.register(run_id, tags), "a test"))
    assert "answers without passages" in run("documents", status=1)["error"]


def test_a_dry_run_says_what_would_be_learned_and_changes_nothing(home: Path, champion: Registry) -> None:
    found = run("documents", "--dry-run")
    assert found["words"] == "would add 1 passages and remove 0" and found["added"] == {"sauna.md": 1}
    assert found["unused"] == [f"old.doc:1: {found['unused'][0].partition(': ')[2]}"]
    assert len(champion.versions()) == 1 and not KEPT.exists()


@pytest.mark.parametrize("outcome", ["hold", "reject"])
def test_what_the_gate_does_not_pass_is_registered_with_its_reasons_and_not_promoted(
    home: Path, champion: Registry, judging: Callable[[str], None], outcome: str
) -> None:
    judging(outcome)
    found = run("documents", status=2)
    assert found["words"] == f"version 2 was judged {outcome}" and "Worse: A?" in found["reasons"]
    assert champion.get("champion").number == "1" and not KEPT.exists()
    version = champion.get("2")
    assert version.tags["verdict"] == outcome and champion.verdict(version)["reasons"] == ["So it is.", "Worse: A?"]


def test_a_gate_that_fails_leaves_no_version_and_no_document(
    home: Path, champion: Registry, judging: Callable[[str], None]
) -> None:
    judging("")
    assert run("documents", status=1)["error"] == "nothing can be said"
    assert len(champion.versions()) == 1 and not KEPT.exists()


def test_a_version_that_passes_is_champion_with_all_that_its_weights_bring_until_a_rollback(
    home: Path, champion: Registry, judging: Callable[[str], None]
) -> None:
    judging("promote")
    assert run("documents")["words"] == "version 2 is champion; version 1 is previous"
    tags = champion.get("champion").tags
    assert {key: tags[key] for key in ("kind", "continues", "feedback_night", "served_as")} == {
        "kind": "knowledge",
        "continues": "1",
        "feedback_night": "3",
        "served_as": "adapter",
    }
    assert champion.client.get_run(champion.get("2").run_id).data.params["methods.lora.rank"] == "16"
    last = ledger.last(Store.open(home=home), "construction", "promoted")
    assert last is not None and (last.version, last.reason) == ("2", "flywheel learn")
    assert (home / KEPT / "sauna.md").read_text() == SAUNA
    champion.roll_back()
    assert "rolled back by a person" in run("documents", status=1)["error"]
    assert champion.get("champion").number == "1"


def test_a_document_is_learned_found_asked_about_rolled_back_and_taken_out(
    root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything real: two layers of the model, the embedder, OpenCompass. One question finds the new passage."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(lay_project(tmp_path, root, tiny_model))
    write_adapter(tmp_path / "package/adapter", tiny_model, scale=0.2)
    lay_package(tmp_path / "package", [SHED], root)
    registry = make_champion(tmp_path, tmp_path / "package")

    found = run("documents")
    assert (found["outcome"], found["version"], found["changed"]) == ("promote", "2", 1)
    champion = registry.get("champion")

    def best() -> str:
        index = fetch_weights(registry, registry.get("champion"), tmp_path) / "knowledge"
        return next((hit.passage.source for hit in Knowledge(index, count).search([QUESTION])[0]), "nothing")

    assert champion.number == "2" and best() == f"learned/sauna.md#0-{len(SAUNA)}"
    probe = fetch_probes(registry, champion, most=40)[0]
    assert probe.messages[-1]["content"] == QUESTION and probe.nll != 1.0, "it carries what it answers now"
    assert len(fetch_probes(registry, champion, most=99)) == 80

    assert run("documents")["words"] == "nothing to do: version 2 is up to date"
    assert len(registry.versions()) == 2
    registry.roll_back()
    assert best() == "nothing"
    registry.promote(registry.override(registry.get("2"), "again"))
    taken = run("--remove", "sauna.md")
    assert (taken["version"], taken["removed"], taken["changed"]) == ("3", {"sauna.md": 1}, 1)
    assert best() == "nothing" and not (tmp_path / KEPT / "sauna.md").exists()
