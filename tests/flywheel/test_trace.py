"""From an answer back to the corrections behind it: real registry, real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.trace import NothingToTrace, example_words, trace
from tasks.core.records import Receipt, make_passage
from tasks.core.tables import table_of
from tasks.curate.receipt.stage import content_schema, join
from tasks.registry.versions import Registry
from tasks.store.answers import FeedbackIn, record_feedback
from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.schema import Identity
from tasks.store.store import Store
from tests.answers import serve_answer
from tests.mlflow_store import lay_mlflow
from tests.tasks.registry.registered import judged

EXAMPLE, OTHER = "e" * 64, "f" * 64


@dataclass
class World:
    """Version 2 goes on from version 1; version 1 learnt `first`, version 2 learnt `second`."""

    registry: Registry
    store: Store
    person: Identity
    first: str = ""
    second: str = ""

    def serve(self, number: int, question: str, version: str, digest: str) -> str:
        asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
        served = {"domain": self.registry.domain, "version": version, "digest": digest, "text": "Poor."}
        return serve_answer(self.store, self.person, id=f"chatcmpl-{number}", messages=asked, **served).id

    def correct(self, number: int, question: str, text: str) -> str:
        answer = self.serve(number, question, "base", "")
        said = FeedbackIn(key=answer, answer_id=answer, kind="correction", text=text, other_words="And so?")
        return record_feedback(self.store, self.person, said)[0].id

    def register(self, package: str, feedback: str, example: str, continues: str, folder: Path) -> None:
        version = judged(self.registry, package)
        receipt = Receipt(example_id=example, stage="feedback", kept=True, reason="said", detail=feedback)
        said = {"id": example, "origin": "human", "source": ["faq/1"], "instruction": "Who decides?", "output": "They."}
        rows = join(
            table_of([receipt], Receipt), pa.Table.from_pylist([said], schema=content_schema()), pa.array([example])
        )
        pq.write_table(rows, folder / "receipt.parquet")
        self.registry.client.log_artifact(version.run_id, str(folder / "receipt.parquet"))
        self.registry.client.set_model_version_tag(self.registry.domain, version.number, "continues", continues)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("trace")
    url = f"sqlite:///{folder / 'store.db'}"
    migrate(url)
    store = Store.open(url)
    person, _ = create_identity(store, "anna", "chat")
    world = World(Registry("toy", lay_mlflow(folder)), store, person)
    first = world.correct(1, "Who approves changes to the drawings?", "The design lead.")
    second = world.correct(2, "Which helmet do visitors wear?", "An orange one.")
    world.register("1", first, EXAMPLE, "base", folder)
    world.register("2", second, OTHER, "1", folder)
    yield replace(world, first=first, second=second)
    store.close()


def test_an_answer_leads_to_the_corrections_its_version_and_those_before_it_had_learnt(world: World) -> None:
    answer = world.serve(3, "Who approves a change to the drawings?", "2", "2" * 64)
    story = trace(world.registry, world.store, answer)
    assert (story["kind"], story["version"], story["corrections_learnt"]) == ("answer", "2", 2)
    nearest = story["corrections"][0]
    assert (nearest["feedback"], nearest["correction"]) == (world.first, "The design lead.")
    assert (nearest["learnt_by_version"], nearest["example"], nearest["of_answer"]) == ("1", EXAMPLE, "chatcmpl-1")


def test_an_answer_of_the_base_model_has_no_correction_behind_it(world: World) -> None:
    story = trace(world.registry, world.store, "chatcmpl-1")
    assert story["corrections"] == [] and [item["feedback"] for item in story["feedback"]] == [world.first]


def test_an_answer_leads_to_its_passages_and_to_what_its_version_learnt_of_them(world: World) -> None:
    shown = [
        {**make_passage(kind="question", question="Who?", text="They.", source=source).model_dump(), "score": 0.7}
        for source in ("faq/1", "faq/2")
    ]
    served = {"domain": "toy", "version": "2", "digest": "2" * 64, "text": "They. [2]", "passages": shown}
    answer = serve_answer(world.store, world.person, **served).id
    first, second = trace(world.registry, world.store, answer)["passages"]
    assert (first["number"], first["source"], first["cited"], first["examples"]) == (1, "faq/1", False, [OTHER])
    assert (second["number"], second["source"], second["cited"], second["examples"]) == (2, "faq/2", True, [])


def test_a_correction_leads_to_the_versions_that_learnt_it(world: World) -> None:
    story = trace(world.registry, world.store, world.second)
    assert (story["kind"], story["question"]) == ("feedback", "Which helmet do visitors wear?")
    assert (story["text"], story["other_words"]) == ("An orange one.", "And so?")
    assert story["learnt_by"] == [{"version": "2", "example": OTHER}]


def test_an_example_is_found_by_the_beginning_of_its_id(world: World) -> None:
    story = trace(world.registry, world.store, EXAMPLE[:8])
    assert (story["example"], story["trained_by"]) == (EXAMPLE, ["1"])
    words = "\n".join(example_words(story))
    assert "Who decides?" in words and "faq/1" in words and f"feedback   kept     said ({world.first})" in words


def test_an_example_that_only_the_last_run_here_saw_is_found_too_and_those_like_it_are_named(
    world: World, tmp_path: Path
) -> None:
    unseen = ["abcdef12" + digit * 56 for digit in "34"]
    steps = [Receipt(example_id=i, stage="construct", kept=False, reason="not grounded", score=0.25) for i in unseen]
    rows = join(table_of(steps, Receipt), content_schema().empty_table(), pa.array([], type=pa.string()))
    pq.write_table(rows, tmp_path / "receipt.parquet")
    story = trace(world.registry, world.store, "abcdef12", tmp_path / "receipt.parquet")
    assert (story["example"], story["others"], story["trained_by"]) == (unseen[0], [unseen[1]], [])
    assert (story["seen_by"], story["last_word"]) == ("the last run here", "construct: not grounded")
    assert "  construct  dropped  not grounded 0.25" in list(example_words(story))


@pytest.mark.parametrize("identity", ["chatcmpl-forged", "eeee", "9", "' OR 1=1 --"])
def test_what_is_not_there_is_said_to_be_nothing(world: World, identity: str) -> None:
    with pytest.raises(NothingToTrace, match="no answer, feedback row, example or version"):
        trace(world.registry, world.store, identity)
