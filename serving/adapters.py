"""The adapters that this gateway put into the engine: which, from where, and which may go.

Used by the follower's thread only. The newest `most` stay loaded, so that going back is quick; one that is served or
still answering is never unloaded.
"""

from __future__ import annotations

import logging
from pathlib import Path

from serving.served import Traffic
from tasks.core.errors import FlywheelError
from tasks.core.files import verify_manifest
from tasks.engine.client import Engine

ADAPTER = "adapter"
log = logging.getLogger("serving")


class Adapters:
    """Loads and unloads, and remembers."""

    def __init__(self, engine: Engine, traffic: Traffic, most: int) -> None:
        self.engine, self.traffic, self.most = engine, traffic, most
        self._packages: dict[str, Path] = {}  # the newest use last

    def load(self, name: str, package: Path) -> None:
        """Have the engine hold a checked package's adapter under this name; there already is no change.

        Raises:
            EngineError: the engine cannot load it.
        """
        if name not in self._packages or name not in self.engine.models():
            self._make_room()
            self.engine.load_adapter(name, (package / ADAPTER).absolute())
        self._packages.pop(name, None)
        self._packages[name] = package

    def unload(self, name: str) -> None:
        """Let the engine forget an adapter, unless it is answering."""
        if self.traffic.in_flight(name):
            return
        self._packages.pop(name, None)
        try:
            self.engine.unload_adapter(name)
        except FlywheelError as error:
            log.warning("an adapter could not be unloaded", extra={"adapter": name, "reason": type(error).__name__})

    def _make_room(self) -> None:
        for name in list(self._packages):
            if len(self._packages) < self.most:
                return
            if name not in self._served():
                self.unload(name)

    def _served(self) -> set[str]:
        both = (self.traffic.champion, self.traffic.challenger)
        return {served.model for served in both if served is not None}

    def lost(self, models: list[str]) -> list[str]:
        """What is served but not held by the engine any more, because it was started again."""
        return [name for name in self._packages if name in self._served() and name not in models]

    def restore(self, models: list[str]) -> None:
        """Load again what the engine lost; what is not served is forgotten.

        Raises:
            EngineError: the engine cannot load it.
            ManifestError: the package was changed since.
        """
        for name in self.lost(models):
            verify_manifest(self._packages[name])
            self.engine.load_adapter(name, (self._packages[name] / ADAPTER).absolute())
        gone = [name for name in self._packages if name not in models and name not in self._served()]
        for name in gone:
            del self._packages[name]
