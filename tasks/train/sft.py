"""Stage sft: supervised fine-tuning of the base model on the mixed examples, with loss on the answers only.

The stage itself imports no torch: it describes the job, lets `accelerate launch` run the worker processes under
DeepSpeed as infra/accelerate/<sft.launch>.yaml says, and writes the outputs when they are done. A run that was killed,
however hard, goes on from its last complete checkpoint when the stage is started again, to the same weights.
With an adapter in data/start it goes on from that one instead of a fresh one.
Limits: one method, LoRA (Hu et al. 2021, arXiv 2106.09685); equal bytes are promised on one kind of processor.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks import layout
from tasks.domain import Domain, load_domain
from tasks.files import fresh_directory, sha256_file, verify_manifest, write_json, write_manifest, write_text
from tasks.params import Params, load_params
from tasks.stage import run_stage
from tasks.train.checkpoints import final_of, last_complete
from tasks.train.job import SftJob, launch_files, read_result
from tasks.train.launch import CONFIGS, LaunchError, launch, read_launch
from tasks.train.start import adapter_to_continue

CHECKPOINTS = layout.CHECKPOINTS / "sft"
ADAPTER = layout.SFT / "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
METRICS = layout.METRICS / "sft.json"
LOSS_PLOT = layout.PLOTS / "sft_loss.csv"


def describe(params: Params, domain: Domain) -> SftJob:
    """The job that the settings ask for; the base model's manifest is checked on the way."""
    settings = read_launch(params.sft.launch)
    start = adapter_to_continue()
    return SftJob(
        base_model=layout.BASE_MODEL,
        train=layout.MIX / "train.jsonl",
        validation=layout.MIX / "validation.jsonl",
        system=domain.system_text(),
        seed=params.seed,
        processes=settings["num_processes"],
        settings=params.sft,
        base_digest=verify_manifest(layout.BASE_MODEL),
        start=start,
        start_digest=sha256_file(start / ADAPTER_WEIGHTS) if start else None,
        launch_files=launch_files(params.sft.launch, settings, CONFIGS),
    )


def train(job: SftJob, run: Path) -> Path:
    """Run the workers unless this very job has ended before; returns the folder with what it gave.

    Raises:
        LaunchError: a worker failed.
    """
    if done := final_of(run):
        return done
    checkpoint = last_complete(run)
    job.write(run / "job.json")
    arguments = [str(run / "job.json"), str(run)]
    launch(job.settings.launch, "tasks.train.sft_worker", arguments + ([str(checkpoint)] if checkpoint else []))
    done = final_of(run)
    if done is None:
        raise LaunchError("the workers ended without an error and without a result")
    return done


def clean_config(config: dict[str, Any], base_name: str) -> dict[str, Any]:
    """An adapter configuration without paths, its sets (which come in any order) sorted."""
    cleaned = {key: sorted(value) if _is_set_of_names(value) else value for key, value in config.items()}
    return {**cleaned, "base_model_name_or_path": base_name}


def _is_set_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def write_adapter(source: Path, target: Path, base_name: str) -> str:
    """Copy the trained adapter to its place, whole or not at all; returns its digest."""
    config = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    with fresh_directory(target) as folder:
        shutil.copyfile(source / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
        write_json(folder / ADAPTER_CONFIG, clean_config(config, base_name))
        return write_manifest(folder)


def metrics_of(result: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The stage's metrics: `train_loss` is the mean over the steps of the last epoch, both losses in nats a token."""
    losses = {split: [row[2] for row in result["history"] if row[1] == split] for split in ("train", "validation")}
    last_epoch = losses["train"][-(len(losses["train"]) // epochs) :]
    metrics = {key: value for key, value in result.items() if key != "history"}
    metrics["train_loss"] = sum(last_epoch) / len(last_epoch)
    if losses["validation"]:
        metrics["validation_loss_before"] = losses["validation"][0]
        metrics["validation_loss"] = losses["validation"][-1]
    return metrics


def plot_of(result: dict[str, Any]) -> str:
    """The loss curve as CSV: step, split, loss."""
    return "step,split,loss\n" + "".join(f"{step},{split},{loss}\n" for step, split, loss in result["history"])


def stage() -> str:
    """Train, then put adapter, metrics and curve in their places; only then are the checkpoints removed."""
    params = load_params()
    domain = load_domain(params.domain)
    job = describe(params, domain)
    run = CHECKPOINTS / job.digest()
    done = train(job, run)
    result = read_result(done)
    metrics = metrics_of(result, params.sft.epochs)
    digest = write_adapter(done, ADAPTER, domain.base_model.name)
    write_json(METRICS, metrics)
    write_text(LOSS_PLOT, plot_of(result))
    shutil.rmtree(run)
    return f"{metrics['steps']} steps, train loss {metrics['train_loss']:.4f}, adapter digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("sft", stage)


if __name__ == "__main__":
    main()
