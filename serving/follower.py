"""Follows the registry: when `champion` moves, the new version is fetched, checked, loaded, probed, then served.

Runs in a thread of its own. Requests in flight keep the version they began with. Whatever fails leaves the old version
where it is, is told in the ledger, /readyz and the metrics, and is tried again, less and less often. A gateway that
starts while `champion` cannot be served takes up what was served last, else the base model with the domain's prompt.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from serving.errors import without_paths
from serving.monitoring import Metrics
from serving.passages import asked_from
from serving.settings import GatewaySettings
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import holds
from tasks.core.package import Package, read_package
from tasks.engine.client import Engine, adapter_name
from tasks.engine.parity import ParityProbe, check
from tasks.registry import pointer
from tasks.registry.deploy import settled_champion
from tasks.registry.pointer import fetch_weights
from tasks.registry.versions import FORGET, Registry, Version
from tasks.store import ledger
from tasks.store.store import Store
from tasks.text.prompts import PromptBook, render

if TYPE_CHECKING:
    from tasks.knowledge.search import Knowledge

BASE = "base"
ACTOR = "gateway"
ADAPTER = "adapter"
MAX_WAIT_SECONDS = 60.0
log = logging.getLogger("serving")


@dataclass(frozen=True)
class Served:
    """One version as the engine knows it. `version` is "base" or the registry's number, `knowledge` its index, if any.

    A request keeps the one it began with: an answer never comes from two versions.
    """

    version: str
    digest: str
    model: str
    system: str
    knowledge: Knowledge | None = None


class Traffic:
    """What is served now, how many requests each model answers, what is wrong; for event loop and follower alike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: Counter[str] = Counter()
        self.champion: Served | None = None
        self.challenger: Served | None = None
        self.engine_up = False
        self.problems: dict[str, str] = {}

    @contextmanager
    def answering(self, served: Served) -> Iterator[None]:
        """Count a request as answered by this version until the block ends; its adapter stays loaded meanwhile."""
        with self._lock:
            self._in_flight[served.model] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[served.model] -= 1

    def in_flight(self, model: str | None = None) -> int:
        """How many requests are being answered, by one model or by all."""
        with self._lock:
            return self._in_flight[model] if model is not None else self._in_flight.total()

    def problem(self, key: str, reason: str | None) -> bool:
        """Note or clear (None) why something is not as it should be; tells whether that is news."""
        with self._lock:
            before = self.problems.get(key)
            if reason is None:
                self.problems.pop(key, None)
            else:
                self.problems[key] = reason
            return before != reason


class NotServed(FlywheelError):
    """A version may not or cannot take traffic; the message says why."""


def not_an_adapter(parts: Package) -> str:
    """Why a version that is no adapter is not taken up, and what to do."""
    if not parts.servable:
        return f"no engine of ours can serve it ({parts.kind.why})"
    return "it is whole weights: it needs an engine of its own, not the base model's (docs/training.md)"


def refuse_changed(package: Path) -> None:
    """Raises NotServed where a package is no longer the one that its folder is named after."""
    if not holds(package, package.name):
        raise NotServed("its files were changed on this machine; they are fetched again at the next try or start")


class Adapters:
    """The adapters that this gateway put into the engine: which, from where, and which may go.

    Used by the follower's thread only. The newest `most` stay loaded, so that going back is quick; one that is served
    or still answering is never unloaded.
    """

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
            NotServed: the package was changed since.
        """
        for name in self.lost(models):
            refuse_changed(self._packages[name])
            self.engine.load_adapter(name, (self._packages[name] / ADAPTER).absolute())
        gone = [name for name in self._packages if name not in models and name not in self._served()]
        for name in gone:
            del self._packages[name]


class Follower:
    """Keeps `traffic` at what the registry asks for, as far as it may be served."""

    def __init__(
        self,
        settings: GatewaySettings,
        store: Store,
        traffic: Traffic,
        metrics: Metrics,
        prompts: PromptBook,
        base: str,
    ) -> None:
        """`base` is the digest of the checked base model."""
        self.settings, self.store, self.traffic, self.metrics = settings, store, traffic, metrics
        self.prompts, self.base = prompts, base
        self.engine = Engine(settings.engine_url, settings.engine_key)
        self.adapters = Adapters(self.engine, traffic, settings.engine.max_adapters)
        self._registry: Registry | None = None
        self._tries: dict[str, tuple[float, float]] = {}  # digest → when to try again, and the wait after that
        self._told: dict[str, str] = {}  # digest → the failure that is in the ledger already
        self._wanted: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; waits for the step that runs, which may be a load."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _run(self) -> None:
        self._step()
        while not self._stopping.wait(self.settings.serving.follow_seconds):
            self._step()

    def _step(self) -> None:
        """One look at store, engine and registry. Never raises: what is wrong becomes a problem in /readyz."""
        try:
            self._look_at_store()
            if self._look_at_engine() and (registry := self._reach_registry()) is not None:
                self._follow(registry, self._settled(registry))
                self._follow_challenger(registry)
                self._tell("follower", None)
        except Exception as error:  # the thread must outlive whatever a live system does
            self._tell("follower", f"following the registry failed: {_short(error)}")

    def _look_at_store(self) -> None:
        up = self.store.ready()
        self.metrics.store_up.set(up)
        self._tell("store", None if up else "the database does not answer")

    def _look_at_engine(self) -> bool:
        """Whether the engine answers; what it lost of ours (it was started again) is loaded before traffic."""
        try:
            models = self.engine.models()
            if self.adapters.lost(models):
                self.traffic.engine_up = False
                log.warning("the engine was started again: its adapters are loaded again")
            self.adapters.restore(models)
        except FlywheelError as error:
            self.traffic.engine_up = False
            self.metrics.engine_up.set(0)
            self._tell("engine", f"the engine is not ready: {_short(error)}")
            return False
        self.traffic.engine_up = True
        self.metrics.engine_up.set(1)
        self._tell("engine", None)
        return True

    def _reach_registry(self) -> Registry | None:
        try:
            if self._registry is None:
                self._registry = Registry(self.settings.domain, self.settings.root)
            self._registry.alias("champion")
        except Exception as error:  # MLflow's client fails in many ways
            self._tell("registry", f"the registry cannot be read: {_short(error)}")
            if self.traffic.champion is None:
                self._serve(self._base(), 0.0, "the registry cannot be read")
            return None
        self._tell("registry", None)
        return self._registry

    def _settled(self, registry: Registry) -> Version | None:
        """The champion, after an alias that somebody moved was recorded or, where it may not be honoured, put back."""
        before = ledger.last(self.store, self.settings.domain, "refused")
        champion = settled_champion(self.store, registry)
        refused = ledger.last(self.store, self.settings.domain, "refused")
        if refused is not None and (before is None or refused.seq > before.seq):
            self.metrics.serve_failures.inc()
            reason = without_paths(refused.reason)
            self._tell("refused", f"version {refused.version} was refused as champion: {reason}")
        return champion

    def _follow(self, registry: Registry, champion: Version | None) -> None:
        now = self.traffic.champion
        wanted = (champion.number, champion.manifest) if champion is not None else (BASE, "")
        if now is not None and (now.version, now.digest) == wanted:
            self._tell("champion", None)
            self._wanted = wanted[1]
            return
        if wanted[1] != self._wanted:  # somebody asks anew: try at once, and tell again what happens
            self._wanted = wanted[1]
            self._tries.pop(wanted[1], None)
            self._told.pop(wanted[1], None)
        if not self._due(wanted[1]):
            return
        began = time.monotonic()
        try:
            served = self._load(registry, champion) if champion is not None else self._base()
        except Exception as error:
            self._failed(*wanted, _short(error))
            if now is None:
                self._serve_what_was_served(registry, wanted[1])
            return
        self._serve(served, time.monotonic() - began, "champion")

    def _load(self, registry: Registry, version: Version) -> Served:
        """A version fetched, verified, loaded and probed."""
        package = fetch_weights(registry, version, self.settings.root)
        parts = read_package(package)
        if parts.kind.served_as != "adapter":
            raise NotServed(not_an_adapter(parts))
        if parts.trained_over != self.base:
            raise NotServed("it was trained over another base model than data/base_model holds")
        system, name = self._system_of(package), adapter_name(version.manifest)
        knowledge = self._open(parts)
        self.adapters.load(name, package)
        try:
            self._probe(registry, version, name, knowledge)
            refuse_changed(package)  # what was read since it was checked is what was checked
        except Exception:
            self.adapters.unload(name)
            raise
        return Served(version.number, version.manifest, name, system, knowledge)

    def _open(self, parts: Package) -> Knowledge | None:
        """A version's index, everything of it loaded."""
        if parts.knowledge is None:
            return None
        from tasks.knowledge.search import Knowledge  # a gateway without an index starts without its libraries

        knowledge = Knowledge(parts.knowledge, self.prompts.count)
        knowledge.warm()
        return knowledge

    def _system_of(self, package: Path) -> str:
        """The system prompt that the version was trained with, if its template is the one that the engine renders."""
        prompt: dict[str, Any] = json.loads((package / "prompt.json").read_text(encoding="utf-8"))
        template = self.settings.root / layout.BASE_MODEL / "chat_template.jinja"
        if prompt["chat_template"] != template.read_text(encoding="utf-8"):
            raise NotServed("its chat template is not the base model's: it was trained for another prompt")
        return str(prompt["system"])

    def _probe(self, registry: Registry, version: Version, name: str, knowledge: Knowledge | None) -> None:
        settings = self.settings.engine
        found = pointer.fetch_probes(registry, version, self.settings.serving.probes)
        if not found:
            raise NotServed("it carries no probes, so that its answers cannot be compared; release it again")
        if knowledge is not None:
            found = [self._with_passages(probe, knowledge) for probe in found]
        asked = self.settings.decoding
        report = check(self.engine, name, found, settings.max_nll_difference, settings.min_answer_agreement, asked)
        if not report.ok:
            raise NotServed(f"it does not answer as it was evaluated: {report.reason}")

    def _with_passages(self, probe: ParityProbe, knowledge: Knowledge) -> ParityProbe:
        """A probe as it was evaluated: with what the version's index finds for it."""
        [hits] = knowledge.search([probe.messages[-1]["content"]])
        messages = asked_from(probe.messages, hits, knowledge.settings.words)
        prompt = render(self.prompts, messages)
        return probe.model_copy(update={"messages": messages, "prompt": prompt, "prompt_ids": self.prompts.ids(prompt)})

    def _base(self) -> Served:
        """The base model with the domain's own system prompt; the domain's sources need not be on this machine."""
        folder = self.settings.root / layout.DOMAINS / self.settings.domain
        domain = yaml.safe_load((folder / "domain.yaml").read_text(encoding="utf-8"))
        return Served(BASE, "", BASE, (folder / domain["system_prompt"]).read_text(encoding="utf-8").strip())

    def _serve(self, served: Served, seconds: float, why: str) -> None:
        """Give the traffic to a version: the one assignment that requests see."""
        before, self.traffic.champion = self.traffic.champion, served
        if why == "champion":
            self._tell("champion", None)
            if before is not None:
                self._tell("refused", None)
        self.metrics.show_served(served.version, served.digest)
        self.metrics.last_switch.set(seconds)
        if before is not None:
            self.metrics.switches.inc()
        last = ledger.last(self.store, self.settings.domain, "served")
        if last is None or (last.version, last.digest or "") != (served.version, served.digest):
            detail = {"seconds": round(seconds, 3), "before": before.version if before else None}
            ledger.append(
                self.store, self.settings.domain, "served", served.version, served.digest or None, ACTOR, why, detail
            )
        log.info(
            "serves", extra={"version": served.version, "digest": served.digest[:12], "seconds": round(seconds, 3)}
        )

    def _serve_what_was_served(self, registry: Registry, refused: str) -> None:
        """At the start, where `champion` cannot be served: the version that was served last, else the base model."""
        last = ledger.last(self.store, self.settings.domain, "served")
        version = None
        if last is not None and last.digest and last.digest != refused:
            version = registry.find(manifest_sha256=last.digest)
        try:
            served = self._load(registry, version) if version is not None else self._base()
        except Exception as error:
            log.warning("the version that was served last cannot be served either", extra={"reason": _short(error)})
            served = self._base()
        self._serve(served, 0.0, "what was served before, because the champion cannot be served")

    def _follow_challenger(self, registry: Registry) -> None:
        """The candidate as challenger, where drafts are set to compare with it; never one that the gate rejected."""
        if self.settings.serving.drafts != "challenger":
            return
        version = registry.alias("candidate")
        now, champion = self.traffic.challenger, self.traffic.champion
        same = version is not None and champion is not None and version.manifest == champion.digest
        if version is None or same or FORGET in version.tags or version.tags.get("verdict") not in ("promote", "hold"):
            self.traffic.challenger = None
        elif (now is None or now.digest != version.manifest) and self._due(version.manifest):
            try:
                self.traffic.challenger = self._load(registry, version)
            except Exception as error:
                self._failed(version.number, version.manifest, _short(error), "challenger")

    def _due(self, digest: str) -> bool:
        return time.monotonic() >= self._tries.get(digest, (0.0, 0.0))[0]

    def _failed(self, version: str, digest: str, reason: str, key: str = "champion") -> None:
        """Note a failure, once in the ledger for each reason, and wait longer before the next try."""
        self._tell(key, f"version {version} is not served: {reason}")
        wait = self._tries.get(digest, (0.0, self.settings.serving.follow_seconds))[1]
        self._tries[digest] = (time.monotonic() + wait, min(2 * wait, MAX_WAIT_SECONDS))
        if self._told.get(digest) != reason:
            self._told[digest] = reason
            self.metrics.serve_failures.inc()
            ledger.append(self.store, self.settings.domain, "serve_failed", version, digest or None, ACTOR, reason)

    def _tell(self, key: str, reason: str | None) -> None:
        if self.traffic.problem(key, reason) and reason is not None:
            log.warning("problem", extra={"about": key, "reason": reason})


def _short(error: Exception) -> str:
    """An error for people outside: our own message without folders; of others' the kind only."""
    text = str(error) if isinstance(error, FlywheelError) else type(error).__name__
    return without_paths(text)[:600]
