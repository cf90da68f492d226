"""Everything the gateway is told: params.yaml for how it behaves, the environment for where it lives.

FLYWHEEL_ROOT, FLYWHEEL_DATABASE_URL, FLYWHEEL_ENGINE_URL and FLYWHEEL_ENGINE_KEY; MLFLOW_TRACKING_URI is read by the
registry itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core import layout
from tasks.core.params import EngineParams, Params, ServingParams, load_params
from tasks.engine.client import decoding, engine_url


@dataclass(frozen=True)
class GatewaySettings:
    """One gateway's settings. `root` holds domains/, data/ and .flywheel/; the secrets are never in repr."""

    params: Params
    root: Path
    database_url: str | None = field(default=None, repr=False)
    engine_url: str = ""
    engine_key: str | None = field(default=None, repr=False)

    @property
    def serving(self) -> ServingParams:
        """The gateway's section of params.yaml."""
        return self.params.serving

    @property
    def engine(self) -> EngineParams:
        """The engine's section of params.yaml."""
        return self.params.engine

    @property
    def decoding(self) -> dict[str, float]:
        """What every request to the engine adds, so that it answers as the evaluation did."""
        return decoding(self.engine.kind, self.params.evaluate.repetition_penalty)

    @property
    def domain(self) -> str:
        """The domain's name: the registered model, and the model's name in requests."""
        return self.params.domain

    @property
    def tls(self) -> bool:
        """Whether this gateway speaks HTTPS."""
        return bool(self.serving.tls_certificate)


def load_settings(root: Path | None = None) -> GatewaySettings:
    """Read params.yaml and the environment.

    Raises:
        SettingsError: a setting is missing or contradictory.
    """
    where = (root or layout.home()).absolute()
    os.chdir(where)
    params = load_params(where / layout.PARAMS)
    return GatewaySettings(
        params=params,
        root=where,
        database_url=os.environ.get("FLYWHEEL_DATABASE_URL") or None,
        engine_url=engine_url(params.engine),
        engine_key=os.environ.get("FLYWHEEL_ENGINE_KEY") or None,
    )
