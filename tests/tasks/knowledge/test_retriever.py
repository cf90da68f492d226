"""The domain's embedder: what it is tuned on, that it gets no worse at that, and where there is none."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tasks.core import layout
from tasks.core.domain import EmbedderSource, load_domain
from tasks.core.records import Document, Example, Rewording, write_jsonl
from tasks.core.tables import write_records
from tasks.corpus.ingest.stage import human_examples, read_small
from tasks.knowledge.retriever.stage import MODEL, pairs, stage
from tasks.similarity.embedder import sentence_encoders
from tests.examples import an_example
from tests.laid_index import MODEL as GENERAL

pytestmark = pytest.mark.usefixtures("home")


def test_rewordings_are_paired_with_the_entries_that_are_trained_on_and_no_others() -> None:
    """`faq/2` is held out: it stands among no examples. `PBL 9` is what the entry cites, not what it is."""
    write_records(
        layout.INGEST / "examples.parquet", [an_example("Shed?", "No permit.", source=("faq/1", "PBL 9"))], Example
    )
    asked = [("faq/1", "A hut?"), ("faq/2", "A fence?"), ("PBL 9", "A law?"), ("faq/1", "A garden house?")]
    write_jsonl(
        layout.INGEST / "rewordings.jsonl", [Rewording(source=source, question=words) for source, words in asked]
    )
    assert pairs() == [("A hut?", "Shed? No permit."), ("A garden house?", "Shed? No permit.")]


def test_a_question_on_a_document_and_its_rewordings_are_paired_with_the_document() -> None:
    text = "1 §\nNo permit is needed."
    page = Document(id="0" * 64, name="law/pbl.txt", text=text, sha256=sha256(text.encode()).hexdigest())
    write_records(layout.INGEST / "documents.parquet", [page], Document)
    example = an_example("Permit?", "None.", source=("faq/1", "law/pbl.txt"))
    write_records(layout.INGEST / "examples.parquet", [example], Example)
    write_jsonl(layout.INGEST / "rewordings.jsonl", [Rewording(source="faq/1", question="Must I ask?")])
    assert pairs() == [(question, "1 § No permit is needed.") for question in ("Permit?", "Must I ask?")]


def test_a_domain_without_a_sentence_embedder_searches_by_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_domain("construction").model_copy(update={"embedder": EmbedderSource(name="characters")})
    monkeypatch.setattr("tasks.knowledge.retriever.stage.load_domain", lambda _: plain)
    assert "words alone" in stage()
    assert sorted(path.name for path in layout.RETRIEVER.iterdir()) == ["MANIFEST.json", "none.txt"]


def test_an_embedder_that_is_better_as_it_comes_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = load_domain("construction")
    plain = domain.model_copy(update={"embedder": domain.embedder.model_copy(update={"tuned": False})})
    monkeypatch.setattr("tasks.knowledge.retriever.stage.load_domain", lambda _: plain)
    write_records(layout.INGEST / "examples.parquet", [an_example("Shed?", "No.", source=("faq/1",))], Example)
    write_jsonl(layout.INGEST / "rewordings.jsonl", [Rewording(source="faq/1", question="A hut?")])
    assert stage() == "as it came"


def recall(folder: Path, found: list[tuple[str, str]]) -> float:
    """The share of questions for which their own text is the nearest of all texts."""
    texts = list(dict.fromkeys(text for _, text in found))
    encode = sentence_encoders(folder, 32, 1).question
    nearest = np.argmax(encode([question for question, _ in found]) @ encode(texts).T, axis=1)
    return float(np.mean([texts[place] == text for place, (_, text) in zip(nearest, found, strict=True)]))


@pytest.mark.slow
def test_tuning_finds_its_own_entries_no_less_often_and_gives_the_same_bytes_twice(root: Path) -> None:
    """40 rewordings of the default domain, two steps of training."""
    domain = load_domain("construction")
    examples = [one for one, receipt in human_examples(domain, [], Counter()) if receipt.kept]
    write_records(layout.INGEST / "examples.parquet", examples, Example)
    write_jsonl(layout.INGEST / "rewordings.jsonl", read_small(domain).rewordings[:40])
    found = pairs()
    assert len(found) == 40
    assert stage().endswith("tuned on 40 questions in other words")
    manifest = (layout.RETRIEVER / "MANIFEST.json").read_bytes()
    assert recall(layout.RETRIEVER / MODEL, found) >= recall(root / GENERAL, found) > 0.5
    assert not any("scratch" in path.parts and path.is_file() for path in layout.RETRIEVER.rglob("*"))
    weights = (layout.RETRIEVER / MODEL / "model.safetensors").stat().st_size
    assert weights < 0.6 * (root / GENERAL / "model.safetensors").stat().st_size, "kept in half the precision"
    stage()
    assert (layout.RETRIEVER / "MANIFEST.json").read_bytes() == manifest
