"""evaluate.backend: engine. The same sets, prompts and scores, asked of a real engine over HTTP."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tasks.core import layout
from tasks.evaluate.run import stage as run
from tasks.evaluate.scoring.questions import softmax_of_negatives
from tasks.text.prompts import encode_answer, encode_text
from tests.environments import need_engine

from .test_run import Plain, items, scores_of

pytestmark = pytest.mark.slow
# Nats a token: fp32 on both sides, sums in another order.
TOLERANCE = 0.005


@pytest.fixture(scope="module")
def measured(repository: Path, root: Path) -> Iterator[Plain]:
    """The candidate, measured through an engine; works in the repository."""
    need_engine(root)
    (repository / ".venv-engine").symlink_to(root / ".venv-engine")
    settings = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    settings["evaluate"]["backend"] = "engine"
    settings["engine"] |= {"kv_cache_gib": 0.25, "max_adapters": 2}
    (repository / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with tempfile.TemporaryDirectory() as sockets, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_RPC_BASE_PATH", sockets)
        patch.chdir(repository)
        run.evaluate("candidate")
        yield Plain(layout.PACKAGE / "adapter")


def test_every_score_is_that_of_the_adapter_by_transformers_alone(measured: Plain) -> None:
    scores = scores_of("candidate")
    for name in ("domain", "dialogue"):
        for item in items(name):
            expected = measured.nll(item, encode_answer(measured.tokenizer, item.reference))
            assert scores[name, item.id, "nll"] == pytest.approx(expected, abs=TOLERANCE)
    for item in items("mmlu"):
        losses = tuple(measured.nll(item, encode_text(measured.tokenizer, choice)) for choice in item.choices)
        assert item.answer is not None
        expected = softmax_of_negatives(losses)[item.answer]
        assert scores["mmlu", item.id, "p_correct"] == pytest.approx(expected, abs=TOLERANCE)


def test_answers_are_the_greedy_ones(measured: Plain) -> None:
    conditions = json.loads((layout.EVALUATION / "candidate/conditions.json").read_text(encoding="utf-8"))
    assert conditions["backend"] == "opencompass-0.5.4/engine"
    lines = (layout.EVALUATION / "candidate/answers.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {row["id"]: row["text"] for row in map(json.loads, lines) if row["set"] == "domain"}
    assert answers == {item.id: measured.text(item) for item in items("domain")}
