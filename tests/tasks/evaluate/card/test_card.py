"""The release card."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.records import Receipt
from tasks.core.tables import table_of
from tasks.curate.receipt.stage import join
from tasks.curate.receipt.texts import said_schema
from tasks.evaluate.card.card import CardError, ScoreRow, collect, markdown_cell, markdown_quote, render_card

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\n# heading [link](javascript:alert(1)) `code` |'

SCORES = "set,metric,who,value,low,high\ndomain,nll,champion,3.5,3,4\ndomain,nll,candidate,3,2.5,3.5\n"


class Tags(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The files of a finished release, with hostile text wherever a model or a source wrote."""
    criterion = {
        "name": "domain_nll",
        "kind": "superiority",
        "unit": HOSTILE,
        "n": 100,
        "estimate": -0.5,
        "low": -0.75,
        "high": -0.25,
        "margin": 0.0,
        "passed": True,
        "reason": HOSTILE,
    }
    reported = {k: v for k, v in criterion.items() if k not in ("kind", "margin", "passed")} | {"name": "mmlu_accuracy"}
    files = {
        "params.yaml": "domain: d\n",
        "domains/d/domain.yaml": json.dumps(
            {
                "title": f"Title {HOSTILE}",
                "base_model": {"name": "Tiny", "licence": "Apache-2.0", "licence_url": "https://example.org/licence"},
                "human": [{"name": "faq", "licence": "CC BY 4.0", "attribution": "Ann Author"}],
            }
        ),
        "reports/verdict.json": json.dumps(
            {"outcome": "promote", "criteria": [criterion], "reported": [reported], "reasons": [HOSTILE]}
        ),
        "reports/plots/scores.csv": SCORES,
        "reports/plots/data_counts.csv": "stage,examples\n<b>read,4\nkept,3\n",
        "reports/plots/sft_loss.csv": "step,split,loss\n0,train,3.0\n10,train,2.5\n10,validation,2.75\n",
        "data/ingest/evaluation/domain.jsonl": json.dumps({"id": "1", "prompt": HOSTILE, "reference": HOSTILE}) + "\n",
        "reports/evaluation/candidate/answers.jsonl": json.dumps({"id": "1", "text": HOSTILE}) + "\n",
        "reports/evaluation/champion/answers.jsonl": json.dumps({"id": "1", "text": "calm"}) + "\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    write_receipt(tmp_path / "reports/receipt.parquet")
    return tmp_path


def write_receipt(path: Path) -> None:
    """Of two examples one is trained on, the other dropped for a hostile reason."""
    steps = [
        Receipt(example_id="a" * 64, stage="ingest", kept=True, reason="read"),
        Receipt(example_id="a" * 64, stage="mix", kept=True, reason="training"),
        Receipt(example_id="b" * 64, stage="ingest", kept=False, reason=HOSTILE, detail=HOSTILE, score=0.5),
    ]
    said = [
        {"id": letter * 64, "origin": "human", "source": [HOSTILE], "instruction": HOSTILE, "output": HOSTILE}
        for letter in "ab"
    ]
    table = pa.Table.from_pylist(said, schema=said_schema())
    pq.write_table(join(table_of(steps, Receipt), table, pa.array(["a" * 64])), path)


def test_hostile_text_is_shown_and_never_run_and_the_page_fetches_nothing(release: Path) -> None:
    """Its own policy forbids it, and no element points outside; the only addresses are names of SVG and RDF."""
    page = render_card(release, {"git_sha": HOSTILE}).read_text()
    tags = Tags(page)
    assert "&lt;script&gt;alert(" in page
    assert not [tag for tag, _ in tags.found if tag in ("script", "img", "iframe", "object", "link", "a", "b")]
    assert not [key for _, attributes in tags.found for key in attributes if key.startswith("on")]
    policy = [attributes["content"] for tag, attributes in tags.found if attributes.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    for _, attributes in tags.found:
        for key in ("src", "href", "xlink:href", "action", "poster"):
            assert (attributes.get(key) or "#").startswith("#")


def test_the_card_shows_verdict_scores_charts_licences_and_samples_of_every_reason(release: Path) -> None:
    page = render_card(release, {"git_sha": "abc123"}).read_text()
    shown = ("promote", "3.500 (3.000 to 4.000)", "-0.750 to -0.250", "reported", "Ann Author", "CC BY 4.0", "abc123")
    assert [
        wanted for wanted in (*shown, "domain examples: 2 seen, 1 trained on", "b" * 12, "(0.5") if wanted not in page
    ] == []
    assert page.count("<svg") == 3
    assert [tag for tag, _ in Tags(page).found].count("details") == 1
    text = (release / "reports/release_card.md").read_text()
    assert "| ingest | &lt;script&gt;" in text
    assert "<script" not in text and "<img" not in text and "[link](" not in text
    assert "Ann Author" in text and "| domain | nll | 3.500 (3.000 to 4.000) | 3.000 (2.500 to 3.500) |" in text


def test_what_is_missing_is_left_out_but_a_verdict_must_be_there(release: Path) -> None:
    (release / "reports/plots/sft_loss.csv").unlink()
    (release / "reports/evaluation/champion/answers.jsonl").unlink()
    (release / "reports/receipt.parquet").unlink()
    card = collect(release)
    assert card.loss == [] and card.samples == [] and card.funnel is None
    assert card.scores == [ScoreRow("domain", "nll", (3.5, 3.0, 4.0), (3.0, 2.5, 3.5))]
    (release / "reports/verdict.json").unlink()
    with pytest.raises(CardError, match=r"verdict\.json is missing"):
        collect(release)


def test_markdown_is_escaped_by_character() -> None:
    assert markdown_cell("a|b\n*c*") == "a\\|b \\*c\\*"
    assert markdown_quote("<b>\n# x") == "> &lt;b&gt;\n> \\# x"
