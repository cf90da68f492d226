"""What a version answered when it was evaluated, to be compared with what an engine makes of it.

Read from the evaluation that is kept with the version's run and checked against the digest the version was registered
with, so that what is served can be held against what was judged: prompt tokens, losses, answers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.records import Score, read_own_jsonl
from tasks.engine.parity import ParityProbe
from tasks.registry.inputs import folder_digest
from tasks.registry.pointer import fetch_weights
from tasks.registry.versions import Registry, Version
from tasks.text.prompts import PromptBook, messages_of, render

EVALUATION_ARTIFACT = "reports/evaluation/candidate"
EVALUATION_TAG = "evaluation_sha256"
PROBED_SET = "domain"


class ProbesUnavailable(FlywheelError):
    """A version's evaluation cannot be read, or is not the one it was registered with."""


def fetch_probes(registry: Registry, version: Version, most: int = 8) -> list[ParityProbe]:
    """The first `most` evaluated questions of the domain, with the loss and the answer of this version.

    Raises:
        ProbesUnavailable: the evaluation is missing, or differs from its digest.
    """
    package = fetch_weights(registry, version, registry.home)
    system = str(json.loads((package / "prompt.json").read_text(encoding="utf-8"))["system"])
    book = PromptBook(registry.home / layout.BASE_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        found = _download(registry, version, folder)
        losses = {s.id: s.value for s in read_own_jsonl(found / "scores.jsonl", Score) if _is_loss(s)}
        answers = _answers(found / "answers.jsonl")
    probes: list[ParityProbe] = []
    for answer in answers:
        if answer["id"] in losses and len(probes) < most:
            messages = messages_of(system, answer["prompt"])
            prompt = render(book, messages)
            probes.append(
                ParityProbe(
                    messages=messages,
                    prompt=prompt,
                    prompt_ids=book.ids(prompt),
                    reference=answer["reference"],
                    nll=losses[answer["id"]],
                    answer=answer["text"],
                )
            )
    return probes


def _download(registry: Registry, version: Version, folder: str) -> Path:
    try:
        found = Path(registry.client.download_artifacts(version.run_id, EVALUATION_ARTIFACT, folder))
    except Exception as error:  # every artifact store fails in its own way
        raise ProbesUnavailable(f"version {version.number}: its evaluation cannot be read: {error}") from error
    if folder_digest(found) != version.tags.get(EVALUATION_TAG):
        raise ProbesUnavailable(f"version {version.number}: its evaluation is not the one it was registered with")
    return found


def _is_loss(score: Score) -> bool:
    return score.set == PROBED_SET and score.metric == "nll"


def _answers(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [row for row in rows if row["set"] == PROBED_SET]
