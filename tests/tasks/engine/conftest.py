"""A place to run engines in, and two small adapters that change the tiny model's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.engine.parity import ParityProbe
from tasks.text.prompts import encode_answer, encode_text, messages_of, render_prompt
from tests.preferences import write_adapter

SYSTEM = "You answer questions about building."
QUESTIONS = {"How wide is a door?": "At least 80 cm.", "Vad är bygglov?": "Ett tillstånd.", "门有多宽?": "八十厘米。"}


def make_home(folder: Path, root: Path, model: Path, **engine: Any) -> Path:
    """A folder with links to the environments and the model, and params.yaml with other engine settings."""
    params = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))
    params["engine"] |= {"precision": "fp32", "kv_cache_gib": 0.25, "max_adapters": 2, "max_adapter_rank": 16, **engine}
    (folder / layout.PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")
    for name in (".venv", ".venv-engine", "infra"):
        (folder / name).symlink_to(root / name)
    (folder / layout.BASE_MODEL).parent.mkdir(parents=True)
    (folder / layout.BASE_MODEL).symlink_to(model)
    return folder


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    names = enumerate(("first", "second"))
    return {name: write_adapter(folder / name, tiny_model, scale=0.2, seed=seed) for seed, name in names}


def probes_of(model: Path, adapter: Path | None) -> list[ParityProbe]:
    """What an evaluation by transformers in fp32 would leave for these questions (the greedy answers are not used)."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded: Any = AutoModelForCausalLM.from_pretrained(model)
    loaded = PeftModel.from_pretrained(loaded, adapter) if adapter else loaded
    probes = []
    for question, reference in QUESTIONS.items():
        prompt = render_prompt(tokenizer, SYSTEM, question)
        ids, answer = encode_text(tokenizer, prompt), encode_answer(tokenizer, reference)
        with torch.no_grad():
            logits = loaded(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item()
        messages = messages_of(SYSTEM, question)
        made = ParityProbe(messages=messages, prompt=prompt, prompt_ids=ids, reference=reference, nll=nll, answer="")
        probes.append(made)
    return probes
