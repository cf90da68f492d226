"""A repository in a temporary folder whose `construct` stage asks a teacher at a given address."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.files import digest_of
from tasks.core.records import Document, Example, Seed, Triple, make_example, write_jsonl
from tasks.core.tables import write_records

OFF: dict[str, dict[str, Any]] = {
    "self_instruct": {"examples": 0, "max_requests": 60, "seeds_per_prompt": 4, "max_similarity": 0.7},
    "self_qa": {"chunks": 0, "questions_per_chunk": 2, "turns": 1, "min_groundedness": 0.7},
    "self_kv": {"examples": 0, "two_hop_share": 0.3, "paraphrase": False},
}
TEMPLATES = """
en:
  paraphrase: "Say in other words: {question}"
  templates:
    - path: [made of]
      questions: ["What is the {subject} made of?"]
      answers: ["The {subject} is made of {object}."]
"""


def document(name: str, text: str, title: str = "") -> Document:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Document(id=digest_of([name, text]), name=f"book/{name}", title=title, text=text, sha256=digest)


def seed(instruction: str, output: str, entered: str = "", classification: bool = False) -> Seed:
    identity = digest_of([instruction, entered, output])
    return Seed(id=identity, instruction=instruction, input=entered, output=output, classification=classification)


def human(question: str, answer: str, origin: str = "human") -> Example:
    return make_example(instruction=question, output=answer, language="en", origin=origin, source=("faq:1",))


def make_root(
    folder: Path,
    root: Path,
    base_model: Path,
    url: str,
    documents: list[Document],
    seeds: list[Seed],
    teacher: dict[str, Any] | None = None,
    triples: list[Triple] | None = None,
    **methods: dict[str, Any],
) -> Path:
    """params.yaml, a domain with one document and one file of seeds, and what ingest and feedback would have left."""
    params = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))
    params["domain"] = "construction"
    params["construct"] |= {name: value | methods.get(name, {}) for name, value in OFF.items()}
    params["construct"]["teacher"] |= {"kind": "url", "url": url, "model": "teacher", "max_tokens": 64}
    params["construct"]["teacher"] |= teacher or {}
    (folder / layout.PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")
    domain = yaml.safe_load((root / layout.DOMAINS / "construction/domain.yaml").read_text(encoding="utf-8"))
    own = {"name": "book", "files": ["book.txt"], "licence": "CC0", "attribution": "nobody"}
    graphs = [own | {"name": "graph", "templates": "templates.yaml"}] if triples else []
    domain |= {"documents": [own], "seeds": [own], "triples": graphs, "system_prompt": "book.txt"}
    domain |= {"evaluation_files": [], "rewordings": []}
    home = folder / layout.DOMAINS / "construction"
    home.mkdir(parents=True)
    (home / "domain.yaml").write_text(yaml.safe_dump(domain), encoding="utf-8")
    (home / "book.txt").write_text("A book.", encoding="utf-8")
    (home / "templates.yaml").write_text(TEMPLATES, encoding="utf-8")
    (folder / "infra").symlink_to(root / "infra")
    (folder / layout.HOME).mkdir()
    (folder / layout.PACKAGES).symlink_to(root / layout.PACKAGES)
    write_records(folder / layout.INGEST / "examples.parquet", [human("Who builds?", "Builders do.")], Example)
    write_records(folder / layout.INGEST / "documents.parquet", documents, Document)
    write_records(folder / layout.INGEST / "triples.parquet", triples or [], Triple)
    write_jsonl(folder / layout.INGEST / "seeds.jsonl", seeds)
    corrections = [human("Who pays?", "The owner pays.", "feedback")]
    write_records(folder / layout.FEEDBACK / "examples.parquet", corrections, Example)
    (folder / layout.BASE_MODEL).symlink_to(base_model)
    return folder
