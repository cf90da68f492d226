"""What a package holds, and which adapters an engine loads as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.files import write_json
from tasks.core.package import PackageUnreadable, kind_of_adapter, read_package
from tasks.core.training_params import Method

# What peft writes for each method that leaves an adapter; PiSSA is converted to a plain LoRA when it is saved.
WRITTEN: dict[Method, dict[str, Any]] = {
    "lora": {"peft_type": "LORA", "use_dora": False, "bias": "none", "rank_pattern": {}, "modules_to_save": None},
    "rslora": {"peft_type": "LORA", "use_rslora": True, "bias": "none"},
    "pissa": {"peft_type": "LORA", "bias": "none"},
    "qlora": {"peft_type": "LORA", "bias": "none"},
    "dora": {"peft_type": "LORA", "use_dora": True, "bias": "none"},
    "ia3": {"peft_type": "IA3"},
    "osf": {"peft_type": "OSF"},
    "p_tuning_v2": {"peft_type": "PREFIX_TUNING"},
    "p_tuning": {"peft_type": "P_TUNING"},
    "prompt_tuning": {"peft_type": "PROMPT_TUNING"},
}


SERVED = {"lora": "adapter", "rslora": "adapter", "pissa": "adapter", "qlora": "adapter"}
SERVED |= {"p_tuning_v2": "nothing", "p_tuning": "nothing", "prompt_tuning": "nothing"}


@pytest.mark.parametrize("method", sorted(set(get_args(Method)) - {"full"}))
def test_how_a_version_is_served_is_read_from_what_its_method_left(method: Method) -> None:
    """Low rank is loaded, virtual tokens are served by nothing, what is left is merged: docs/training.md says so."""
    assert kind_of_adapter(WRITTEN[method]).served_as == SERVED.get(method, "weights")


@pytest.mark.parametrize("beyond", [{"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"rank_pattern": {"q": 4}}])
def test_a_lora_that_no_engine_loads_is_merged(beyond: dict[str, Any]) -> None:
    assert kind_of_adapter({"peft_type": "LORA", "bias": "none"} | beyond).served_as == "weights"


def test_a_package_from_before_there_were_kinds_is_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    found = read_package(tmp_path)
    assert (found.kind.served_as, found.model, found.adapter) == ("adapter", None, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("parts", "served_as", "cause"),
    [
        ((), "adapter", "neither an adapter nor weights"),
        (("adapter",), "weights", "holds other parts"),
        (("adapter", "model"), "adapter", "holds other parts"),
        (("model",), "magic", r"kind\.json cannot be read"),
    ],
)
def test_a_package_that_contradicts_itself_is_refused(
    tmp_path: Path, parts: tuple[str, ...], served_as: str, cause: str
) -> None:
    for part in parts:
        (tmp_path / part).mkdir()
    write_json(tmp_path / "kind.json", {"served_as": served_as, "why": "test"})
    with pytest.raises(PackageUnreadable, match=cause):
        read_package(tmp_path)
