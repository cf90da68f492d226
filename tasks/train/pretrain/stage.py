"""Stage pretrain: the base model reads the domain's documents, with general text mixed in, before it learns to answer.

Off by default. SFT begins from what it leaves. Limits: a night that trains a champion's adapter further does not read
it; that adapter holds what it gave.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.params import Params
from tasks.core.tables import count_rows
from tasks.core.training_params import PretrainParams
from tasks.train.entry.training import TrainingStage, common_fields, counted
from tasks.train.pretrain.rows import PretrainError
from tasks.train.run.handover import base_model
from tasks.train.run.job import TrainingJob

DOCUMENTS = layout.INGEST / "documents.parquet"
GENERAL = layout.MIX / "general.parquet"  # what passed the leak guard


class PretrainJob(TrainingJob):
    """`data` has documents and general: the domain's documents and general examples as Parquet tables."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/tuning", "train/pretrain")
    worker: ClassVar[str] = "tasks.train.pretrain.worker"
    plot: ClassVar[Path] = layout.PLOTS / "pretrain_loss.csv"

    settings: PretrainParams


def describe(params: Params, domain: Domain) -> PretrainJob:
    """The job. Raises PretrainError: the domain has no documents, or no general text where the settings want some."""
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
    return PretrainJob(
        data={"documents": DOCUMENTS, "general": GENERAL},
        **common_fields("pretrain", params.pretrain, params, domain, base_model()),
    )


def metrics_of(result: dict[str, Any]) -> dict[str, Any]:
    """The stage's metrics: losses in nats a token, of the first and of the last measurement of each held-out kind."""
    losses = {kind: [row[2] for row in result["history"] if row[1] == kind] for kind in ("train", "domain", "general")}
    train = losses.pop("train")
    metrics = {**counted(result), "train_loss": sum(train) / len(train)}
    for kind, values in losses.items():
        if values:
            metrics[f"{kind}_loss_before"], metrics[f"{kind}_loss"] = values[0], values[-1]
    return metrics


STAGE = TrainingStage(
    "pretrain",
    layout.PRETRAIN,
    PretrainJob,
    describe,
    metrics=lambda result, *_: metrics_of(result),
    summary=lambda metrics, _: f"{metrics['steps']} steps over {metrics['tokens']} tokens",
    off=lambda params: "" if params.pretrain.enabled else "pretrain.enabled is false",
)

if __name__ == "__main__":
    STAGE.main()
