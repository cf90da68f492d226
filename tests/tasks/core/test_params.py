"""params.yaml: typed once, every mistake at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.params import load_params
from tasks.core.settings import SettingsError


@pytest.fixture
def changed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], Path]:
    monkeypatch.chdir(root)

    def write(change: Callable[[Any], None]) -> Path:
        value = yaml.safe_load((root / "params.yaml").read_text())
        change(value)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    return write


def test_all_mistakes_are_reported_at_once_by_key(changed: Any) -> None:
    def change(value: Any) -> None:
        value["sft"]["learning_rat"] = value["sft"].pop("learning_rate")
        value["mix"]["replay_ratio"] = 1.0
        value["gate"]["level"] = "high"

    with pytest.raises(SettingsError) as error:
        load_params(changed(change))
    text = str(error.value)
    assert "sft.learning_rat: unknown key" in text
    assert "sft.learning_rate: Field required" in text
    assert "mix.replay_ratio: " in text
    assert "gate.level: " in text


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\ngate:\n  level: 0.9\n  level: 0.95\n")
    with pytest.raises(SettingsError, match="level stands twice, in line 3 and in line 4"):
        load_params(path)


def test_two_services_on_one_port_are_refused(changed: Any) -> None:
    with pytest.raises(SettingsError, match=r"serving\.port, engine\.port, .* must differ"):
        load_params(changed(lambda value: value["serving"].update({"port": value["engine"]["port"]})))


@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "align"])
def test_qlora_is_refused_where_a_launch_has_no_gpu(name: str, changed: Any) -> None:
    with pytest.raises(SettingsError, match=rf"{name}\.method: qlora needs a GPU, and {name}\.launch: cpu has none"):
        load_params(changed(lambda value: value[name].update({"method": "qlora"})))


def test_qlora_is_taken_where_a_launch_has_a_gpu(changed: Any) -> None:
    assert load_params(changed(lambda value: value["sft"].update({"method": "qlora", "launch": "gpu1"})))


@pytest.mark.parametrize(
    "sft, align, taken",
    [("lora", "lora", True), ("dora", "full", True), ("full", "ia3", True), ("dora", "lora", False)],
)
def test_an_alignment_goes_on_from_what_sft_leaves(sft: str, align: str, taken: bool, changed: Any) -> None:
    """An adapter is trained further by its own method, or merged where every weight is."""

    def change(value: Any) -> None:
        value["sft"]["method"] = sft
        value["align"] |= {"method": align, "alignment": "dpo"}

    if taken:
        assert load_params(changed(change)).align.method == align
    else:
        with pytest.raises(SettingsError, match=r"align\.method: lora cannot go on from what sft\.method: dora leaves"):
            load_params(changed(change))


def test_contradictory_values_are_refused_by_name(changed: Any) -> None:
    def change(value: Any) -> None:
        value["sft"]["max_tokens"] = value["validate"]["max_total_tokens"] - 1
        value["sft"]["launch"] = "moonbase"
        value["evaluate"] |= {"backend": "engine", "max_new_tokens": value["engine"]["max_model_tokens"]}

    with pytest.raises(SettingsError) as error:
        load_params(changed(change))
    assert "evaluate.max_new_tokens must be below engine.max_model_tokens" in str(error.value)
    assert "validate.max_total_tokens must be at most sft.max_tokens" in str(error.value)
    assert "moonbase.yaml does not exist" in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b""])
def test_a_file_that_is_not_settings_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"params\.yaml"):
        load_params(path)


@pytest.mark.parametrize("written, read", [(False, "off"), ("off", "off"), ("own", "own")])
def test_a_memory_that_is_off_may_be_written_bare(changed: Any, written: object, read: str) -> None:
    """YAML reads a bare `off` as false."""
    assert load_params(changed(lambda value: value["serving"].update(memory=written))).serving.memory == read
