"""Stage pretrain: the base model reads the domain's documents, with general text mixed in, before it learns to answer.

Off by default. It imports no torch: like stage sft it describes a job, has worker processes carry it out under
DeepSpeed, and goes on from the last complete checkpoint after a kill. SFT then begins from what it leaves: its adapter
is trained on where the method is the same (tasks/train/run/methods.py), whole weights are a base model of their own.
Limits: a night that trains a champion's adapter further does not read it; that adapter holds what it gave.
"""

from __future__ import annotations

from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.files import verify_manifest, write_json, write_text
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.core.tables import count_rows
from tasks.train.entry.execute import execute, run_folder
from tasks.train.pretrain.job import PretrainJob
from tasks.train.pretrain.rows import PretrainError
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import write_nothing, write_trained
from tasks.train.run.job import launch_files, read_result
from tasks.train.run.launch import CONFIGS, read_launch
from tasks.train.run.precision import resolve_precision

METRICS = layout.METRICS / "pretrain.json"
LOSS_PLOT = layout.PLOTS / "pretrain_loss.csv"
DOCUMENTS = layout.INGEST / "documents.parquet"
GENERAL = layout.MIX / "general.parquet"  # what passed the leak guard


def describe(params: Params, domain: Domain) -> PretrainJob:
    """The job that the settings ask for.

    Raises:
        PretrainError: the domain has no documents, or no general text where the settings want some.
    """
    if not count_rows(DOCUMENTS):
        raise PretrainError(
            f"pretrain.enabled needs documents, and domains/{params.domain}/domain.yaml lists none that could be read; "
            "add some (docs/domains.md), or set pretrain.enabled: false"
        )
    if params.pretrain.general_ratio and not count_rows(GENERAL):
        raise PretrainError(
            f"pretrain.general_ratio needs general text, and domains/{params.domain}/domain.yaml lists none; "
            "add some, or set pretrain.general_ratio: 0 and watch what the model forgets"
        )
    settings, launch = params.pretrain, read_launch(params.pretrain.launch)
    return PretrainJob(
        stage="pretrain",
        base_model=layout.BASE_MODEL,
        base_digest=verify_manifest(layout.BASE_MODEL),
        data={"documents": DOCUMENTS, "general": GENERAL},
        system=domain.system_text(),
        seed=params.seed,
        processes=launch["num_processes"],
        settings=settings.model_copy(update={"precision": resolve_precision(settings.precision, launch)}),
        method=params.methods.of(settings.method).model_dump(),
        launch_files=launch_files(settings.launch, launch, CONFIGS),
    )


def metrics_of(result: dict[str, Any]) -> dict[str, Any]:
    """The stage's metrics: losses in nats a token, of the first and of the last measurement of each held-out kind."""
    metrics = {key: value for key, value in result.items() if key != "history"}
    train = [value for _, name, value in result["history"] if name == "train"]
    metrics["train_loss"] = sum(train) / len(train)
    for kind in ("domain", "general"):
        losses = [value for _, name, value in result["history"] if name == kind]
        if losses:
            metrics[f"{kind}_loss_before"], metrics[f"{kind}_loss"] = losses[0], losses[-1]
    return metrics


def plot_of(history: list[list[Any]]) -> str:
    """The loss curves as CSV: step, split, loss."""
    return "step,split,loss\n" + "".join(f"{step},{split},{loss}\n" for step, split, loss in history)


def stage() -> str:
    """Train, or say that the settings ask for none."""
    params = load_params()
    if not params.pretrain.enabled:
        write_json(METRICS, {"steps": 0})
        write_text(LOSS_PLOT, plot_of([]))
        return write_nothing(layout.PRETRAIN, "pretrain.enabled is false")
    domain = load_domain(params.domain)
    job = describe(params, domain)
    run = run_folder(job)
    done = execute(job, run)
    result = read_result(done)
    metrics = metrics_of(result)
    digest = write_trained(done, layout.PRETRAIN, domain.base_model.name)
    write_json(METRICS, metrics)
    write_text(LOSS_PLOT, plot_of(result["history"]))
    forget(run)
    return f"{metrics['steps']} steps over {metrics['tokens']} tokens, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("pretrain", stage)


if __name__ == "__main__":
    main()
