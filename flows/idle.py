"""Whether a release has anything to do, asked without Prefect: its server alone takes longer to start than the answer.

Nothing to do is what the release flow itself finds where a version carries the digest of these inputs, its release was
completed, and DVC finds every stage up to date.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from flows.console import ReleaseOutcome
from flows.stages import Stage, changed_stages, open_repo, read_stages
from tasks.core import layout
from tasks.core.params import load_params
from tasks.registry.inputs import inputs_digest
from tasks.registry.versions import RELEASED, Registry, Version


def judged_already(registry: Registry, inputs: str, changed: list[str]) -> Version | None:
    """The version that a release of these inputs would only find again."""
    known = registry.of_inputs(inputs)
    return known if known is not None and known.tags.get(RELEASED) and not changed else None


def note_of(version: Version) -> str:
    """The answer to a run without news."""
    return f"nothing to do: version {version.number}, verdict {version.tags.get('verdict')}"


def outcome_at_rest(home: Path) -> tuple[ReleaseOutcome, list[Stage]] | None:
    """What a release of this checkout would end with and its stages, if there is nothing to do; None where there is.

    Raises:
        SettingsError: params.yaml is wrong.
    """
    started = time.monotonic()
    domain = load_params(home / layout.PARAMS).domain
    with contextlib.chdir(home), open_repo(home) as repo:
        stages = read_stages(repo)
        if changed_stages(repo, stages):
            return None
        version = judged_already(Registry(domain, home), inputs_digest(domain), [])
    if version is None:
        return None
    verdict = version.tags.get("verdict", "")
    seconds = time.monotonic() - started
    return ReleaseOutcome(verdict, domain, version.number, version.aliases, note_of(version), (), seconds), stages
