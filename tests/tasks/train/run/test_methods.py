"""Every method of params.yaml: what it trains, what it leaves, and that training goes on from it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.training_params import METHODS, Method, MethodsParams, SftParams
from tasks.train.run.export import make_plain
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import launch
from tasks.train.run.methods import (
    AdapterMismatch,
    MethodUnavailable,
    parameter_counts,
    peft_config,
    prepared,
    quantisation_of,
    shape_of,
    virtual_positions,
)
from tasks.train.run.shape import read_shape, trained_parameters
from tasks.train.sft.stage import describe
from tests import training_job
from tests.families import lay_family

ADAPTERS = sorted(set(get_args(Method)) - {"full"})
IDS = torch.arange(100, 120)[None]
# Small ones. A two-layer model is 576 wide, 192 for keys and values, 1536 inside.
LORA: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
SMALL: dict[str, Any] = {
    "full": {"train_embeddings": False},
    **dict.fromkeys(("lora", "rslora", "dora"), LORA),
    "pissa": {"rank": 4, "alpha": 8, "iterations": 4, "target_modules": ["q_proj", "v_proj"]},
    "qlora": {**LORA, "quantisation": "nf4", "double_quantisation": True},
    "p_tuning_v2": {"virtual_tokens": 5, "projection": True, "hidden": 32},
    "p_tuning": {"virtual_tokens": 5, "encoder": "mlp", "hidden": 32},
    "prompt_tuning": {"virtual_tokens": 5, "begin_with": "Answer briefly and safely."},
    "ia3": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "osf": {"target_modules": ["v_proj"], "kept_rank": 150},
}
RANK_FOUR = 2 * 4 * ((576 + 576) + (576 + 192))
TRAINED = {
    **dict.fromkeys(("lora", "rslora", "pissa", "qlora"), RANK_FOUR),
    "dora": RANK_FOUR + 2 * (576 + 192),  # and the length of each output's weights
    "ia3": 2 * (192 + 192 + 1536),  # keys, values; of the feed-forward its input
    "prompt_tuning": 5 * 576,
    # A table of 5 × 576, then a network 576 → 32 → 32 → 576 with its biases.
    "p_tuning": 5 * 576 + (576 * 32 + 32) + (32 * 32 + 32) + (32 * 576 + 576),
    # A table of 5 × 192, then 192 → 32 → keys and values of 192 for 2 layers.
    "p_tuning_v2": 5 * 192 + (192 * 32 + 32) + (32 * 768 + 768),
    "osf": 2 * (42 * 192 + 42 + 42 * 576),  # 192 - 150 directions of the value projections
    "full": 2 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576) + 576,  # all but the embeddings
}


def a_job(root: Path, model: Path, method: str, start: Path | None = None, **changes: Any) -> TrainingJob:
    """A job of a method with the small settings above."""
    return training_job.a_job(root, model, method, {**SMALL[method], **changes}, start)


def loaded(job: TrainingJob) -> Any:
    """The job's base model; made ready to train, with dropout that is nowhere above 0."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.manual_seed(0)
    options = quantisation_of(job)
    model = AutoModelForCausalLM.from_pretrained(
        job.base_model, dtype=torch.float32, attn_implementation="eager", **options
    )
    return model.train()


def assert_counts(model: Any, job: Any) -> None:
    """As peft builds it, and as it is counted without a model."""
    counted = trained_parameters(read_shape(job.base_model), job.settings.method, job.method_section())
    assert parameter_counts(model)["trainable_parameters"] == counted == TRAINED[job.settings.method]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
    return found[:, found.shape[1] - IDS.shape[1] :]


def trained(job: TrainingJob, folder: Path) -> Any:
    """The model after three steps on one text, saved in its plain form."""
    model = prepared(loaded(job), job).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        loss = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    model.save_pretrained(folder)
    make_plain(model, folder)
    return model


@pytest.fixture(scope="module")
def lora(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A trained LoRA, and the logits of the model with it."""
    folder = tmp_path_factory.mktemp("lora")
    return folder, logits(trained(a_job(root, tiny_model, "lora"), folder))


@pytest.mark.parametrize("method", ADAPTERS)
def test_what_a_method_leaves_is_what_it_learnt_and_can_be_trained_further(
    method: str, root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Read back by peft over the untouched base model, and as the beginning of another training."""
    job = a_job(root, tiny_model, method)
    model = trained(job, tmp_path)
    assert_counts(model, job)
    expected = logits(model)
    back = PeftModel.from_pretrained(loaded(job), tmp_path).train()
    assert torch.allclose(logits(back), expected, atol=1e-3)
    further = prepared(loaded(job), a_job(root, tiny_model, method, start=tmp_path)).train()
    assert torch.allclose(logits(further), expected, atol=1e-3)
    assert parameter_counts(further)["trainable_parameters"] > 0
    assert json.loads((tmp_path / "adapter_config.json").read_text()).get("tokenizer_name_or_path") is None


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "pissa", "ia3", "osf"])
def test_all_linear_is_the_list_of_a_llama_s_seven_modules(method: str, root: Path, tmp_path: Path) -> None:
    """The same keys are trained, and a job of one kind goes on from an adapter of the other."""
    llama, kept = lay_family(tmp_path, "llama"), {"kept_rank": 20} if method == "osf" else {}
    jobs = [a_job(root, llama, method, target_modules=modules, **kept) for modules in ("all-linear", SEVEN)]
    trained_keys = [
        {name for name, weight in prepared(loaded(job), job).named_parameters() if weight.requires_grad} for job in jobs
    ]
    assert trained_keys[0] == trained_keys[1]
    assert {name for name in SEVEN if any(f".{name}." in key for key in trained_keys[0])} == set(SEVEN)
    assert shape_of(peft_config(jobs[0], "CAUSAL_LM")) == shape_of(peft_config(jobs[1], "CAUSAL_LM"))
    counts = {trained_parameters(read_shape(llama), job.settings.method, job.method_section()) for job in jobs}
    assert len(counts) == 1


def test_layers_that_a_model_calls_otherwise_are_refused_with_those_it_has(root: Path, tmp_path: Path) -> None:
    job = a_job(root, lay_family(tmp_path, "phi3"), "lora")
    with pytest.raises(MethodUnavailable, match=r"\['q_proj', 'v_proj'\] are no .*`all-linear`, or .*'qkv_proj'\]"):
        peft_config(job, "CAUSAL_LM")


def test_pissa_begins_as_the_base_model_and_ends_as_a_lora_of_twice_the_rank(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    job = a_job(root, tiny_model, "pissa")
    plain = logits(loaded(job))
    assert torch.allclose(logits(prepared(loaded(job), job)), plain, atol=1e-3)
    trained(job, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_the_head_is_asked_behind_the_virtual_tokens(root: Path, tiny_model: Path) -> None:
    """Embedded tokens lengthen the logits by their number; prefixes, keys and values of each layer, do not."""
    for method, positions in (("prompt_tuning", 5), ("p_tuning", 5), ("p_tuning_v2", 0), ("lora", 0)):
        job = a_job(root, tiny_model, method)
        model = prepared(loaded(job), job)
        with torch.no_grad():
            found = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
        assert found.shape[1] - IDS.shape[1] == virtual_positions(model) == positions


@pytest.mark.parametrize(
    "method, changes, said",
    [
        ("lora", {"rank": 8}, "methods.lora leaves LORA"),
        ("lora", {"target_modules": ["q_proj"]}, "target_modules q_proj"),
        ("rslora", {}, "use_rslora True"),
        ("dora", {}, "use_dora True"),
        ("pissa", {}, "r 8"),
        ("ia3", {}, "methods.ia3 leaves IA3"),
        ("prompt_tuning", {}, "PROMPT_TUNING"),
    ],
)
def test_an_adapter_of_another_shape_is_not_trained_further(
    method: str, changes: dict[str, Any], said: str, root: Path, tiny_model: Path, lora: tuple[Path, torch.Tensor]
) -> None:
    job = a_job(root, tiny_model, method, start=lora[0], **changes)
    with pytest.raises(AdapterMismatch, match=said):
        prepared(loaded(job), job)


def test_training_every_weight_begins_from_the_merged_adapter(
    root: Path, tiny_model: Path, lora: tuple[Path, torch.Tensor]
) -> None:
    job = a_job(root, tiny_model, "full", start=lora[0])
    model = prepared(loaded(job), job)
    assert_counts(model, job)
    assert torch.allclose(logits(model), lora[1], atol=1e-3)


def test_whole_weights_are_left_with_the_base_model_s_own_tokenizer(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    job = a_job(root, tiny_model, "full", train_embeddings=True)
    expected = logits(trained(job, tmp_path))
    back = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    assert torch.allclose(logits(back), expected, atol=1e-4)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (tiny_model / name).read_bytes()
    assert str(tiny_model) not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("method", ["osf", "qlora"])
def test_methods_that_need_whole_weights_refuse_zero_3(
    method: str, root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(MethodUnavailable, match=r"set sft\.launch to a file of .* with ZeRO-2"):
        prepared(None, a_job(root, tiny_model, method))
    if method == "qlora":  # before anything is loaded: transformers refuses it too, but names no setting
        with pytest.raises(MethodUnavailable, match="ZeRO-2"):
            quantisation_of(a_job(root, tiny_model, method))


def test_qlora_is_refused_where_deepspeed_trains_on_processors(
    root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(MethodUnavailable, match="needs a GPU"):
        quantisation_of(a_job(root, tiny_model, "qlora"))


def test_the_table_of_methods_is_whole() -> None:
    assert set(METHODS) == set(get_args(Method)) == set(MethodsParams.model_fields) == set(SMALL)


@pytest.mark.parametrize("method", [name for name, facts in METHODS.items() if facts.virtual])
def test_packed_examples_cannot_have_prefixes(method: str, root: Path) -> None:
    settings = load_params(root / "params.yaml").sft.model_dump()
    with pytest.raises(ValidationError, match="packing cannot be used"):
        SftParams.model_validate({**settings, "method": method, "packing": True})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_method_trains_in_two_processes_under_deepspeed(
    workspace: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight examples, 2 × 2 a step: two steps. tests/every_method.py compares the processes' weights after each."""
    workspace(train=8, validation=2, precision="fp32", batch_size=2, epochs=1, learning_rate=1e-3)
    monkeypatch.setenv("PYTHONPATH", str(root))
    train_all("cpu", [method for method in get_args(Method) if method != "qlora"], steps=2)


def train_all(launched: str, methods: Sequence[Method], steps: int, packing: bool = False) -> None:
    """Train each method in the workspace that is entered; `packing`: those that can be packed."""
    job = describe(load_params(), load_domain("construction"))
    for method in methods:
        kind: Any = MethodsParams.model_fields[method].annotation
        changes = {"method": method, "packing": packing and not METHODS[method].virtual}
        section = kind.model_validate(SMALL[method]).model_dump()
        settings = job.settings.model_copy(update=changes)
        job.model_copy(update={"settings": settings, "method": section}).write(Path("jobs") / f"{method}.json")
    launch(launched, "tests.every_method", ["jobs"])
    for method in methods:
        result = json.loads(Path(f"jobs/{method}/final/result.json").read_text())
        before, after = (row[2] for row in result["history"] if row[1] == "validation")
        assert after < before, method
        assert result["steps"] == steps
