"""The release card, its funnel, and its table of predicted against actual."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core import layout
from tasks.core.files import write_json
from tasks.core.records import Example, Receipt, RecordError
from tasks.core.tables import table_of, write_records
from tasks.curate.mix.stage import write_counts
from tasks.curate.receipt.stage import content_schema, join
from tasks.evaluate.card.card import (
    CardError,
    ScoreRow,
    collect,
    markdown_cell,
    markdown_quote,
    read_costs,
    render_card,
    verdict_rows,
)
from tasks.evaluate.card.categories import shared_words
from tasks.evaluate.card.funnel import read_funnel
from tasks.evaluate.card.usage import share

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
    table = pa.Table.from_pylist(said, schema=content_schema())
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


def test_the_card_names_the_questions_that_a_category_lost_and_the_words_they_share(release: Path) -> None:
    """'deposit' is in both lost questions and no other; 'the' is in all of them, and 'rent' in one that was lost."""
    said = {"1": "Is the rent deposit <b>due</b>?", "2": "Who keeps the deposit?", "3": "Is the rent due?"}
    rows = [json.dumps({"id": key, "prompt": prompt, "reference": "yes"}) for key, prompt in said.items()]
    (release / "data/ingest/evaluation/domain.jsonl").write_text(
        "\n".join([*rows, rows[2].replace('"3"', '"4"')]) + "\n"
    )
    verdict = json.loads((release / "reports/verdict.json").read_text())
    figures = {"n": 8, "before": 8, "after": 6, "won": [], "p": 0.25, "collapsed": False}
    kept = figures | {"name": "kept", "after": 8, "lost": []}
    verdict["categories"] = [figures | {"name": "rents", "lost": ["1", "2"]}, kept]
    write_json(release / "reports/verdict.json", verdict)
    (lost,) = collect(release).categories
    assert (lost["name"], lost["questions"], lost["words"]) == ("rents", [said["1"], said["2"]], ("deposit",))
    page = render_card(release).read_text()
    assert "Who keeps the deposit?" in page and "deposit &lt;b&gt;due" in page
    assert "| rents | 8 | 6 | 8 | Is the rent deposit" in (release / "reports/release_card.md").read_text()


def test_shared_words_of_chinese_questions_need_no_spaces() -> None:
    """jieba's words: 机动车 is in all of them, 抵押 in the two that were lost alone."""
    lost = ["机动车抵押需要登记吗？", "机动车抵押给银行怎么办？"]
    assert shared_words(lost, [*lost, "机动车年检多久一次？", "机动车超速怎么罚？"])[0] == "抵押"
    assert shared_words(lost[:1], lost) == ()


def test_the_worst_regressions_lost_their_right_answer_or_else_most_of_the_reference(release: Path) -> None:
    """Of ROUGE-L 2 lost 0.1 with its right answer, 3 lost 0.5, 4 gained, and 5 is as it was."""
    sides = {
        "champion": ((1, 0.6), (0, 0.9), (0, 0.2), (0, 0.5)),
        "candidate": ((0, 0.5), (0, 0.4), (1, 0.8), (0, 0.5)),
    }
    keys = "2345"
    write_rows(release / "data/ingest/evaluation/domain.jsonl", [{"id": key, "prompt": f"{key}?"} for key in keys])
    for who, values in sides.items():
        rows = [
            {"id": key, "text": f"{who} {key}" if key != "5" else "same", "right": bool(right)}
            for key, (right, _) in zip(keys, values, strict=True)
        ]
        scores = [
            {"id": key, "set": "domain", "metric": metric, "value": value}
            for key, (_, rouge) in zip(keys, values, strict=True)
            for metric, value in (("nll", 9.0), ("rouge_l", rouge))
        ]
        write_rows(release / f"reports/evaluation/{who}/answers.jsonl", rows)
        write_rows(release / f"reports/evaluation/{who}/scores.jsonl", scores)
    card = collect(release)
    assert [one.question for one in card.samples] == ["4?", "2?", "3?"]
    assert [(one.question, one.before, one.after) for one in card.regressions] == [
        ("2?", "champion 2", "candidate 2"),
        ("3?", "champion 3", "candidate 3"),
    ]
    page = render_card(release).read_text()
    assert page.index("Worst regressions") < page.rindex("candidate 3")
    assert "## Worst regressions" in (release / "reports/release_card.md").read_text()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_change_lies_on_its_line_with_better_to_the_right() -> None:
    """A loss of 0.05 (0.02 to 0.08) of 0.1 allowed: 48 / 0.1 of the width a unit, so 24 left of the middle."""
    row = {"kind": "non_inferiority", "low": 0.02, "estimate": 0.05, "high": 0.08, "margin": 0.1, "passed": True}
    verdict = {"criteria": [row, {**row, "kind": "floor"}], "reported": [row]}
    lines = [shown["at"] for shown in verdict_rows(verdict)]
    assert lines == [{"low": 40.4, "mid": 26.0, "high": 11.6, "margin": 2.0}, None, None]


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


def test_what_a_language_lacks_is_named_and_a_language_with_everything_lacks_nothing(release: Path) -> None:
    """A language that the domain does not name is said nothing of."""
    about = release / "domains/d/domain.yaml"
    domain = json.loads(about.read_text())
    heading = "What there is nothing for in its language"
    assert heading not in render_card(release).read_text()
    domain |= {"language": "no", "general": [{"language": "no"}], "embedder": {"files": ["modules.json"]}}
    about.write_text(json.dumps(domain))
    assert heading in render_card(release).read_text()
    told = (release / "reports/release_card.md").read_text().split(heading)[1].split("##")[0].strip().splitlines()
    assert [line[:34] for line in told] == [
        "- the words around passages are En",
        "- a teacher is asked in English, a",
        "- no check that examples are in 'n",
    ]
    about.write_text(json.dumps(domain | {"language": "en", "general": [{"language": "en"}]}))
    assert heading not in render_card(release).read_text()


def test_what_users_did_stands_beside_the_version_before_and_silence_is_said(release: Path) -> None:
    """Without any version there is no section."""
    assert "What users did" not in render_card(release).read_text()
    zero = dict.fromkeys(("people", "reactions", "thumbs", "up", "ratings", "corrections", "choices", "won"), 0)
    zero |= {"seconds_50": None, "seconds_95": None}
    silent = zero | {"version": "4", "answers": 7, "people": 2, "stars": None, "judged": 0, "resolved": 0}
    timed = {"seconds_50": 1.25, "seconds_95": 4.04}
    before = silent | timed | {"version": "3", "reactions": 9, "ratings": 2, "stars": 4.5, "judged": 2, "resolved": 2}
    write_json(release / "reports/usage.json", {"champion": silent, "previous": before})
    page, text = render_card(release).read_text(), (release / "reports/release_card.md").read_text()
    assert "<td>version 4 (champion)</td><td>version 3 (previous)</td>" in page and "4.5 of 2" in page
    assert "of half, of 95 in 100 | – | 1.2, 4.0 |\n" in text
    assert "| reactions | nobody has reacted yet | 9 |\n" in text
    assert "the last is a thumb up or 4 or 5 stars | – | 2 of 2: 100% (16% to 100%) |\n\n## What was trained on" in text


def test_a_share_has_clopper_and_pearsons_interval() -> None:
    """Of 10 all: 0.025 to the power of 1/10 is 0.69; of 10 none: its mirror image."""
    assert (share(10, 10), share(0, 10)) == ("10 of 10: 100% (69% to 100%)", "0 of 10: 0% (0% to 31%)")


def test_markdown_is_escaped_by_character() -> None:
    assert markdown_cell("a|b\n*c*") == "a\\|b \\*c\\*"
    assert markdown_quote("<b>\n# x") == "> &lt;b&gt;\n> \\# x"


def step(identity: str, stage: str, kept: bool, reason: str, score: float | None = None) -> Receipt:
    return Receipt(example_id=identity, stage=stage, kept=kept, reason=reason, score=score)


# a is trained on; b and c are duplicates; d is general replay; e was generated twice, the second time in vain.
STEPS = [
    *(step(identity, "ingest", True, "read") for identity in "abcd"),
    step("e", "construct", True, "self_qa"),
    step("e", "construct", False, "not novel"),
    *(step(identity, "construct", True, "human") for identity in "abc"),
    step("a", "dedup", True, "no better duplicate"),
    step("b", "dedup", False, "near duplicate", 0.9),
    step("c", "dedup", False, "near duplicate", 0.8),
    step("a", "mix", True, "training"),
    step("d", "mix", False, "replay has enough"),
]


def receipt_file(path: Path) -> Path:
    said: list[dict[str, object]] = [
        {"id": i, "origin": "general" if i == "d" else "human", "source": [], "instruction": f"{i}?", "output": ""}
        for i in "abcd"
    ]
    table = join(table_of(STEPS, Receipt), pa.Table.from_pylist(said, schema=content_schema()), pa.array(["a"]))
    pq.write_table(table, path)
    return path


def test_each_lane_counts_what_its_stages_kept_and_dropped(tmp_path: Path) -> None:
    funnel = read_funnel(receipt_file(tmp_path / "receipt.parquet"))
    domain, general = funnel.lanes
    assert [(p.stage, p.kept, sum(drop.count for drop in p.drops)) for p in domain.stages] == [
        ("ingest", 3, 0),
        ("construct", 3, 1),
        ("dedup", 1, 2),
        ("mix", 1, 0),
    ]
    assert [(p.stage, p.kept, sum(drop.count for drop in p.drops)) for p in general.stages] == [
        ("ingest", 1, 0),
        ("mix", 0, 1),
    ]
    assert (domain.seen, domain.trained, general.trained) == (4, 1, 0)
    assert (funnel.seen, funnel.trained) == ({"general": 1, "human": 3, "unknown": 1}, {"human": 1})


def test_every_reason_has_its_samples_and_says_whether_they_are_of_other_use(tmp_path: Path) -> None:
    drops = {drop.reason: drop for drop in read_funnel(receipt_file(tmp_path / "receipt.parquet")).drops}
    assert list(drops) == ["not novel", "near duplicate", "replay has enough"]
    assert [(s["instruction"], s["score"]) for s in drops["near duplicate"].samples] == [("b?", 0.9), ("c?", 0.8)]
    assert [drop.reserved for drop in drops.values()] == [False, False, True]


def test_the_plot_counts_the_rows_of_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in ("ingest", "feedback", "construct", "validate", "dedup"):
        write_records(layout.INGEST.parent / stage / "examples.parquet", [], Example)
    counts = {"domain": 5, "replay": 3, "train": 7}
    with pytest.raises(RecordError, match="select"):
        write_counts(counts)
    write_records(layout.SELECT / "examples.parquet", [], Example)
    write_counts(counts)
    lines = (layout.PLOTS / "data_counts.csv").read_text().splitlines()
    assert lines[0] == "stage,examples" and lines[-3:] == ["leak guard,5", "replay added,3", "train,7"]


ACTUAL = {
    "attempts": 1,
    "seconds": 80.0,
    "peak_bytes": 2 << 30,
    "energy_kwh": None,
    "trainable_parameters": 1000,
}
PREDICTED = {
    "time": {"seconds": 100.0},
    "memory": {"needed": 1 << 30},
    "energy_kwh": 0.002,
    "parameters": {"trained": 1000},
}


def row(*cells: str) -> dict[str, str]:
    return dict(zip(("stage", "what", "predicted", "actual", "off"), cells, strict=True))


def test_each_figure_stands_beside_what_was_predicted(tmp_path: Path) -> None:
    """100 s for 80 is a quarter too much, 1 GiB for 2 half too little; energy that was not measured has no row."""
    write_json(tmp_path / layout.MEASURED / "sft.json", ACTUAL)
    write_json(tmp_path / layout.MEASURED / "sft.predicted.json", PREDICTED)
    assert read_costs(tmp_path) == [
        row("sft", "time", "100 s", "80 s", "+25%"),
        row("sft", "peak memory", "1.00 GiB", "2.00 GiB", "-50%"),
        row("sft", "trained parameters", "1,000", "1,000", "+0%"),
    ]


def test_on_gpus_the_fullest_one_counts_because_a_prediction_is_for_each(tmp_path: Path) -> None:
    processes = [{"rank": 0, "peak_gpu_bytes": 1 << 30}, {"rank": 1, "peak_gpu_bytes": 2 << 30}]
    write_json(tmp_path / layout.MEASURED / "sft.json", {**ACTUAL, "peak_gpu_bytes": 3 << 30, "processes": processes})
    write_json(tmp_path / layout.MEASURED / "sft.predicted.json", PREDICTED)
    assert read_costs(tmp_path)[1] == row("sft", "peak memory", "1.00 GiB", "2.00 GiB", "-50%")


def test_what_was_not_predicted_is_a_dash_and_a_run_that_went_on_says_so(tmp_path: Path) -> None:
    write_json(tmp_path / layout.MEASURED / "sft.json", {**ACTUAL, "attempts": 2})
    assert read_costs(tmp_path)[0] == row("sft", "time (2 attempts)", "–", "80 s", "–")


def test_nothing_trained_or_a_torn_file_gives_no_row(tmp_path: Path) -> None:
    assert read_costs(tmp_path) == []
    (tmp_path / layout.MEASURED).mkdir(parents=True)
    (tmp_path / layout.MEASURED / "sft.json").write_text('{"sec')
    assert read_costs(tmp_path) == []
