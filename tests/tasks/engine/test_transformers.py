"""transformers' own server on the tiny model: the other engine, and parity where neither tokens nor losses are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.params import load_params
from tasks.core.processes import free_port
from tasks.engine.client import Engine
from tasks.engine.parity import ParityProbe, check
from tasks.engine.process import EngineProcess

from .conftest import make_home

pytestmark = pytest.mark.slow
MESSAGES = [{"role": "user", "content": "How wide is a door?"}]


@pytest.fixture(scope="module")
def engine(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = make_home(tmp_path_factory.mktemp("home"), root, tiny_model)
    settings = load_params(root / layout.PARAMS).engine.model_copy(update={"kind": "transformers", "precision": "fp32"})
    with EngineProcess(settings, home / layout.BASE_MODEL, home, free_port()) as process, Engine(process.url) as client:
        yield client


def greedy(model: Path, tokens: int) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = AutoModelForCausalLM.from_pretrained(model).generate(**ids, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_it_answers_to_our_name_for_the_base_model_and_passes_by_its_answers(engine: Engine, tiny_model: Path) -> None:
    assert engine.ready()
    probe = ParityProbe(
        messages=MESSAGES, prompt="", prompt_ids=[], reference="", nll=0.0, answer=greedy(tiny_model, tokens=48)
    )
    report = check(engine, "base", [probe], 0.05)
    assert report.ok and "tells no tokens" in report.reason, report
