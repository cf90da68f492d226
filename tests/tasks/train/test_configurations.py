"""infra/accelerate and infra/deepspeed: the libraries' own readers accept every file; no GPU is needed for that."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.params import load_params
from tasks.core.settings import SettingsError

ROOT = Path(__file__).resolve().parents[3]
ACCELERATE = sorted((ROOT / "infra/accelerate").rglob("*.yaml"))
DEEPSPEED = sorted((ROOT / "infra/deepspeed").rglob("*.json"))


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def launch_arguments(path: Path) -> argparse.Namespace:
    """What `accelerate launch` makes of a configuration file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    parsed = launch_command_parser().parse_args(["--config_file", str(path), "-m", "tasks.train.sft.worker"])
    arguments, _, _ = _validate_launch_command(parsed)
    return arguments


def filled(path: Path, bf16: bool) -> dict[str, Any]:
    """A DeepSpeed configuration with every `auto` set by transformers, as the trainer sets it."""
    from transformers import TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    arguments = TrainingArguments(use_cpu=True, bf16=bf16, per_device_train_batch_size=4, max_grad_norm=1.0)
    config = HfTrainerDeepSpeedConfig(json.loads(path.read_text()))
    config.trainer_config_process(arguments)
    model = argparse.Namespace(config=argparse.Namespace(hidden_size=576))
    config.trainer_config_finalize(arguments, model, num_training_steps=100)
    assert "auto" not in json.dumps(config.config)
    result: dict[str, Any] = config.config
    return result


def test_there_is_a_launch_for_each_kind_of_machine_and_nothing_that_is_no_launch() -> None:
    names = {path.relative_to(ROOT / "infra/accelerate").as_posix() for path in ACCELERATE}
    assert names >= {"cpu.yaml", "gpu1.yaml", "gpu8.yaml", "multinode.yaml", "kubernetes.yaml"}
    assert [path for path in (ROOT / "infra/accelerate").rglob("*") if path not in ACCELERATE] == []


def test_there_are_all_three_stages_with_offload_and_without_for_both_kinds_of_hardware() -> None:
    assert {path.stem for path in DEEPSPEED} == {
        f"{device}_zero{stage}{offload}"
        for device in ("cpu", "gpu")
        for stage in (1, 2, 3)
        for offload in ("", "_offload")
    }


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_reads_each_file_and_its_launcher_accepts_it(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    config = load_config_from_file(str(path))
    assert config.distributed_type == DistributedType.DEEPSPEED
    arguments = launch_arguments(path)
    assert arguments.use_deepspeed and Path(arguments.deepspeed_config_file) in [
        found.relative_to(ROOT) for found in DEEPSPEED
    ]
    unknown = [key for key in config.deepspeed_config if not hasattr(arguments, key)]
    assert unknown == []


@pytest.mark.parametrize(
    "name, machines, processes, cpu",
    [("cpu1", 1, 1, True), ("cpu", 1, 2, True), ("gpu1", 1, 1, False), ("gpu8", 1, 8, False)],
)
def test_one_machine_takes_any_free_port(name: str, machines: int, processes: int, cpu: bool) -> None:
    found = launch_arguments(ROOT / f"infra/accelerate/{name}.yaml")
    assert (found.num_machines, found.num_processes, found.use_cpu) == (machines, processes, cpu)
    assert found.main_process_port == 0


def test_the_hostfile_has_a_slot_for_every_process_of_the_multinode_launch() -> None:
    from deepspeed.launcher.runner import fetch_hostfile

    found = launch_arguments(ROOT / "infra/accelerate/multinode.yaml")
    hosts = fetch_hostfile(found.deepspeed_hostfile)
    assert len(hosts) == found.num_machines and sum(hosts.values()) == found.num_processes
    assert found.main_process_ip == next(iter(hosts))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_deepspeed_accepts_each_file_once_the_trainer_has_filled_it(path: Path, bf16: bool) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    config = DeepSpeedConfig(filled(path, bf16))
    assert config.zero_optimization_stage == int(path.stem.removesuffix("_offload")[-1])
    offloads = config.zero_config.offload_optimizer is not None
    assert offloads == path.stem.endswith("_offload")
    assert (config.zero_config.offload_param is not None) == (offloads and config.zero_optimization_stage == 3)
    assert config.bfloat16_config.enabled is bf16
    assert (config.train_micro_batch_size_per_gpu, config.gradient_clipping) == (4, 1.0)


@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_each_deepspeed_file_has_only_known_sections_and_is_used(path: Path) -> None:
    known = {
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
        "bf16",
        "zero_optimization",
    }
    assert set(json.loads(path.read_text())) - {"zero_force_ds_cpu_optimizer"} == known
    used = [yaml.safe_load(found.read_text())["deepspeed_config"]["deepspeed_config_file"] for found in ACCELERATE]
    assert path.relative_to(ROOT).as_posix() in used


def settings_with(launch: str, path: Path) -> Path:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["sft"]["launch"] = launch
    path.write_text(yaml.safe_dump(settings))
    return path


def test_params_accept_the_launches_that_have_a_file_and_no_others(tmp_path: Path) -> None:
    for path in ACCELERATE:
        assert load_params(settings_with(path.stem, tmp_path / "params.yaml")).sft.launch == path.stem
    with pytest.raises(SettingsError, match=r"tpu\.yaml does not exist"):
        load_params(settings_with("tpu", tmp_path / "params.yaml"))
