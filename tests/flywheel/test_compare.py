"""`flywheel compare A B` on a real registry: in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flywheel.cli import main
from tasks.core import layout
from tasks.core.files import folder_digest, write_json
from tasks.core.records import EvaluationItem, Score, write_jsonl
from tasks.evaluate.scoring.questions import GeneratedAnswer
from tasks.registry.pointer import EVALUATION_TAG
from tasks.registry.runs import open_run
from tasks.registry.versions import Registry
from tests.mlflow_store import lay_mlflow

HOSTILE = '<script>alert("x")</script>\x1b[2J\u202e<img src=x onerror=alert(1)>'
QUESTION = "应当在几日内申请？"
ITEMS = [
    EvaluationItem(id=f"{n:064x}", set="domain", prompt=f"{QUESTION}{n}", reference=HOSTILE, category=HOSTILE)
    for n in range(10)
]
DIALOGUE = EvaluationItem(id="d" * 64, set="dialogue", prompt="Hello?", reference="Hello.")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Versions 1 and 2, of which 2 lost the first three of ten right answers; 3 was judged before answers were kept."""
    home = tmp_path_factory.mktemp("compare")
    (home / "infra").symlink_to(root / "infra")
    (home / "params.yaml").write_text((root / "params.yaml").read_text())
    for name in layout.EVALUATION_SETS:
        rows = {"domain": ITEMS, "dialogue": [DIALOGUE]}.get(name, [])
        write_jsonl(home / layout.EVALUATION_ITEMS / f"{name}.jsonl", rows)
    patch = pytest.MonkeyPatch()
    patch.chdir(home)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry("construction", lay_mlflow(home))
    register(registry, home / "first", "应当在三十日内申请。[1]", lost=0)
    register(registry, home / "second", f"应当在六十日内申请。{HOSTILE}", lost=3)
    run_id = open_run(registry.client, home, "construction", "old", "test")
    registry.register(run_id, {"manifest_sha256": "3" * 64, "verdict_sha256": "3", "verdict": "hold"})
    yield home
    patch.undo()


def register(registry: Registry, folder: Path, text: str, lost: int) -> None:
    """A version whose first `lost` of ten answers are wrong, with its evaluation as the release flow keeps it."""
    scores = [Score(id=one.id, set="facts", metric="right", value=float(n >= lost)) for n, one in enumerate(ITEMS)]
    write_jsonl(folder / "scores.jsonl", scores)
    answers = [
        GeneratedAnswer(
            id=one.id, set="domain", prompt=one.prompt, reference=one.reference, text=text, passages=("law/7", HOSTILE)
        )
        for one in ITEMS
    ]
    write_jsonl(folder / "answers.jsonl", answers)
    write_json(folder / "conditions.json", {"model": folder.name, "system": None, "precision": "bf16", "sets": {}})
    run_id = open_run(registry.client, registry.home, registry.domain, folder.name, "test")
    registry.client.log_artifacts(run_id, str(folder), "reports/evaluation/candidate")
    registry.client.log_metric(run_id, "evaluate_candidate.facts_right", 1 - lost / 10)
    digest = str(folder_digest(folder))
    tags = {"manifest_sha256": digest, "verdict_sha256": folder.name, "verdict": "hold", EVALUATION_TAG: digest}
    registry.register(run_id, tags)


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, ["compare", *arguments], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def run_json(*arguments: str, status: int = 0) -> dict[str, Any]:
    return dict(json.loads(run(*arguments, "--json", status=status)))


def test_the_terminal_says_what_was_lost_and_no_text_moves_its_cursor(home: Path) -> None:
    words = run("1", "2")
    assert "Right answers: 10 of 10 in A, 7 in B (3 lost, 0 won)" in words
    assert [line.split()[:5] for line in words.splitlines() if line.startswith("facts_right")] == [
        ["facts_right", "10", "1.000", "0.700", "-0.300"]
    ]
    assert "A alone: 三 … [1]" in words and f"{QUESTION}0" in words
    assert [letter for letter in words if not letter.isprintable() and letter != "\n"] == []


def test_json_holds_every_item_that_changed_beside_the_figures_of_both(home: Path) -> None:
    found = run_json("1", "2")
    assert [one["figures"]["evaluate_candidate.facts_right"] for one in found["versions"]] == [1.0, 0.7]
    (column,) = found["comparison"]["columns"]
    assert (column["lost"], column["won"]) == ([one.id for one in ITEMS[:3]], [])
    assert found["comparison"]["items"][ITEMS[0].id]["texts"][1] == f"应当在六十日内申请。{HOSTILE}"


class Page(HTMLParser):
    """The tags of a page with their attributes, and what stands in del and ins."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.marked: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag in ("del", "ins")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.marked.append(data)


def test_the_page_shows_both_answers_with_marks_and_runs_nothing_that_they_say(home: Path) -> None:
    """Of three losses it shows the two that are asked for. Its policy lets nothing in from outside."""
    run("1", "2", "--html", "page.html", "--most", "2")
    text = (home / "page.html").read_text()
    page = Page(text)
    assert text.count('class="sample"') == 2 and "Lost: 3, the 2 largest" in text
    assert "三" in page.marked and "六" in page.marked and "申请" not in "".join(page.marked)
    assert '<li class="cited">[1] law/7</li>' in text and "<li>[2] &lt;script&gt;" in text
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "iframe", "object", "link")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "src"]
    assert all(str(attributes["href"]).startswith("#") for tag, attributes in page.tags if tag == "a")
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'") in [
        (tag, attributes.get("content")) for tag, attributes in page.tags
    ]


def test_a_version_without_answers_is_named_and_its_figures_shown_but_no_page_is_made(home: Path) -> None:
    why = "version 3 was judged before answers were kept"
    assert run("1", "3").startswith(why) and "evaluate_candidate.facts_right" in run("1", "3")
    assert run_json("3", "1")["comparison"] is None
    assert "version 3" in run_json("1", "3", "--html", "no.html", status=1)["error"] and not (home / "no.html").exists()


def test_three_versions_are_a_table_of_figures_and_have_no_page(home: Path) -> None:
    assert "version 3" in run("1", "2", "candidate") and "Right answers" not in run("1", "2", "3")
    assert "name exactly two" in run("1", "2", "3", "--html", "no.html", status=2)


def test_an_evaluation_that_is_not_the_one_registered_is_refused(home: Path) -> None:
    registry = Registry("construction", home)
    registry.client.set_model_version_tag("construction", "2", EVALUATION_TAG, "other")
    assert "is not the one it was registered with" in run_json("1", "2", status=1)["error"]
    registry.client.set_model_version_tag("construction", "2", EVALUATION_TAG, str(folder_digest(home / "second")))
