"""A project in miniature whose releases and nights run in this process, against a real Prefect server and MLflow."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from tasks.registry.backup import ARTIFACTS, move_addresses
from tasks.registry.versions import Registry
from tests.flows.toy import environment
from tests.mlflow_store import DATABASE


@dataclass
class Project:
    """A project, and the server its releases run against."""

    root: Path
    api: str

    def copied(self, folder: Path) -> Project:
        """The project as it is, in another folder."""
        shutil.copytree(self.root, folder, symlinks=True)
        move_addresses(folder / DATABASE, *((root / ARTIFACTS).as_uri() for root in (self.root, folder)))
        return Project(folder, self.api)

    def start(self) -> subprocess.Popen[str]:
        """A release in a process of its own, to be interrupted."""
        command = [sys.executable, "-m", "flows.run"]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=environment(self.root) | {"PREFECT_API_URL": self.api},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def release(self, *options: str, status: int = 0) -> str:
        """A release in this process, which spares each the 8 s that imports take; returns what it printed."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.run import main

        handler, printed = signal.getsignal(signal.SIGTERM), io.StringIO()
        surroundings = environment(self.root) | {"PREFECT_API_URL": self.api, "COLUMNS": "200"}
        with (
            contextlib.chdir(self.root),
            mock.patch.dict(os.environ, surroundings),
            temporary_settings({PREFECT_API_URL: self.api}),
            contextlib.redirect_stdout(printed),
        ):
            returned = main(list(options))
        signal.signal(signal.SIGTERM, handler)
        assert returned == status, printed.getvalue()
        return printed.getvalue()

    @property
    def registry(self) -> Registry:
        return Registry("toy", self.root)

    def ask(self, question: str, **body: Any) -> Any:
        import httpx

        reply = httpx.post(f"{self.api}/{question}", json=body, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def last_run(self) -> dict[str, Any]:
        return dict(self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1)[0])

    def task_states(self, flow_run: str) -> dict[str, str]:
        runs = self.ask("task_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
        return {run["name"]: run["state"]["name"] for run in runs}


class Released(NamedTuple):
    """A project after its first release, what that printed, and its flow run. Read it only."""

    project: Project
    output: str
    run: dict[str, Any]
