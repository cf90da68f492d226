"""The gate on a domain's own benchmarks, and on a domain that goes without a guard of Flywheel's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tasks.core import layout
from tasks.core.benchmarks import Benchmark
from tasks.core.files import digest_of
from tasks.core.params import load_params
from tasks.core.records import Score, make_item, write_jsonl
from tasks.evaluate.gate import stage as gate
from tasks.evaluate.gate.requirements import NIGHT, RELEASE, SMALLER
from tasks.evaluate.gate.scores import NoVerdict, Table
from tasks.evaluate.gate.verdict import judge
from tasks.evaluate.scoring.questions import METRICS
from tasks.evaluate.scoring.subject import Subject

CANDIDATE = Subject("candidate", None, "c" * 64, Path("base"), "b" * 64, Path("adapter"), "a" * 64)
CHAMPION = Subject("champion", "base", "b" * 64, Path("base"), "b" * 64)
IDS = [f"{number:064x}" for number in range(60)]
GAIN = {"rouge_l": 0.1, "nll": -0.5, "right": 0.5}


def own(gate: Any, **fields: Any) -> Benchmark:
    return Benchmark.model_validate({"name": "own", "config": "own.py", "gate": gate, **fields})


def sides(after: list[float], before: list[float], without: tuple[str, ...] = ()) -> tuple[Table, Table]:
    """The candidate gains on the domain; nothing else moves but `own`."""
    columns = [(name, metric) for name, found in METRICS.items() for metric in found if name not in without]
    old: Table = {column: {one: number / 100 for number, one in enumerate(IDS)} for column in columns}
    new: Table = {
        (name, metric): {
            one: value + (GAIN.get(metric, 0.0) * (1 + number % 2) if name in ("domain", "facts") else 0.0)
            for number, (one, value) in enumerate(old[name, metric].items())
        }
        for name, metric in columns
    }
    old["own", "correct"], new["own", "correct"] = (dict(zip(IDS, side, strict=True)) for side in (before, after))
    return new, old


RIGHT = [float(number % 4 != 0) for number in range(60)]  # three quarters
WRONG = [1.0 - value for value in RIGHT]


@pytest.mark.parametrize(
    ("asked", "after", "before", "outcome", "words"),
    [
        ("superiority", RIGHT, WRONG, "promote", "Own improves by 0.500 of the items"),
        ("superiority", RIGHT, RIGHT, "hold", "no gain is shown"),
        ("superiority", WRONG, RIGHT, "reject", "a loss is shown"),
        ({"non_inferiority": 0.07}, RIGHT, RIGHT, "promote", "within the 0.07 allowed"),
        # Of 60 items none lost: 6.0% of all may.
        ({"non_inferiority": 0.05}, RIGHT, RIGHT, "hold", "With about 72 items it would be settled"),
        ({"non_inferiority": 0.05}, WRONG, RIGHT, "reject", "more than the 0.05 allowed"),
        # 45 of 60 are 0.75, with an interval of about 0.11 on either side.
        ({"floor": 0.6}, RIGHT, WRONG, "promote", "Own reaches 0.750 of the items"),
        ({"floor": 0.7}, RIGHT, WRONG, "hold", "the interval goes below it"),
        ({"floor": 0.7}, WRONG, WRONG, "reject", "below it with the whole interval"),
    ],
)
def test_a_benchmark_decides_by_what_its_gate_asks(
    asked: Any, after: list[float], before: list[float], outcome: str, words: str
) -> None:
    new, old = sides(after, before)
    found = judge(new, old, CANDIDATE, CHAMPION, load_params().gate, 1, RELEASE, [own(asked)])
    last = found.criteria[-1]
    assert (found.outcome, last.name, last.n) == (outcome, "own_correct", 60)
    assert words in last.reason and last.reason in found.reasons
    assert last.margin == (0.0 if asked == "superiority" else next(iter(asked.values())))


def test_fewer_is_better_where_the_set_says_so() -> None:
    new, old = sides(WRONG, RIGHT)
    better = own("superiority", higher_is_better=False)
    assert judge(new, old, CANDIDATE, CHAMPION, load_params().gate, 1, RELEASE, [better]).outcome == "promote"
    kept = own({"non_inferiority": 0.1}, higher_is_better=False)
    assert judge(old, new, CANDIDATE, CHAMPION, load_params().gate, 1, SMALLER, [kept]).outcome == "reject"


def test_a_benchmark_that_is_only_reported_decides_nothing_and_is_told_with_both_means() -> None:
    new, old = sides(WRONG, RIGHT)
    found = judge(new, old, CANDIDATE, CHAMPION, load_params().gate, 1, RELEASE, [own("report")])
    assert found.outcome == "promote" and "own_correct" not in {one.name for one in found.criteria}
    told = found.reported[-1]
    assert (told.name, told.estimate) == ("own_correct", -0.5)
    assert told.reason.startswith("own (correct): 0.750 before, 0.250 after (95% interval")


def test_a_night_is_asked_for_no_gain_on_a_benchmark_but_for_its_margin_and_its_floor() -> None:
    new, old = sides(RIGHT, RIGHT)
    sets = [own("superiority"), own({"floor": 0.5}), own({"non_inferiority": 0.05})]
    kinds = [
        [one.kind for one in judge(new, old, CANDIDATE, CHAMPION, load_params().gate, 1, asked, [each]).criteria
         if one.name == "own_correct"]
        for asked in (NIGHT, RELEASE)
        for each in sets
    ]  # fmt: skip
    assert kinds == [[], ["floor"], ["non_inferiority"], ["superiority"], ["floor"], ["non_inferiority"]]


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ((), []),
        (("mmlu",), ["General knowledge is not guarded"]),
        (("mmlu", "safety"), ["General knowledge is not guarded", "Refusing harmful requests is not guarded"]),
    ],
)
def test_what_a_domain_goes_without_is_absent_from_the_criteria_and_said_in_the_reasons(
    without: tuple[str, ...], words: list[str]
) -> None:
    found = judge(*sides(RIGHT, RIGHT, without), CANDIDATE, CHAMPION, load_params().gate, 1)
    assert found.outcome == "promote"
    assert not {one.name for one in (*found.criteria, *found.reported)} & {f"{name}_accuracy" for name in without}
    said = [reason for reason in found.reasons if "not guarded" in reason]
    assert [reason.partition(":")[0] for reason in said] == words


# The stage, on a benchmark of 60 items.


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """Whole scores of both sides; a domain of two sets of ours and one of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    folder = tmp_path / "domains/construction"
    (folder / "own").mkdir(parents=True)
    (tmp_path / "infra").symlink_to(root / "infra")
    (folder / "own/own.py").write_text("own_datasets = []\n")
    one = {"name": "own", "config": "own/own.py", "gate": {"floor": 0.5}}
    (folder / "evaluation.yaml").write_text(yaml.safe_dump([one]))
    scores = []
    for name in layout.EVALUATION_SETS:
        asked = name in ("domain", "dialogue")
        items = [make_item(set=name, prompt=f"{number}?", reference="r") for number in range(6)] if asked else []
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", items)
        scores += [Score(id=i.id, set=name, metric=metric, value=0.5) for i in items for metric in METRICS[name]]
    scores += [Score(id=i, set="own", metric="correct", value=value) for i, value in zip(IDS, RIGHT, strict=True)]
    sets = {"own": {"definition": Benchmark.model_validate(one).definition(folder), "items": digest_of(sorted(IDS))}}
    subjects = {"candidate": CANDIDATE, "champion": CHAMPION}
    for who, subject in subjects.items():
        write_jsonl(layout.EVALUATION / who / "scores.jsonl", scores)
        conditions = {"model": subject.identity, "system": None, "sets": sets}
        (layout.EVALUATION / who / "conditions.json").write_text(json.dumps(conditions))
    monkeypatch.setattr(gate, "load_subject", subjects.__getitem__)
    return tmp_path


def test_the_verdict_holds_the_benchmark_and_keeps_to_its_schema(repository: Path, root: Path) -> None:
    gate.gate()
    verdict = json.loads(layout.VERDICT.read_text())
    jsonschema.validate(verdict, json.loads((root / "docs/schemas/verdict.schema.json").read_text()))
    (found,) = [one for one in verdict["criteria"] if one["kind"] == "floor"]
    assert (found["name"], found["estimate"], found["margin"], found["passed"]) == ("own_correct", 0.75, 0.5, True)
    assert "own,correct,candidate,0.75" in gate.PLOT.read_text()
    assert sum("not guarded" in reason for reason in verdict["reasons"]) == 2


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_an_item_that_is_gone_from_a_benchmark_blocks(repository: Path, who: str) -> None:
    path = layout.EVALUATION / who / "scores.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(NoVerdict, match=f"own has other items than were asked; run the stage evaluate_{who} again"):
        gate.gate()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("own/own.py", "own_datasets = [1]\n"),
        ("own/rows.jsonl", "{}\n"),
        ("evaluation.yaml", "[]\n"),
        ("evaluation.yaml", "- {name: own, config: own/own.py, most: 5}\n"),
    ],
)
def test_a_benchmark_that_changed_after_it_was_asked_blocks(repository: Path, file: str, text: str) -> None:
    (repository / "domains/construction" / file).write_text(text)
    with pytest.raises(NoVerdict, match="the benchmarks own are others than were asked; run both"):
        gate.gate()


def test_a_new_gate_for_the_same_scores_is_judged_without_asking_again(repository: Path) -> None:
    path = repository / "domains/construction/evaluation.yaml"
    path.write_text("- {name: own, config: own/own.py, gate: report}\n")
    gate.gate()
    verdict = json.loads(layout.VERDICT.read_text())
    assert "own_correct" in {one["name"] for one in verdict["reported"]}
