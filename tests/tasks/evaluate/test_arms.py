"""The reserve on a real registry with real OpenCompass: other words than the gate's, and each opening written down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flywheel.cli import main
from tasks.core import layout
from tasks.core.files import verify_manifest
from tasks.core.records import EvaluationItem, make_item, write_jsonl
from tasks.evaluate.arms import NoReserve, open_reserve
from tasks.evaluate.scoring.subject import load_subject
from tasks.registry.runs import open_run
from tasks.registry.versions import Registry
from tasks.store.migrate import migrate
from tests.mlflow_store import lay_mlflow

pytestmark = pytest.mark.slow

SHED = make_item(
    set="domain",
    prompt="A shed?",
    paraphrases=("May I build a shed?", "棚子？"),
    reference="Not below 15 m2.",
    facts=(("15 m2",),),
)


def lay_items(*items: EvaluationItem) -> None:
    for name in ("domain", "declining"):  # the other sets stay as they are
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", [item for item in items if item.set == name])


def compare(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["compare", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_version_is_asked_both_wordings_and_every_opening_is_counted(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("FLYWHEEL_ROOT", str(repository))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    migrate(home=repository)
    unknown = make_item(set="declining", prompt="Who won?", paraphrases=("Which team won?",))
    fields = SHED.model_dump(exclude={"id", "prompt", "paraphrases"})
    more = [make_item(**fields, prompt=f"Shed {n}?", paraphrases=(f"Do I build shed {n}?",)) for n in range(4)]
    lay_items(SHED, *more, unknown)
    registry = Registry("construction", lay_mlflow(repository))
    run_id = open_run(registry.client, repository, "construction", "one", "test")
    registry.client.log_artifacts(run_id, str(layout.PACKAGE), "package")
    digest = verify_manifest(layout.PACKAGE)
    registry.register(run_id, {"manifest_sha256": digest, "verdict_sha256": "1", "verdict": "hold"})

    found = compare("1", "--open-reserve", "before the audit")
    assert [(arm["name"], arm["n"]) for arm in found["arms"]] == [
        ("version 1, as the gate asks", 5),
        ("version 1, the reserve", 5),
    ]
    asked = layout.HOME / "evaluation/candidate/data"
    assert "May I build a shed?" in (asked / "domain_generation.jsonl").read_text(encoding="utf-8")
    assert "Which team won?" in (asked / "declining_generation.jsonl").read_text(encoding="utf-8")
    shutil.rmtree(asked)
    assert (found["opened_before"], compare("1", "--open-reserve", "again")["opened_before"]) == (0, 1)
    assert not asked.exists(), "what was asked once is known"


def test_a_domain_without_other_words_has_no_reserve(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    lay_items(make_item(set="domain", prompt="A shed?", reference="No.", facts=(("no",),)))
    with pytest.raises(NoReserve, match=r"no question of construction with key facts has `paraphrases`"):
        open_reserve({"version 1": load_subject("candidate")})
