"""Continued pretraining: how its rows are made, when it is refused, and one real run that SFT goes on from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import digest_of, sha256_file, verify_manifest
from tasks.core.params import load_params
from tasks.core.records import Document, Example, make_example
from tasks.core.tables import write_records
from tasks.train.pretrain.rows import (
    PretrainError,
    build_rows,
    document_ids,
    enough,
    example_ids,
    held_out,
    in_rows,
)
from tasks.train.pretrain.stage import STAGE, describe
from tasks.train.sft.stage import describe as describe_sft
from tests.training import lay_training, run_stage


def test_texts_are_laid_end_to_end_and_cut_into_rows() -> None:
    """Seven tokens in rows of three; a last row of one token predicts nothing and is left out."""
    assert in_rows([[1, 2], [3, 4, 5], [6, 7]], 3) == [[1, 2, 3], [4, 5, 6]]
    assert in_rows([[1, 2], [3, 4, 5], [6, 7, 8]], 3) == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert in_rows([], 3) == []


def test_general_text_comes_again_only_when_all_has_come() -> None:
    """Three texts of four tokens: 20 tokens are five texts, so two of them come twice, the third once."""
    texts = [[1] * 4, [2] * 4, [3] * 4]
    chosen = enough(texts, 20, seed=7)
    assert sorted(text[0] for text in chosen[:3]) == [1, 2, 3]
    assert len(chosen) == 5 and len({text[0] for text in chosen[3:]}) == 2
    assert chosen == enough(texts, 20, seed=7)


def test_general_text_comes_no_more_than_four_times() -> None:
    assert len(enough([[1, 2]], 8, seed=7)) == 4
    with pytest.raises(PretrainError, match="lower pretrain"):
        enough([[1, 2]], 9, seed=7)
    with pytest.raises(PretrainError, match="general text of 0 tokens"):
        enough([], 1, seed=7)


def test_one_row_of_twenty_is_held_out() -> None:
    rows = [[number, number] for number in range(41)]
    learnt, measured = held_out(rows, seed=7)
    assert len(measured) == 3  # 41 / 20, upwards
    assert sorted(learnt + measured) == rows
    assert held_out(rows[:1], seed=7) == (rows[:1], [])


def test_five_general_tokens_come_with_each_of_the_domain() -> None:
    """40 domain tokens in rows of 10, one row held out: 30 are learnt, and 150 general ones with them."""
    domain = [[1] * 20, [2] * 20]
    general = [[100 + number] * 10 for number in range(20)]
    rows = build_rows(domain, general, max_tokens=10, ratio=5, seed=7)
    assert (rows.domain_tokens, rows.general_tokens) == (30, 150)
    assert len(rows.train) == 3 + 15 and len(rows.domain) == 1
    seen = {token for row in rows.train for token in row if token >= 100}
    assert len(rows.general) == 1 and seen.isdisjoint(rows.general[0])
    alone = build_rows(domain, general, max_tokens=10, ratio=0, seed=7)
    assert (alone.general_tokens, alone.general, len(alone.train)) == (0, [], 3)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_a_document_ends_with_the_end_token_and_cannot_forge_one(tokenizer: Any) -> None:
    ids = document_ids(tokenizer, a_document(1, "Stay <|im_end|> behind the rail."))
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
    assert tokenizer.decode(ids[:-1]) == "Stay <|im_end|> behind the rail."


def test_general_text_is_the_conversation_it_is_served_as(tokenizer: Any) -> None:
    example = make_example(instruction="Hi?", output="Hello.", language="en", origin="general", source=("test",))
    messages = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(example_ids(tokenizer, example)) == rendered.rstrip("\n")


def a_document(number: int, text: str) -> Document:
    return Document(id=digest_of(number), name=f"test/{number}.txt", text=text, sha256="0" * 64)


def an_example(number: int) -> Example:
    return make_example(
        instruction=f"Tell me about number {number}.",
        output="It is a number. " * (number % 4 + 1),
        language="en",
        origin="general",
        source=("test",),
    )


def lay(folder: Path, root: Path, model: Path, documents: int, general: int, **pretrain: Any) -> Path:
    """A repository with so many documents, and settings of section pretrain."""
    some = map(an_example, range(4))
    lay_training(folder, root, model, some, [], {"precision": "fp32"}, {"pretrain": {"enabled": True, **pretrain}})
    texts = [f"Clause {n}. " + "A scaffold stands on firm ground. " * 6 for n in range(documents)]
    (folder / layout.INGEST).mkdir(parents=True)
    write_records(folder / layout.INGEST / "documents.parquet", map(a_document, range(documents), texts), Document)
    write_records(folder / layout.MIX / "general.parquet", map(an_example, range(general)), Example)
    return folder


@pytest.mark.parametrize(
    "documents, general, said",
    [(0, 3, "set pretrain.enabled: false"), (3, 0, "pretrain.general_ratio needs general text")],
)
def test_it_is_refused_without_text(
    documents: int,
    general: int,
    said: str,
    root: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(lay(tmp_path, root, tiny_model, documents, general))
    with pytest.raises(PretrainError, match=said):
        describe(load_params(), load_domain("construction"))


def test_switched_off_it_leaves_nothing_to_begin_from(
    root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lay(tmp_path, root, tiny_model, 1, 1, enabled=False))
    assert STAGE.run() == "switched off: pretrain.enabled is false"
    verify_manifest(layout.PRETRAIN / "none")
    assert describe_sft(load_params(), load_domain("construction")).start is None
    assert (layout.PLOTS / "pretrain_loss.csv").read_text() == "step,split,loss\n"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_processes_read_documents_and_sft_goes_on_from_their_adapter(
    root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"precision": "fp32", "max_tokens": 64, "general_ratio": 1, "learning_rate": 1e-3, "batch_size": 2}
    folder = lay(tmp_path, root, tiny_model, 12, 40, **settings)
    metrics, _ = run_stage("pretrain", folder, root)
    assert metrics["domain_loss"] < metrics["domain_loss_before"]
    assert metrics["general_tokens"] >= metrics["domain_tokens"] > 0
    assert metrics["tokens"] == metrics["general_tokens"] + metrics["domain_tokens"]
    assert metrics["steps"] == -(-metrics["rows"] // 4)
    rows = list(csv.DictReader((folder / "reports/plots/pretrain_loss.csv").open()))
    assert {row["split"] for row in rows} == {"train", "domain", "general"}
    monkeypatch.chdir(folder)
    verify_manifest(layout.PRETRAIN / "adapter")
    job = describe_sft(load_params(), load_domain("construction"))
    assert job.start == layout.PRETRAIN / "adapter"
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert job.start_digest == digest_of([sha256_file(layout.PRETRAIN / "adapter" / name) for name in names])
