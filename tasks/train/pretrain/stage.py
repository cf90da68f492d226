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
from tasks.core.files import verify_manifest
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.core.tables import count_rows
from tasks.train.entry.training import Place, common_fields, switched_off, train
from tasks.train.pretrain.job import PretrainJob
from tasks.train.pretrain.rows import PretrainError
from tasks.train.run.handover import Weights
from tasks.train.run.job import curves

PLACE = Place(layout.PRETRAIN, "pretrain", layout.PLOTS / "pretrain_loss.csv")
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
    begin = Weights(layout.BASE_MODEL, verify_manifest(layout.BASE_MODEL))
    return PretrainJob(
        data={"documents": DOCUMENTS, "general": GENERAL},
        **common_fields("pretrain", params.pretrain, params, domain, begin),
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


def stage() -> str:
    """Train, or say that the settings ask for none."""
    params = load_params()
    if not params.pretrain.enabled:
        return switched_off(PLACE, "pretrain.enabled is false")
    domain = load_domain(params.domain)
    metrics, digest = train(
        describe(params, domain),
        PLACE,
        domain.base_model.name,
        lambda result: (metrics_of(result), curves(result["history"], PLACE.columns)),
    )
    return f"{metrics['steps']} steps over {metrics['tokens']} tokens, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("pretrain", stage)


if __name__ == "__main__":
    main()
