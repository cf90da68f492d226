"""What examples mean, as unit vectors, in any language."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.domain import Domain, EmbedderSource, load_domain
from tasks.core.params import load_params
from tasks.core.records import Example, Turn, make_item, write_jsonl
from tasks.core.tables import write_records
from tasks.curate.embed import stage
from tasks.similarity.embedder import (
    CHARACTER_COSINES,
    SENTENCES,
    CharacterModel,
    EmbeddingError,
    Embeddings,
    cosines,
    embed_texts,
    embeddings_table,
    encoder,
    question_text,
    read_embeddings,
    settled,
    whole_text,
)
from tasks.similarity.neighbours import GRID, on_grid
from tests.examples import an_example
from tests.planted import FOLDER

PARAMS = load_params().embed
ITEM = make_item(set="mmlu", prompt="2 + 2?", choices=("3", "4"), answer=1)


def domain_with(**embedder: object) -> Domain:
    return load_domain("construction").model_copy(update={"embedder": EmbedderSource(**embedder)})


def chinese() -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / "paraphrases.zh.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_question_is_asked_after_its_earlier_turns() -> None:
    made = an_example("And then?", "b", input="a", history=(Turn(user="u", assistant="v"),))
    assert question_text(made) == "u\nv\nAnd then?\n\na" and whole_text(made) == "u\nv\nAnd then?\n\na\nb"


def test_characters_find_chinese_paraphrases_without_a_model() -> None:
    """Of 42 hand-written pairs: the right one is nearest for 9 in 10 wholes; two runs give the same vectors."""
    rows = chinese()
    wholes = [f"{row['question']}\n{row['answer']}" for row in rows]
    others = [f"{row['paraphrase']}\n{row['paraphrase_answer']}" for row in rows]
    domain = domain_with(name="characters")
    vectors = embed_texts(wholes + others, domain, PARAMS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.02)
    nearest = (vectors[:42] @ vectors[42:].T).argmax(axis=1)
    assert (nearest == np.arange(42)).mean() >= 0.9
    assert np.array_equal(vectors, embed_texts(wholes + others, domain, PARAMS))


def test_the_last_bits_of_a_processor_leave_no_mark() -> None:
    """400 texts on two processors, whose float32 vectors are off by up to 4e-7 each; one of them is always in doubt."""
    generator = np.random.default_rng(3)
    truth = generator.normal(size=(400, 384)) / 384**0.5
    truth[7, 0] = 20.5 / GRID + 1e-9
    asked: list[int] = []

    def exact(texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        return truth[[int(text) for text in texts]] + generator.uniform(-1e-15, 1e-15, size=(len(texts), 384))

    def quick(texts: Sequence[str]) -> np.ndarray:
        return (truth + generator.uniform(-4e-7, 4e-7, size=truth.shape)).astype(np.float32)

    texts = [str(number) for number in range(400)]
    one, other = settled(texts, quick, exact), settled(texts, quick, exact)
    assert one.tobytes() == other.tobytes() == on_grid(truth).tobytes()
    assert one[7, 0] == 21 / GRID and all(0 < count < 100 for count in asked)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_any_text_has_a_unit_vector(texts: list[str]) -> None:
    vectors = CharacterModel(["some corpus", "另一个语料", "third"])(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_thresholds_stand_with_the_embedder() -> None:
    assert cosines(load_domain("construction")) == SENTENCES._replace(answer=0.44)
    assert cosines(domain_with(name="characters")) == CHARACTER_COSINES
    given = cosines(domain_with(name="characters", same_cosine=0.5, answer_score=0.3))
    assert given == CHARACTER_COSINES._replace(same=0.5, answer=0.3)


def test_an_embedder_without_files_is_refused_by_name() -> None:
    with pytest.raises(EmbeddingError, match="my-model"):
        encoder(domain_with(name="my-model"), PARAMS, [])


def test_a_text_is_encoded_once_and_rows_are_found_by_id() -> None:
    seen: list[str] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.eye(4, dtype=np.float32)[: len(texts)]

    table = embeddings_table([("i", "q", "w"), ("j", "q", "v")], encode)
    assert seen == ["q", "w", "v"]
    assert table.schema.field("whole").type.list_size == 4
    assert table["question"].to_pylist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    known = Embeddings(["i", "j"], np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]))
    question, whole = known.rows(["j", "i", "j"])
    assert question.tolist() == [[2], [1], [2]] and whole.tolist() == [[4], [3], [4]]
    with pytest.raises(EmbeddingError, match="ffff"):
        known.rows(["f" * 64])


def test_the_stage_embeds_rows_pools_and_items_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_, domain = load_params(), domain_with(name="characters")
    monkeypatch.setattr(stage, "load_params", lambda: settings_)
    monkeypatch.setattr(stage, "load_domain", lambda name: domain)
    monkeypatch.chdir(tmp_path)
    rows = [an_example(row["question"], row["answer"], language="zh") for row in chinese()]
    write_records(layout.VALIDATE / "examples.parquet", rows, Example)
    write_records(layout.VALIDATE / "general.parquet", rows[:2], Example)
    write_records(layout.VALIDATE / "safety.parquet", [], Example)
    for name in layout.EVALUATION_SETS:
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", [ITEM] if name == ITEM.set else [])
    assert stage.embed() == "45 rows embedded by characters"
    found = read_embeddings(layout.EMBED / "examples.parquet")
    assert found.ids == [row.id for row in rows] and found.whole.shape == found.question.shape
    assert read_embeddings(layout.EMBED / "safety.parquet").ids == []
    assert len(read_embeddings(layout.EMBED / "evaluation.parquet").rows([ITEM.id])[0]) == 1
