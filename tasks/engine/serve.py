"""The engine that params.yaml names, in the foreground: `python -m tasks.engine.serve`. A platform supervises this.

Before there is a base model it waits for one, and says so. Ends with status 1 when the engine ends, so that the
supervisor starts it again; on SIGTERM it ends the engine and all its processes.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from tasks.core import layout
from tasks.core.files import verify_manifest
from tasks.core.params import load_params
from tasks.core.stage import run_stage
from tasks.engine.client import EngineError
from tasks.engine.process import EngineProcess, check_base_model


def serve(home: Path = Path(), pause: float = 2.0) -> str:
    """Run the engine until we are told to stop.

    Raises:
        EngineError: it could not be started, or ended by itself.
        ManifestError: the base model is not what its manifest says.
    """
    settings = load_params(home / layout.PARAMS).engine
    base_model = home / layout.BASE_MODEL
    wait_for(base_model, settings.start_seconds, pause)
    verify_manifest(base_model)
    began = time.monotonic()
    with EngineProcess(settings, base_model, home) as engine:
        print(f"engine: {settings.kind} ready at {engine.url}/v1 after {time.monotonic() - began:.0f} s", flush=True)
        status = engine.wait()
        raise EngineError(f"the engine ended with status {status}. {engine.last_words()}")


def wait_for(base_model: Path, seconds: float, pause: float) -> None:
    """Wait until the base model has its manifest, which is written last. Raises EngineError: not within `seconds`."""
    deadline = time.monotonic() + seconds
    told = False
    while not (base_model / "MANIFEST.json").is_file():
        if not told:
            print(f"engine: waiting for {base_model}; `dvc repro -s base_model` makes it", flush=True)
            told = True
        if time.monotonic() > deadline:
            check_base_model(base_model)
            raise EngineError(f"{base_model} has no manifest: `dvc repro -s base_model` makes it whole")
        time.sleep(pause)


def main() -> None:
    """Status 1 with the cause where the engine failed; 143 where we were told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_stage("engine", lambda: serve(layout.home()))


if __name__ == "__main__":
    main()
