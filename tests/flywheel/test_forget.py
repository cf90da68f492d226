"""`flywheel forget` on a real registry, database and DVC cache: what goes, what is marked, and what proves it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from sqlalchemy import select

from flows import forget as flow
from flows.learn import NothingToLearn, _champion
from flows.nightly import Work, point_at
from flywheel.cli import main
from tasks.core import layout
from tasks.core.domain import LEARNED_FOLDER
from tasks.core.files import write_json
from tasks.core.params import load_params
from tasks.core.pointers import FeedbackPointer, StartPoint, read_feedback_pointer
from tasks.core.records import Example, Message, Reaction, Receipt, make_passage, write_jsonl
from tasks.core.tables import table_of, write_records
from tasks.corpus.feedback.stage import read_snapshot, write_snapshot
from tasks.corpus.reading.forgotten import FORGOTTEN
from tasks.curate.receipt.stage import content_schema, join
from tasks.registry.backup import ARTIFACTS, move_addresses
from tasks.registry.versions import FORGET, PromotionRefused, Registry
from tasks.store.answers import FeedbackIn, get_feedback, record_feedback
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.nights import open_night
from tasks.store.schema import FeedbackRow, Night
from tasks.store.store import Store
from tests.answers import serve_answer
from tests.examples import an_example
from tests.mlflow_store import DATABASE, lay_mlflow
from tests.tasks.registry.registered import judged

STORE = layout.STORE / "flywheel.db"
WORDS = "Anna keeps the key under the mat."
FAQ = an_example("Who decides?", "The board.", source=("faq/7", "the statutes"))


def sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass
class World:
    """Anna's correction and Bo's in one snapshot; version 1 learnt nothing of Anna's, 2 learnt it, 3 goes on from 2."""

    home: Path
    registry: Registry
    store: Store
    said: FeedbackRow
    kept: FeedbackRow

    def run(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        done = CliRunner().invoke(main, ["forget", "--json", *arguments])
        assert done.exit_code == status, done.output
        return dict(json.loads(done.stdout or done.output))

    def tag(self, number: str) -> str | None:
        return self.registry.get(number).tags.get(FORGET)

    def register(self, letter: str, examples: dict[str, Any], passages: list[Any], continues: str, **more: Any) -> None:
        """A version with a receipt (id → feedback row or what is said), an index, and reports; made champion."""
        champion = self.registry.alias("champion")
        version = judged(self.registry, letter, **({"against": champion.manifest} if champion else {}))
        client, run, folder = self.registry.client, version.run_id, self.home / "scratch"
        write_receipt(folder / "receipt.parquet", examples)
        write_records(folder / "package/knowledge/passages.parquet", passages, type(self.passage("")))
        (folder / "reports").mkdir()
        shutil.copy(folder / "receipt.parquet", folder / "reports")
        for name in ("package", "reports"):
            client.log_artifacts(run, str(folder / name), name)
        client.log_artifact(run, str(folder / "receipt.parquet"))
        shutil.rmtree(folder)
        for name, value in {"continues": continues, **more}.items():
            client.set_model_version_tag(self.registry.domain, version.number, name, value)
        self.registry.promote(self.registry.get(version.number))

    def passage(self, source: str, text: str = WORDS) -> Any:
        return make_passage(kind="correction", question="Where is the key?", text=text, source=source)

    def artifacts(self, number: str, under: str | None = None) -> set[str]:
        return {item.path for item in self.registry.client.list_artifacts(self.registry.get(number).run_id, under)}


def write_receipt(path: Path, examples: dict[str, Any]) -> None:
    """Trained examples: of a feedback row's id, or an Example that people wrote."""
    path.parent.mkdir(parents=True)
    steps = [
        Receipt(example_id=i, stage="feedback" if isinstance(of, str) else "ingest", kept=True, reason="said",
                detail=of if isinstance(of, str) else "")
        for i, of in examples.items()
    ]  # fmt: skip
    told = [
        {"id": i, "origin": "feedback", "source": [f"feedback:{of}"], "instruction": "", "output": ""}
        if isinstance(of, str)
        else {"id": i, "origin": "human", "source": list(of.source), "instruction": of.instruction, "output": of.output}
        for i, of in examples.items()
    ]
    contents = pa.Table.from_pylist(told, schema=content_schema())
    pq.write_table(join(table_of(steps, Receipt), contents, pa.array(list(examples))), path)


def reaction(row: FeedbackRow, text: str) -> Reaction:
    asked = (Message(role="user", content="Where is the key?"),)
    fields = {"seq": row.seq, "id": row.id, "night": 1, "identity": row.identity_id, "kind": "correction"}
    return Reaction(**fields, text=text, answer_id="a", messages=asked, answer="No.", version="1", digest="")


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The home of a world, to be copied."""
    home = lay_mlflow(tmp_path_factory.mktemp("laid"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (home / "params.yaml").write_text((root / "params.yaml").read_text())
        migrate(f"sqlite:///{home / STORE}")
        domain = load_params(home / layout.PARAMS).domain
        with contextlib.closing(Store.open(f"sqlite:///{home / STORE}")) as store:
            for name, text in (("anna", WORDS), ("bo", "In the office.")):
                person, _ = create_identity(store, name, "chat")
                answer = serve_answer(store, person, domain=domain)
                record_feedback(store, person, FeedbackIn("k", answer.id, "correction", text=text))
            open_night(store, domain, "run")
            lay_files(world_of(home, store))
    return home


def world_of(home: Path, store: Store) -> World:
    with store.read() as session:
        said, kept = session.scalars(select(FeedbackRow).order_by(FeedbackRow.seq))
    return World(home, Registry(said.domain, home), store, said, kept)


@pytest.fixture
def world(laid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("MLFLOW_TRACKING_URI", "FLYWHEEL_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("FLYWHEEL_ROOT", str(home))
    shutil.copytree(laid, home)
    _artifact_repos_cache.clear()  # MLflow's, by run: each test has a copy of the same runs
    move_addresses(home / DATABASE, *((place / ARTIFACTS).as_uri() for place in (laid, home)))
    with contextlib.closing(Store.open(home=home)) as store:
        yield world_of(home, store)


def lay_files(world: World) -> None:
    """Three versions; the snapshot with its pointer; what a stage made of it, in DVC's cache and in its remote."""
    secret, office = world.passage(f"feedback:{world.said.id}"), world.passage(f"feedback:{world.kept.id}", "There.")
    faq = make_passage(kind="question", question=FAQ.instruction, text=FAQ.output, source="faq/7")
    world.register("1", {"a" * 64: world.kept.id}, [office], "base")
    world.register("2", {"b" * 64: world.said.id, FAQ.id: FAQ}, [office, secret, faq], "1")
    world.register("3", {"c" * 64: world.kept.id}, [office], "2")
    digest = write_snapshot([reaction(world.said, WORDS), reaction(world.kept, "In the office.")], world.home)
    points = [StartPoint(version=n, digest=n * 64) for n in ("3", "1")]
    pointer = FeedbackPointer(count=2, digest=digest, watermark=1, start=points[0], origin=points[1])
    write_json(world.home / layout.FEEDBACK_POINTER, pointer.model_dump(mode="json"))
    examples = [
        an_example("Where is the key?", WORDS, origin="feedback", source=(f"feedback:{world.said.id}", "night:1")),
        an_example("Where is the key?", "There.", origin="feedback", source=(f"feedback:{world.kept.id}", "night:1")),
    ]
    for name, part in {"both": examples, "kept": examples[1:], "faq": [FAQ]}.items():
        write_records(world.home / f"data/{name}/examples.parquet", part, Example)
    (world.home / "data/both/mix.jsonl").write_text(json.dumps(examples[0].model_dump()) + "\n" + "{}\n")
    for name, row in {"both": world.said, "kept": world.kept}.items():
        words = {examples[name == "kept"].id: "Which mat?", "other_words": [f"feedback:{row.id}"]}
        write_json(world.home / f"data/{name}/other_words.json", words)
    (world.home / "data/both/ids.json").write_text(json.dumps([world.said.id]))


def cached(world: World) -> tuple[Callable[[], set[str]], str]:
    """Put data/both and data/kept into DVC's cache and a remote; tells what is there, and the object that is Anna's."""

    def dvc(*arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", "-q", *arguments]
        subprocess.run(command, cwd=world.home, check=True, env=layout.child_environment())

    dvc("init", "--no-scm")
    dvc("remote", "add", "-d", "far", str(world.home / "far"))
    dvc("add", "data/both", "data/kept")
    dvc("push")
    of = hashlib.md5((world.home / "data/both/examples.parquet").read_bytes(), usedforsecurity=False).hexdigest()

    def objects() -> set[str]:
        places = (world.home / ".dvc/cache/files/md5", world.home / "far/files/md5")
        return {
            "/".join([place.parts[-3], one.parent.name + one.name])
            for place in places
            for one in place.rglob("*")
            if one.is_file()
        }

    return objects, of


def test_a_correction_goes_from_database_snapshot_files_cache_and_remote_and_its_versions_are_marked(
    world: World,
) -> None:
    objects, secret = cached(world)
    before, old = objects(), read_feedback_pointer(world.home)
    told = world.run("--feedback", world.said.id)
    assert (told["rows"], [one["version"] for one in told["versions"]]) == ({"passages": 0, "feedback": 1}, ["3", "2"])
    assert (told["snapshots"], len(told["objects"])) == ([old.digest], 6)
    assert objects() == before and get_feedback(world.store, world.said.id) and world.tag("2") is None

    found = world.run("--feedback", world.said.id, "--yes")
    assert get_feedback(world.store, world.said.id) is None
    pointer = read_feedback_pointer(world.home)
    assert (pointer.count, pointer.watermark, pointer.start, pointer.origin) == (1, 1, None, None)
    assert [row.id for row in read_snapshot(pointer, world.home)] == [world.kept.id]
    assert [path.name for path in (world.home / layout.FEEDBACK_SNAPSHOTS).iterdir()] == [pointer.digest]
    gone = before - objects()
    assert {f"cache/{secret}", f"far/{secret}"} < gone and len(gone) == 6, (
        "the Parquet file, the lines, the words, twice"
    )
    left = sorted(path.name for path in (world.home / "data").glob("*/*"))
    assert left == ["examples.parquet", "examples.parquet", "ids.json", "other_words.json"]
    assert [world.tag(number) for number in "123"] == [None, found["certificate"], found["certificate"]]
    why = {one["version"]: (one["why"], one["manifest_sha256"]) for one in found["versions"]}
    assert why == {"2": ("learnt it", "2" * 64), "3": ("goes on from version 2", "3" * 64)}
    written = (world.home / flow.CERTIFICATES / f"{found['certificate']}.json").read_text()
    assert json.loads(written) == found and found["sha256"] == sha256(world.said.id)
    assert world.said.id not in written and WORDS not in written and "mat" not in written
    assert not (world.home / FORGOTTEN).exists(), "no stage has to leave out what no snapshot holds"


def test_what_a_release_has_to_replace_is_named_and_goes_when_it_has(world: World) -> None:
    number = world.run("--feedback", world.said.id, "--yes")["certificate"]
    held = world.run("--verify", number, status=2)["held_by"]
    assert held == [f"version 3 of {world.registry.domain}, the champion: goes on from version 2"]
    assert "package" in world.artifacts("2")
    weights = world.home / layout.WEIGHTS / ("2" * 64)
    weights.mkdir(parents=True)

    world.register("4", {"a" * 64: world.kept.id}, [], "base")
    assert world.run("--verify", number)["held_by"] == []
    left = world.run("--feedback", world.said.id, "--yes")
    assert left["certificate"] == number and [one["version"] for one in left["versions"]] == ["3", "2"]
    assert world.artifacts("2") == {"receipt.parquet", "verdict.json"} and not weights.exists()
    assert {"package", "reports"} < world.artifacts("1")
    assert not any("champion" in one for one in left["remaining"])


def test_a_marked_version_is_neither_rolled_back_to_nor_promoted_but_by_an_override(world: World) -> None:
    registry = world.registry
    registry.override(registry.get("2"), "it was good once")
    world.run("--feedback", world.said.id, "--yes")
    with pytest.raises(PromotionRefused, match="knows what was forgotten"):
        registry.promote(registry.get("2"))
    new, old = registry.roll_back(["2", "1"])
    assert (new.number, old.number) == ("1", "3"), "version 2 is previous, and marked"
    registry.promote(registry.override(registry.get("2"), "the board wants it"))
    assert registry.get("champion").number == "2"


def test_the_next_night_starts_from_the_base_model_and_judges_against_the_champion(world: World) -> None:
    world.run("--feedback", world.said.id, "--yes")
    params = load_params(world.home / layout.PARAMS)
    work = Work(flow.Workspace(world.home, world.home), None, params, world.store, world.registry, "run")
    night = Night(domain=params.domain, started_at=world.kept.created_at, flow_run_id="run")
    night.number = 2
    pointer = point_at(work, night, 1, "e" * 64)
    assert (pointer.start, pointer.origin, pointer.watermark) == (None, None, 2)


def test_a_champion_that_knows_what_was_forgotten_learns_no_documents(world: World) -> None:
    world.run("--feedback", world.said.id, "--yes")
    with pytest.raises(NothingToLearn, match="knows what was forgotten"):
        _champion(world.registry)


def test_the_worktree_of_a_deployment_is_told_too_and_its_branch_keeps_it(world: World) -> None:
    domain, tree = world.registry.domain, world.home / layout.WORKSPACES / world.registry.domain

    def git(*arguments: str, root: Path = world.home) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        return subprocess.check_output(["git", *who, *arguments], cwd=root, text=True)

    git("init", "-q", "-b", "main")
    (world.home / ".gitignore").write_text("/.flywheel/\n/data/\n")
    git("add", "-A")
    git("commit", "-qm", "start")
    git("worktree", "add", "-q", "-b", f"release/{domain}", str(tree))
    learned = tree / layout.DOMAINS / domain / LEARNED_FOLDER / "faq.pdf"
    learned.parent.mkdir(parents=True)
    learned.write_text("Anna")
    shutil.copytree(world.home / "data/both", tree / "data/both")
    world.run("--feedback", world.said.id, "--yes")
    world.run("--example", FAQ.id, "--yes")
    assert read_feedback_pointer(tree).count == read_feedback_pointer(world.home).count == 1
    assert (tree / FORGOTTEN).read_text() == (world.home / FORGOTTEN).read_text() != "[]\n"
    assert git("status", "--porcelain", "state", root=tree) == ""
    assert sorted(path.name for path in (tree / "data/both").iterdir()) == ["ids.json"]
    assert learned.exists()
    (world.home / "data/faq").mkdir(exist_ok=True)
    world.run("--source", "learned/faq.pdf", "--yes")
    assert not learned.exists()


def test_an_example_goes_with_the_row_it_was_read_from(world: World) -> None:
    found = world.run("--example", FAQ.id, "--yes")
    hashes = json.loads((world.home / FORGOTTEN).read_text())
    assert hashes == sorted([sha256(FAQ.id), sha256("faq/7")]) == found["names"][world.registry.domain]
    assert [world.tag(number) is None for number in "123"] == [True, False, False]
    assert not (world.home / "data/faq/examples.parquet").exists()
    assert (world.home / "data/both/examples.parquet").exists()
    run = world.registry.get("2").run_id
    path = world.registry.client.download_artifacts(run, "receipt.parquet", str(world.home))
    rows = {row["example_id"]: row for row in pq.read_table(path).to_pylist()}
    assert (rows[FAQ.id]["instruction"], rows[FAQ.id]["trained"]) == (None, True), "its id stays, as the proof"
    assert "reports/receipt.parquet" not in world.artifacts("2", "reports")


@pytest.mark.parametrize("name, versions", [("faq", ["3", "2"]), ("faq/7", ["3", "2"]), ("faq/70", None), ("fa", None)])
def test_a_source_is_found_by_its_name_or_that_of_a_part(world: World, name: str, versions: list[str] | None) -> None:
    if versions is None:
        assert "nothing here is called so" in world.run("--source", name, status=1)["error"]
        return
    assert [one["version"] for one in world.run("--source", name)["versions"]] == versions


def test_a_person_goes_and_only_the_hash_of_the_name_stays(world: World) -> None:
    found = world.run("--identity", "anna", "--yes")
    assert found["rows"]["feedback"] == 1 and found["sha256"] == sha256("anna")
    assert [one["version"] for one in found["versions"]] == ["3", "2"]
    assert "anna" not in json.dumps(found)


@pytest.mark.parametrize("step", ["_mark", "_bring_state", "_purge", "_purge_versions", "_certificate"])
def test_killed_on_the_way_the_same_again_goes_on(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(flow, step, lambda *_: sys.exit("killed"))
        assert CliRunner().invoke(main, ["forget", "--identity", "anna", "--yes"]).exit_code == 1
    assert get_feedback(world.store, world.said.id) is None
    assert list((world.home / flow.CERTIFICATES).glob("*.json")) == []
    old = read_feedback_pointer(world.home).digest
    found = world.run("--identity", "anna", "--yes")
    assert found["rows"]["feedback"] == 1 and len(found["snapshots"]) == 1 and len(found["files"]) == 3
    assert read_feedback_pointer(world.home).count == 1
    assert old is not None and [path.suffix for path in (world.home / flow.CERTIFICATES).iterdir()] == [".json"]
    assert world.run("--identity", "anna", "--yes")["certificate"] == found["certificate"]


def test_verifying_says_what_came_back(world: World) -> None:
    number = world.run("--feedback", world.said.id, "--yes")["certificate"]
    world.register("4", {"d" * 64: world.said.id}, [], "base")
    write_jsonl(world.home / "data/kept/back.jsonl", [reaction(world.said, WORDS)])
    write_json(
        world.home / "data/feedback/other_words.json", {"e" * 64: "Mat?", "other_words": [f"feedback:{world.said.id}"]}
    )
    assert world.run("--verify", number, status=2)["held_by"] == [
        "a file: data/feedback/other_words.json",
        "a file: data/kept/back.jsonl",
        f"version 4 of {world.registry.domain}, which is not marked: learnt it",
    ]


@pytest.mark.parametrize(
    "asked, error",
    [
        (("--identity", "eve"), "nothing here is called so"),
        (("--feedback", "fb_none"), "nothing here is called so"),
        (("--example", "abcdef12"), "give its whole id"),
        (("--source", "feedback:fb_1"), "is no source"),
        (("--source", "law/a.pdf#0-9"), "is no source"),
        (("--verify", "20261127-0"), "those that are: none"),
    ],
)
def test_what_is_not_there_is_refused(world: World, asked: tuple[str, str], error: str) -> None:
    assert error in world.run(*asked, "--yes" if asked[0] != "--verify" else "--json", status=1)["error"]


def test_one_thing_is_named() -> None:
    done = CliRunner().invoke(main, ["forget", "--identity", "a", "--feedback", "b"])
    assert done.exit_code == 2 and "name one of" in done.output
