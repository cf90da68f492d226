"""Where training starts from, and one real run that goes on from an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.files import verify_manifest, write_json, write_manifest
from tasks.core.params import FeedbackParams
from tasks.core.pointers import FeedbackPointer, StartPoint, adapter_to_continue, goes_on
from tasks.train.run.handover import before_sft
from tasks.train.start.stage import StartError, start, starting_version
from tests.preferences import write_adapter
from tests.training import answer_losses, run_stage

WITH_ROWS = FeedbackPointer(count=1, digest="a" * 64, watermark=1, start=StartPoint(version="3", digest="b" * 64))


def settings(where: Any) -> FeedbackParams:
    return FeedbackParams(start=where, max_rows_per_identity=1, repeat=1, learning_rate_share=0.5, replay_examples=1)


@pytest.mark.parametrize(
    "pointer, where, version",
    [
        (WITH_ROWS, "champion", "3"),
        (WITH_ROWS, "base", None),
        (WITH_ROWS.model_copy(update={"start": None}), "champion", None),
        (FeedbackPointer(count=0), "champion", None),
    ],
)
def test_a_night_goes_on_from_the_champion_it_names(pointer: FeedbackPointer, where: str, version: str | None) -> None:
    found = starting_version(pointer, settings(where))
    assert (found.version if found else None) == version


def lay_version(folder: Path, base: str, part: str, served_as: str | None = None) -> str:
    """A version's package of one part in .flywheel/weights, as the flow fetches it; returns its digest."""
    package = folder / layout.WEIGHTS / "new"
    (package / part).mkdir(parents=True, exist_ok=True)
    if not any((package / part).iterdir()):
        (package / part / f"{part}_model.safetensors").write_bytes(b"weights")
    if part == "model":
        write_manifest(package / part)
    write_json(package / "base.json", {"digest": base})
    if served_as:
        write_json(package / "kind.json", {"served_as": served_as, "why": "because"})
    digest = write_manifest(package)
    package.rename(folder / layout.WEIGHTS / digest)
    pointer = {"count": 1, "digest": "a" * 64, "watermark": 1, "start": {"version": "3", "digest": digest}}
    write_json(folder / layout.FEEDBACK_POINTER, pointer)
    return digest


def validation_loss(folder: Path, adapter: Path | None) -> float:
    """The mean over examples of the mean loss of their answers' tokens."""
    losses = [total / tokens for _, total, tokens in answer_losses(folder, "validation", adapter)]
    return sum(losses) / len(losses)


def test_training_goes_on_where_the_champion_ended(workspace: Any, root: Path, tiny_model: Path) -> None:
    """The loss before the first step is that of the champion's adapter, a hundred tolerances from the base model's."""
    folder = workspace(precision="fp32", batch_size=2, epochs=1, save_every=50)
    champion = folder / layout.WEIGHTS / "new/adapter"
    write_adapter(champion, tiny_model)
    (champion / "MANIFEST.json").unlink()
    digest = lay_version(folder, verify_manifest(layout.BASE_MODEL), "adapter")
    champion = folder / layout.WEIGHTS / digest / "adapter"
    assert start() == "the adapter of version 3"
    assert adapter_to_continue() is not None and json.loads((layout.START / "start.json").read_text()) == {
        "digest": digest
    }
    before = validation_loss(folder, champion)
    metrics, _ = run_stage("sft", folder, root)
    assert abs(validation_loss(folder, None) - before) > 0.01
    assert metrics["validation_loss_before"] == pytest.approx(before, abs=1e-4)
    assert metrics["validation_loss"] < before
    assert validation_loss(folder, folder / "models/sft/adapter") == pytest.approx(metrics["validation_loss"], abs=1e-4)


def test_an_adapter_over_another_base_is_refused(workspace: Any) -> None:
    folder = workspace()
    lay_version(folder, "f" * 64, "adapter")
    with pytest.raises(StartError, match="version 3 was trained over another base model"):
        start()


def test_a_night_goes_on_from_whole_weights_as_from_a_base_of_its_own(workspace: Any) -> None:
    folder = workspace()
    lay_version(folder, verify_manifest(layout.BASE_MODEL), "model", "weights")
    assert start() == "the weights of version 3"
    begin = before_sft()
    assert (begin.base, begin.adapter) == (layout.START / "model", None)
    assert begin.base_digest == verify_manifest(layout.START / "model")
    assert goes_on()


def test_what_no_engine_serves_is_nothing_to_go_on_from(workspace: Any) -> None:
    folder = workspace()
    lay_version(folder, verify_manifest(layout.BASE_MODEL), "model", "nothing")
    with pytest.raises(StartError, match=r"because\); set feedback\.start: base"):
        start()
