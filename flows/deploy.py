"""Bring infra/prefect.yaml to a Prefect server, with the schedule and the domain that params.yaml names.

infra/prefect.yaml stays deployable by hand (`prefect deploy --all`), with the defaults written in it; a test holds them
equal to params.yaml. `python -m flows.deploy` writes params.nightly and the domain over them first, so that settings
have one home. Deploying again replaces schedules; it needs PREFECT_API_URL, the work pool, and FLYWHEEL_ROOT.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.params import Params, load_params

SOURCE = Path("infra/prefect.yaml")
RENDERED = layout.HOME / "platform" / "prefect.yaml"


def render(root: Path, params: Params) -> dict[str, Any]:
    """The deployments, with what params.yaml decides."""
    content: dict[str, Any] = yaml.safe_load((root / SOURCE).read_text(encoding="utf-8"))
    for deployment in content["deployments"]:
        if "workspace" in deployment.get("parameters", {}):
            deployment["parameters"]["workspace"] = params.domain
        if deployment["name"] == "nightly":
            schedule = {"cron": params.nightly.cron, "timezone": params.nightly.timezone, "active": True}
            deployment["schedules"] = [schedule]
    return content


def main() -> int:
    """Deploy; returns Prefect's exit status. Its output is ours."""
    root = layout.home()
    path = root / RENDERED
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(render(root, load_params(root / layout.PARAMS)), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(RENDERED)]
    return subprocess.run(command, cwd=root, env={**os.environ, "FLYWHEEL_ROOT": str(root)}).returncode


if __name__ == "__main__":
    sys.exit(main())
