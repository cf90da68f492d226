"""An empty MLflow database for a test's home: MLflow's own migrations take seconds, so they run once a session."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from tasks.registry.runs import STORE, connect

DATABASE = STORE / "mlflow.db"


def lay_mlflow(home: Path) -> Path:
    """Lay the database where `connect(home)` would make the same one; returns the home."""
    (home / STORE).mkdir(parents=True)
    (home / DATABASE).write_bytes(_empty())
    return home


@functools.cache
def _empty() -> bytes:
    folder = Path(tempfile.mkdtemp())
    try:
        with mock.patch.dict(os.environ):  # MLflow writes the store it is pointed at into the environment
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            connect(folder).search_experiments(max_results=1)
        return (folder / DATABASE).read_bytes()
    finally:
        shutil.rmtree(folder)
