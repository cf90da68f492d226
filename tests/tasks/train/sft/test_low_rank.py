"""LoRA in fewer passes is peft's LoRA: the same outputs and gradients, and left to peft where it is more than that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tasks.train.sft import low_rank


def a_layer(bias: bool = False, **lora: Any) -> Any:
    """A linear layer of 6 inputs and 5 outputs with LoRA of rank 2, none of it zero."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=bias)).double()
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["0"], init_lora_weights=False, **lora)
    return get_peft_model(model, config, autocast_adapter_dtype=False).double().train()


def run(model: Any) -> list[Any]:
    """Output, and the gradients of input, A and B for a loss that weighs every output."""
    x = torch.linspace(-1, 1, 4 * 3 * 6, dtype=torch.double).view(4, 3, 6).requires_grad_()
    out = model(x)
    (out * torch.arange(1, 6)).sin().sum().backward()
    return [out.detach(), x.grad, *(weight.grad for weight in model.parameters() if weight.requires_grad)]


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"use_rslora": True}])
def test_outputs_and_gradients_are_those_of_peft(options: dict[str, Any]) -> None:
    expected, model = run(a_layer(**options)), a_layer(**options)
    assert low_rank.use_fewer_passes(model) == 1
    found = run(model)
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_a_layer_that_is_more_is_left_to_peft(options: dict[str, Any]) -> None:
    assert low_rank.use_fewer_passes(a_layer(**options)) == 0


def test_without_its_adapter_a_layer_is_the_base_layer() -> None:
    model = a_layer()
    low_rank.use_fewer_passes(model)
    x = torch.ones(1, 6, dtype=torch.double)
    with model.disable_adapter():
        assert torch.equal(model(x), model.base_model.model[0].base_layer(x))
    assert not torch.equal(model(x), model.base_model.model[0].base_layer(x))
