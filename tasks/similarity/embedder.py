"""Texts as unit vectors: any sentence-transformers folder that domain.yaml names, or `characters` where there is none.

Vectors lie on the grid of neighbours.py and are the same on every processor: no last bit of a float decides what is
written or dropped. Limits: docs/data.md has how much each embedder finds.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.errors import FlywheelError
from tasks.core.params import EmbedParams
from tasks.core.records import EvaluationItem, Example, make_example, make_item, read_own_jsonl
from tasks.core.tables import read_batches
from tasks.similarity.nano_e5 import sentence_folder
from tasks.similarity.near import normalise
from tasks.similarity.neighbours import GRID, on_grid

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHARACTERS = "characters"
DOUBT = 5e-7  # what a component in float32 is surely less off by; 1.4e-7 is the most that was measured of 230,000
Encode = Callable[[Sequence[str]], "np.ndarray"]
SLACK = 0.1
DIMENSIONS = 128
TEXTS_A_DIMENSION = 4  # or a small corpus has an axis for every text, and no two texts are alike
FEATURES = 1 << 16
FIT = 20_000


class EmbeddingError(FlywheelError):
    """A text has no embedding, or there is nothing to embed with."""


class Cosines(NamedTuple):
    """Cosine of two wholes from where on they are duplicates, and from where on one leaks the other.

    Questions are shorter, and with the same answer less alike: duplicates' questions may be `SLACK` further apart. A
    question alone leaks an item from `SLACK` nearer on. A passage that scores less than `answer` answers no question;
    of two whose scores are no further apart than `margin` either may be the one that answers.
    In two wordings of one question every word is met by one of the other's with `word` or more: the least that kept
    neighbouring questions out.
    """

    same: float
    leak: float
    answer: float
    margin: float
    word: float


# MiniLM on docs/data.md's pairs and docs/knowledge.md's questions; by `characters` no passage is searched.
SENTENCES = Cosines(same=0.85, leak=0.75, answer=0.46, margin=0.1, word=0.42)
CHARACTER_COSINES = Cosines(same=0.8, leak=0.7, answer=0.0, margin=0.02, word=1.0)


class Encoders(NamedTuple):
    """From texts to unit vectors on the grid: of questions, or of any texts to compare, and of what answers them.

    Some models are told which of the two a text is; to the others it is all the same.
    """

    question: Encode
    passage: Encode


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors of questions and of wholes, float32 of shape (rows, dimensions) each, by id."""

    ids: list[str]
    question: np.ndarray
    whole: np.ndarray

    def rows(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of these ids, in their order. Raises EmbeddingError: an id is not known."""
        try:
            places = [self._place[identity] for identity in ids]
        except KeyError as error:
            raise EmbeddingError(f"{str(error)[1:13]}… has no embedding; run dvc repro") from None
        return self.question[places], self.whole[places]

    @cached_property
    def _place(self) -> dict[str, int]:
        return {identity: place for place, identity in enumerate(self.ids)}


def question_text(example: Example) -> str:
    """What an example asks: its earlier turns, then its prompt. The same words mean another thing after other turns."""
    turns = [text for turn in example.history for text in (turn.user, turn.assistant)]
    return "\n".join([*turns, example.prompt])


def whole_text(example: Example) -> str:
    """What an example asks and answers."""
    return f"{question_text(example)}\n{example.output}"


def last_exchanges(example: Example) -> list[Example]:
    """The example without its earlier turns, where it has any: beside them an evaluation item is hard to see."""
    if not example.history:
        return []
    return [make_example(**example.model_dump(exclude={"id", "history"}))]


def encoder(domain: Domain, params: EmbedParams, corpus: Iterable[str]) -> Encode:
    """A function from texts to unit vectors on the grid, float32 of shape (texts, dimensions), loaded or fitted once.

    `corpus` are the texts of the run, on which `characters` is fitted. Raises EmbeddingError: domain.yaml names no
    model, nor `characters`.
    """

    def cut(texts: Iterable[str]) -> list[str]:
        return [text[: params.max_characters] for text in texts]

    if domain.embedder.files:
        encode = sentence_encoders(embedder_folder(domain), params.batch_size, params.threads).question
        return lambda texts: encode(cut(texts))
    if domain.embedder.name != CHARACTERS:
        raise EmbeddingError(f"embedder {domain.embedder.name} in domain.yaml has no files; name its modules.json")
    from tasks.similarity.embedder import CharacterModel

    model = CharacterModel(cut(corpus))
    return lambda texts: on_grid(model(cut(texts)))


def embed_texts(texts: Sequence[str], domain: Domain, params: EmbedParams) -> np.ndarray:
    """Unit vectors of texts, float32 (texts, dimensions), by the domain's model or `characters` fitted on them."""
    return _encode_unique(encoder(domain, params, texts), texts)


def cosines(domain: Domain) -> Cosines:
    """The embedder's thresholds: what domain.yaml says, or what was measured for its kind."""
    embedder = domain.embedder
    measured = SENTENCES if embedder.files else CHARACTER_COSINES
    own = {
        "same": embedder.same_cosine,
        "leak": embedder.leak_cosine,
        "answer": embedder.answer_score,
        "margin": embedder.answer_margin,
        "word": embedder.word_cosine,
    }
    return measured._replace(**{name: value for name, value in own.items() if value is not None})


def embedder_folder(domain: Domain) -> Path:
    """The sentence-transformers folder of a domain that has one; made, where it comes as weights with a tokenizer."""
    first, *tokenizer = domain.paths(domain.embedder)
    return sentence_folder(first, *tokenizer) if tokenizer else first.parent


def settled(texts: Sequence[str], quick: Encode, exact: Encode) -> np.ndarray:
    """The texts' vectors on the grid, as `exact` (float64) says, by `quick` (float32) where it can only say the same.

    That is where no component lies within `DOUBT` of the middle between two points: last bits go by the processor.
    """
    vectors = np.asarray(quick(texts), dtype=np.float64)
    unsure = np.flatnonzero((np.abs(vectors * GRID % 1 - 0.5) <= DOUBT * GRID).any(axis=1))
    if len(unsure):
        vectors[unsure] = exact([texts[int(row)] for row in unsure])
    return on_grid(vectors)


def sentence_encoders(folder: Path, batch_size: int, threads: int) -> Encoders:
    """The sentence-transformers model in `folder`, as functions from texts to unit vectors on the grid."""
    import torch

    torch.set_num_threads(threads)
    return model_encoders(load_sentence_model(folder), batch_size)


def model_encoders(model: SentenceTransformer, batch_size: int) -> Encoders:
    """A loaded model as such functions."""
    settings = {"batch_size": batch_size, "normalize_embeddings": True, "show_progress_bar": False}
    double = deepcopy(model).double()

    def encode(texts: Sequence[str], how: Literal["encode_query", "encode_document"]) -> np.ndarray:
        quick, exact = (partial(getattr(one, how), **settings) for one in (model, double))
        return settled(list(texts), quick, exact)

    return Encoders(partial(encode, how="encode_query"), partial(encode, how="encode_document"))


def word_vectors(model: SentenceTransformer, texts: Sequence[str]) -> list[np.ndarray]:
    """Unit vectors of the pieces of each text's words, in their context; marks and special tokens have none."""
    found, special = [], set(model.tokenizer.all_special_tokens)
    # Cut and filled up as `encode` does: a tokenizer whose settings change cannot be used by two threads at once.
    cut = model.preprocess(list(texts))["input_ids"]
    encoded = model.encode(list(texts), output_value="token_embeddings", show_progress_bar=False)
    for ids, vectors in zip(cut, encoded, strict=True):
        pieces = model.tokenizer.convert_ids_to_tokens(ids)[: len(vectors)]
        kept = [place for place, one in enumerate(pieces) if one not in special and any(map(str.isalnum, one))]
        rows = vectors.cpu().numpy()[kept]
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return found


def load_sentence_model(folder: Path) -> SentenceTransformer:
    """The model in fp32, on the processor; code that lies beside it is not run."""
    import torch
    from sentence_transformers import SentenceTransformer

    settings: dict[str, Any] = {"local_files_only": True, "model_kwargs": {"dtype": torch.float32}}
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=False, **settings)


def _encode_unique(encode: Encode, texts: Sequence[str]) -> np.ndarray:
    """Encode each text once; order kept. Questions come often: templates, paraphrases, repeats from several sources."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return encode(list(places))[[places[text] for text in texts]]


def embeddings_table(
    rows: Iterable[tuple[str, str, str]], encode: Encode, encode_whole: Encode | None = None
) -> pa.Table:
    """A table of id, question and whole (fixed-size lists of float32) for rows of id, question and whole as text."""
    ids, questions, wholes = ([*column] for column in zip(*rows, strict=True))
    if encode_whole is None:
        parts = np.split(_encode_unique(encode, questions + wholes), 2)
    else:
        parts = [_encode_unique(encode, questions), _encode_unique(encode_whole, wholes)]
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(part)), part.shape[1]) for part in parts]
    return pa.table([pa.array(ids, pa.string()), *columns], names=["id", "question", "whole"])


def read_embeddings(path: Path) -> Embeddings:
    """All embeddings of a file. Raises RecordError: the file is missing or damaged."""
    tables = list(read_batches(path))
    if not tables:
        return Embeddings([], np.empty((0, 0), np.float32), np.empty((0, 0), np.float32))
    table = pa.concat_tables(tables)
    return Embeddings(table["id"].to_pylist(), _matrix(table["question"]), _matrix(table["whole"]))


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    flat: np.ndarray = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), array.type.list_size)


def evaluation_items() -> list[EvaluationItem]:
    """The items of all evaluation sets, once more for each of their other wordings.

    Raises RecordError: a set is missing or damaged.
    """
    paths = [layout.EVALUATION_ITEMS / f"{name}.jsonl" for name in layout.EVALUATION_SETS]
    items = [item for path in paths for item in read_own_jsonl(path, EvaluationItem)]
    return [one for item in items for one in (item, *in_other_words(item))]


def in_other_words(item: EvaluationItem) -> list[EvaluationItem]:
    """The item as its paraphrases ask it."""
    fields = item.model_dump(exclude={"id", "prompt", "paraphrases"})
    return [make_item(**fields, prompt=wording) for wording in item.paraphrases]


class CharacterModel:
    """Fitted on a corpus; then a function from texts to unit vectors, float64 of shape (texts, dimensions)."""

    def __init__(self, corpus: Iterable[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        texts = _sample(corpus, FIT)
        self._hashing = HashingVectorizer(
            analyzer="char",
            ngram_range=(1, 2),
            n_features=FEATURES,
            preprocessor=normalise,
            alternate_sign=False,
            norm=None,
        )
        counts = self._hashing.transform(texts)
        self._weights = TfidfTransformer(sublinear_tf=True).fit(counts)
        self.dimensions = max(1, min(DIMENSIONS, len(texts) // TEXTS_A_DIMENSION))
        self._axes = TruncatedSVD(self.dimensions, random_state=0).fit(self._weights.transform(counts))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors; a text that shares nothing with the corpus is the first axis."""
        vectors: np.ndarray = self._axes.transform(self._weights.transform(self._hashing.transform(texts)))
        vectors[~vectors.any(axis=1), 0] = 1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _sample(texts: Iterable[str], count: int) -> list[str]:
    """At most `count` different texts, the lowest by hash, in that order: the same ones in whatever order they come."""
    digests = {hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(): text for text in texts}
    return [digests[digest] for digest in heapq.nsmallest(count, digests)]
