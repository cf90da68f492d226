"""Documents that a version learns without training: a package as it is, but for the passages of some files.

A file's passages take the place of those that a file of its name had. Runs outside the graph, for `flywheel learn`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core import layout
from tasks.core.domain import LEARNED
from tasks.core.files import holds, scratch_directory, take_place, write_manifest
from tasks.core.package import KNOWLEDGE
from tasks.core.params import Params
from tasks.core.records import BadLine, Document, Passage, Receipt
from tasks.core.tables import read_batches, table_writer, write_records
from tasks.corpus.ingest.documents import read_documents
from tasks.corpus.reading.lines import bad_line
from tasks.knowledge.index.stage import admitted, chunks_of
from tasks.knowledge.search import EMBEDDER, EMBEDDINGS, PASSAGES, Knowledge
from tasks.similarity.embedder import embeddings_table, sentence_encoders


@dataclass(frozen=True)
class Lesson:
    """What an index would hold: passages that stay and new ones; what could not be used, and why.

    `read` are the files of which a document was read, by name; `added` and `removed` count passages by file.
    """

    stay: list[Passage]
    new: list[Passage]
    read: dict[str, Path]
    removed: dict[str, int]
    bad: list[BadLine]
    refused: list[Receipt]

    @property
    def added(self) -> dict[str, int]:
        """Passages by file."""
        return _by_file(self.new)

    def changes(self, index: Knowledge) -> bool:
        """Whether anything is found otherwise than before; the order of passages decides nothing."""
        return {one.id for one in (*self.stay, *self.new)} != {one.id for one in index.passages}


def file_of(passage: Passage) -> str | None:
    """The file that a learned passage comes from; None for the domain's own material."""
    source, _, rest = passage.source.rpartition("#")[0].partition("/")
    return rest.split("/")[0] if source == LEARNED.name else None


def files_in(folder: Path, bad: list[BadLine]) -> list[Path]:
    """The files below a folder, of each name one: by their names documents are known again."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if found.setdefault(path.name, path) != path:
            bad.append(bad_line(path, 1, f"{found[path.name]} has the same name; give it another"))
    return list(found.values())


def lesson_of(index: Knowledge, folder: Path | None, removed: Sequence[str], params: Params) -> Lesson:
    """What an index would hold with the documents of a folder, and without those of the files named in `removed`."""
    bad = list[BadLine]()
    paths = {path.name: path for path in (files_in(folder, bad) if folder else ()) if path.name not in removed}
    documents = list(read_documents(LEARNED, list(paths.values()), bad, index.settings.language))
    read = {name: paths[name] for name in dict.fromkeys(map(_file_of_document, documents))}
    gone = {*read, *removed}
    stay = [one for one in index.passages if file_of(one) not in gone]
    known = {one.whole for one in stay}
    kept, refused = admitted(chunks_of(documents, params, index.settings.tokens), params, evaluation_answers=True)
    new = [one for one in kept if one.whole not in known]
    return Lesson(stay, new, read, _by_file(one for one in index.passages if file_of(one) in removed), bad, refused)


def _file_of_document(document: Document) -> str:
    return document.name.split("/")[1]


def _by_file(passages: Iterable[Passage]) -> dict[str, int]:
    return dict(Counter(filter(None, map(file_of, passages))))


def build_package(package: Path, lesson: Lesson, params: Params) -> tuple[Path, str]:
    """The package with the lesson's passages, under its digest among the weights; returns both."""
    with scratch_directory(layout.WEIGHTS / "learned") as folder:
        shutil.copytree(package, folder, dirs_exist_ok=True)
        _write_index(folder / KNOWLEDGE, lesson, params)
        digest = write_manifest(folder)
        if not holds(layout.WEIGHTS / digest, digest):
            take_place(folder, layout.WEIGHTS / digest)
    return layout.WEIGHTS / digest, digest


def _write_index(folder: Path, lesson: Lesson, params: Params) -> None:
    """The passages with their vectors: those that stay have theirs, the new ones get them from the index's embedder."""
    import pyarrow as pa
    import pyarrow.compute as pc

    write_records(folder / PASSAGES, [*lesson.stay, *lesson.new], Passage)
    if not (folder / EMBEDDER).is_dir():
        return
    table = pa.concat_tables(read_batches(folder / EMBEDDINGS))
    parts = [table.filter(pc.is_in(table["id"], pa.array([one.id for one in lesson.stay], pa.string())))]
    if lesson.new:
        encoders = sentence_encoders(folder / EMBEDDER, params.embed.batch_size, params.embed.threads)
        parts.append(embeddings_table(((one.id, one.question, one.whole) for one in lesson.new), *encoders))
    with table_writer(folder / EMBEDDINGS, table.schema) as writer:
        for part in parts:
            writer.write(part)
