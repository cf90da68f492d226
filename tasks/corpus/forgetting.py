"""Where something that was forgotten is still held: in files, in snapshots of feedback, in versions.

Files are told by what is in them, not by their names: a row of JSON or Parquet that has a text and, in any field, a
name that was forgotten. Ids and hashes alone (receipts, embeddings) hold nothing. What has no name beside it is not
found: a model's weights, logs, a reply of the teacher.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from tasks.core import layout
from tasks.core.package import KNOWLEDGE
from tasks.core.pointers import FeedbackPointer
from tasks.core.records import Reaction, read_own_jsonl
from tasks.corpus.feedback.stage import OTHER_WORDS, ROWS, write_snapshot
from tasks.corpus.feedback.stage import STAGE as FEEDBACK
from tasks.corpus.reading.forgotten import Forgotten
from tasks.registry.runs import PACKAGE_ARTIFACT, drop_artifacts
from tasks.registry.versions import Registry, Version, line_of

TEXTS = {"text", "question", "instruction", "output", "prompt", "reference", "messages", "answer", "chosen"}
TEXTS |= {OTHER_WORDS}  # in that file: the key with whose they are
LONGEST_NAME = 300  # characters; what is longer is a text
PARQUET = b"PAR1"
RECEIPT = "receipt.parquet"
INDEX = f"{PACKAGE_ARTIFACT}/{KNOWLEDGE}/passages.parquet"
PURGED = (PACKAGE_ARTIFACT, "reports", "release_card.html", "release_card.md")  # of a version's run


def holds(stream: IO[bytes], gone: Forgotten) -> bool:
    """Whether a file, open for reading at any place, has a row that tells something forgotten."""
    return any(_tells(row, gone) for row in _rows(stream))


def _rows(stream: IO[bytes]) -> Iterator[Any]:
    """The rows of Parquet with texts, of JSON lines, or of one JSON value; none of anything else."""
    head = stream.read(4)
    stream.seek(0)
    if head == PARQUET:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(stream)
        if TEXTS.intersection(file.schema_arrow.names):
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    elif head[:1] in (b"{", b"["):
        content = stream.read()
        try:
            value = json.loads(content)
            yield from value if isinstance(value, list) else [value]
        except ValueError:
            yield from _lines(content)


def _lines(content: bytes) -> Iterator[Any]:
    for line in content.split(b"\n"):
        try:
            yield json.loads(line or b"null")
        except ValueError:
            return


def _tells(row: Any, gone: Forgotten) -> bool:
    told = isinstance(row, dict) and any(row.get(name) for name in TEXTS)
    return told and any(len(text) <= LONGEST_NAME and gone(text) for text in _strings(row))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def holders(folder: Path, gone: Forgotten) -> list[Path]:
    """The files below a folder that hold something forgotten."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            if holds(stream, gone):
                found.append(path)
    return found


def held_snapshots(home: Path, gone: Forgotten) -> list[Path]:
    """The folders of the snapshots of feedback that hold it."""
    return [path.parent for path in holders(home / layout.FEEDBACK_SNAPSHOTS, gone) if path.name == ROWS]


def without(pointer: FeedbackPointer, home: Path, gone: Forgotten, marked: Collection[str]) -> FeedbackPointer:
    """A pointer at the same snapshot without those rows, and at no version of `marked` (manifests) to go on from."""
    if pointer.start is not None and pointer.start.digest in marked:
        pointer = pointer.model_copy(update={"start": None, "origin": None})
    path = home / layout.FEEDBACK_SNAPSHOTS / str(pointer.digest) / ROWS
    rows = read_own_jsonl(path, Reaction) if pointer.digest and path.is_file() else []
    kept = [row for row in rows if not gone(row.id)]
    if len(kept) == len(rows):
        return pointer
    if not kept:
        return FeedbackPointer(count=0)
    return pointer.model_copy(update={"count": len(kept), "digest": write_snapshot(kept, home)})


def reached(registry: Registry, gone: Forgotten, snapshots: Collection[str]) -> list[tuple[Version, str]]:
    """Each version that knows it, newest first, and why; `snapshots` are digests of those that hold it.

    Preferences have no receipt: an aligned version has learnt whatever was in its snapshot.
    """
    versions, direct = registry.versions(), dict[str, str]()
    for version in versions:
        aligned = registry.client.get_run(version.run_id).data.params.get("align.alignment", "none") != "none"
        rows = _kept(registry, version, RECEIPT)
        if any(row["trained"] and gone(*_named(row)) for row in rows) or (
            aligned and version.tags.get("feedback_sha256") in snapshots
        ):
            direct[version.number] = "learnt it"
        elif any(gone(row["source"]) for row in _kept(registry, version, INDEX)):
            direct[version.number] = "its index holds it"
    knows = ((v, next((one.number for one in line_of(registry, v) if one.number in direct), "")) for v in versions)
    return [(v, direct.get(v.number, f"goes on from version {one}")) for v, one in knows if one]


def _named(row: dict[str, Any]) -> list[str]:
    """What a row of a receipt is called: its example, where that comes from, the feedback that gave it."""
    said = [step["detail"] for step in row["story"] if step["stage"] == FEEDBACK]
    return [row["example_id"], *(row.get("source") or ()), *said]


def feedback_behind(row: dict[str, Any]) -> tuple[str, ...]:
    """The feedback rows that gave the example of a row of a receipt."""
    return tuple(step["detail"] for step in row["story"] if step["stage"] == FEEDBACK and step["kept"])


def receipt_row(registry: Registry, example: str, here: Path) -> dict[str, Any] | None:
    """What the receipt of the last run `here`, or else the newest version that saw it, says of an example."""
    import pyarrow.parquet as pq

    tables = (_kept(registry, version, RECEIPT) for version in registry.versions())
    last = pq.read_table(here / layout.RECEIPT).to_pylist() if (here / layout.RECEIPT).is_file() else []
    return next((row for table in (last, *tables) for row in table if row["example_id"] == example), None)


def _kept(registry: Registry, version: Version, name: str) -> list[dict[str, Any]]:
    """The rows of a table that is kept with a version; none where there is none."""
    import pyarrow.parquet as pq

    above = name.rpartition("/")[0] or None
    if name not in {item.path for item in registry.client.list_artifacts(version.run_id, above)}:
        return []
    with tempfile.TemporaryDirectory() as folder:
        return list(pq.read_table(registry.client.download_artifacts(version.run_id, name, folder)).to_pylist())


def redact(registry: Registry, version: Version, gone: Forgotten) -> None:
    """Take the excerpts of what was forgotten out of a version's receipt, which keeps the ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = _kept(registry, version, RECEIPT)
    told = [row for row in rows if row.get("instruction") and gone(*_named(row))]
    if not told:
        return
    for row in told:
        row |= {"instruction": None, "output": None}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(registry.client.download_artifacts(version.run_id, RECEIPT, folder))
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
        registry.client.log_artifact(version.run_id, str(path))
    drop_artifacts(registry.client, version.run_id, f"reports/{RECEIPT}")
