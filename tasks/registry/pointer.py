"""What a flow or the gateway fetches of a version: its package, and what it answered when it was evaluated.

Who is champion is written down as a pointer that stages can depend on; only a release that is going to judge something
may do that, since the pointer is an input of the graph. Probes are read from the evaluation that is kept with the
version's run, checked against its digest, to be compared with what an engine makes of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import folder_digest, fresh_directory, holds, verify_manifest, write_json
from tasks.core.pointers import Pointer, StartPoint, read_pointer
from tasks.core.records import Score, read_own_jsonl
from tasks.engine.parity import ParityProbe
from tasks.registry.runs import PACKAGE_ARTIFACT
from tasks.registry.versions import Registry, Version, anchor_of, line_of, renewal_of, spent_since
from tasks.text.prompts import PromptBook, messages_of, render

EVALUATION_ARTIFACT = "reports/evaluation/candidate"
EVALUATION_TAG = "evaluation_sha256"
PROBED_SET = "domain"


class VersionUnavailable(FlywheelError):
    """What is kept with a version cannot be fetched whole, or is not what it was registered with."""


def refresh_pointer(registry: Registry, root: Path, night: int | None = None) -> Pointer:
    """Fetch the registry's champion, and its anchor, into .flywheel/weights/DIGEST; point state/champion.json at them.

    Args:
        night: the number of the night that asks; None where anybody else does.

    Raises:
        VersionUnavailable: its files are missing or differ from its manifest.
    """
    champion = registry.alias("champion")
    if champion is None:
        return point(Pointer(kind="base", version="base", night=night), root)
    fetch_weights(registry, champion, root)
    anchor, first = None, anchor_of(registry, champion)
    if first is not None and first.manifest != champion.manifest:
        fetch_weights(registry, first, root)
        anchor = StartPoint(version=first.number, digest=first.manifest)
    found = Pointer(kind="version", version=champion.number, digest=champion.manifest, night=night, anchor=anchor)
    found = found.model_copy(update={"renewal": renewal_of(registry, champion)})
    if night is not None or found.renewal:
        spent = spent_since(registry, first or line_of(registry, champion)[-1], night)
        found = found.model_copy(update={"spent": spent})
    return point(found, root)


def point(pointer: Pointer, root: Path) -> Pointer:
    """Write state/champion.json, unless it says the same already."""
    path = root / layout.CHAMPION_POINTER
    if not path.is_file() or read_pointer(root) != pointer:
        write_json(path, pointer.model_dump(mode="json"))
    return pointer


def fetch_weights(registry: Registry, version: Version, root: Path) -> Path:
    """The version's package under its digest, checked, its signature too; what is there already is only checked.

    Raises:
        VersionUnavailable: its signature does not hold, or its files are missing or differ from its manifest.
    """
    if reason := registry.untrusted(version):
        raise VersionUnavailable(reason)
    target = root / layout.WEIGHTS / version.manifest
    if holds(target, version.manifest):
        return target
    with tempfile.TemporaryDirectory() as folder:
        found = _fetch(registry, version, PACKAGE_ARTIFACT, folder, lambda at: verify_manifest(at) == version.manifest)
        with fresh_directory(target) as fresh:
            shutil.copytree(found, fresh, dirs_exist_ok=True)
            if not holds(fresh, version.manifest):
                raise VersionUnavailable(f"version {version.number} was damaged while it was copied; look at the disk")
    return target


def fetch_probes(registry: Registry, version: Version, most: int = 8) -> list[ParityProbe]:
    """The first `most` evaluated questions of the domain, with the loss and the answer of this version.

    Raises:
        VersionUnavailable: the evaluation is missing, or differs from its digest.
    """
    package = fetch_weights(registry, version, registry.home)
    system = str(json.loads((package / "prompt.json").read_text(encoding="utf-8"))["system"])
    book = PromptBook(registry.home / layout.BASE_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        found = fetch_evaluation(registry, version, folder)
        scores = read_own_jsonl(found / "scores.jsonl", Score)
        losses = {s.id: s.value for s in scores if (s.set, s.metric) == (PROBED_SET, "nll")}
        answers = [json.loads(line) for line in (found / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    probes: list[ParityProbe] = []
    for answer in answers:
        if answer["set"] == PROBED_SET and answer["id"] in losses and len(probes) < most:
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


def fetch_evaluation(registry: Registry, version: Version, folder: str) -> Path:
    """The evaluation that is kept with a version, below `folder`. Raises VersionUnavailable: see fetch_probes."""
    digest = version.tags.get(EVALUATION_TAG)
    if digest is None:
        raise VersionUnavailable(
            f"version {version.number} was judged before answers and scores were kept with versions"
        )
    return _fetch(registry, version, EVALUATION_ARTIFACT, folder, lambda at: folder_digest(at) == digest)


def _fetch(registry: Registry, version: Version, artifact: str, folder: str, same: Callable[[Path], bool]) -> Path:
    """What is kept with a version's run, if it is the `same` as when the version was registered."""
    try:
        found = Path(registry.client.download_artifacts(version.run_id, artifact, folder))
        whole = same(found)
    except Exception as error:  # every artifact store fails in its own way
        raise VersionUnavailable(f"version {version.number}: its {artifact} cannot be fetched: {error}") from error
    if not whole:
        raise VersionUnavailable(f"version {version.number}: its {artifact} is not the one it was registered with")
    return found
