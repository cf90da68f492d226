"""A place with settings, the real domains and the base model's tokenizer, in which stages before have left nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tasks.core import layout
from tasks.core.records import Document, EvaluationItem, Example, Receipt, Rewording, Triple, write_jsonl
from tasks.core.tables import write_records


@pytest.fixture
def home(root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Goes there; returns what names the domain in params.yaml."""
    (tmp_path / ".flywheel").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("domains", "infra", ".flywheel/packages"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / layout.BASE_MODEL).symlink_to(base_model)
    monkeypatch.chdir(tmp_path)
    for path in (layout.INGEST / "examples", layout.INGEST / "dropped", layout.VALIDATE / "examples"):
        write_records(path.with_suffix(".parquet"), [], Example)
    for name in ("documents", "known_documents"):
        write_records(layout.INGEST / f"{name}.parquet", [], Document)
    write_records(layout.INGEST / "triples.parquet", [], Triple)
    write_records(layout.INGEST / "receipt.parquet", [], Receipt)
    write_jsonl(layout.INGEST / "rewordings.jsonl", list[Rewording]())
    for name in layout.EVALUATION_SETS:
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", list[EvaluationItem]())

    def named(domain: str) -> Path:
        settings = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8")) | {"domain": domain}
        layout.PARAMS.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return tmp_path

    named("construction")
    return named
