"""Forgetting a person, a correction, an example or a source, with a certificate of hashes: `flywheel forget`.

First the database, in one transaction, with hashes of names by which the gateway finds nothing of it any more; then,
once no night or release is at work, what is kept in files and versions. The certificate is written last: killed on the
way, the same again goes on. What only a release can replace goes when it has: the same again, after it.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.live import live
from flows.stages import open_repo
from flows.workspace import Workspace, commit_results, one_at_a_time
from tasks.core import layout
from tasks.core.clock import now
from tasks.core.domain import LEARNED, LEARNED_FOLDER
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.core.pointers import FeedbackPointer, SnapshotError
from tasks.core.records import read_committed
from tasks.corpus import forgetting
from tasks.corpus.reading.forgotten import FORGOTTEN, Forgotten, read_forgotten
from tasks.registry.deploy import this_person
from tasks.registry.runs import drop_artifacts
from tasks.registry.versions import FORGET, Registry, Version
from tasks.store import forgotten as rows
from tasks.store.forgotten import CERTIFICATES, Asked
from tasks.store.schema import LedgerEntry
from tasks.store.store import Store

if TYPE_CHECKING:
    from dvc.repo import Repo

MADE = (Path("data"), Path("models"), layout.REPORTS, layout.CHECKPOINTS)  # by stages, in every place
OWN = (layout.CACHE, layout.HOME / "smaller")
NOT_SOURCES = ("feedback", "answer", "version", "night")  # what sources of corrections begin with


class NothingToForget(FlywheelError):
    """Nothing here has this name, or a certificate is not here."""


@dataclass
class Work:
    """A forgetting: where, and by which hashes; `lists` are what it found so far, kept before anything is deleted."""

    home: Path
    store: Store
    domain: str
    kind: str
    names: dict[str, frozenset[str]]
    lists: dict[str, list[Any]]

    @property
    def gone(self) -> Forgotten:
        """Tells what is forgotten."""
        return Forgotten(frozenset().union(*self.names.values()))

    @property
    def registries(self) -> list[Registry]:
        """Of every domain that it is of."""
        return [Registry(domain, self.home) for domain in sorted({self.domain, *self.names})]

    @property
    def places(self) -> list[Workspace]:
        """The checkout, and the worktrees of these domains."""
        trees = [(self.home / layout.WORKSPACES / one.domain, one.domain) for one in self.registries]
        there = [Workspace(root, self.home, f"release/{name}") for root, name in trees if (root / ".git").exists()]
        return [Workspace(self.home, self.home), *there]


def forget(home: Path, kind: str, name: str, sure: bool) -> dict[str, Any]:
    """The certificate of what was forgotten; without `sure`, what would be.

    Raises:
        NothingToForget: nothing here has this name, or it is none of its kind.
    """
    with live(home) as (params, registry, store), contextlib.chdir(home):
        asked = _asked(registry, kind, name, home)
        counts, names = rows.forget(store, asked, "", "", dry=True)
        earlier = rows.begun(store, params.domain, asked=asked)
        # Rows that are there were not forgotten before; what records call by a name is forgotten once.
        there = bool(counts.get("identities") or counts["feedback"] or (asked.names and earlier is None))
        look = there and (kind == "source" or not sure)
        found = _look(Work(home, store, params.domain, kind, names, {})) if look else {}
        if (not there and earlier is None) or (kind == "source" and there and not any(found.values())):
            raise NothingToForget(f"nothing here is called so: {kind} {name}")
        if not sure:
            return {"kind": kind, "rows": counts, **found}
        certificate = earlier.reason if earlier and not there else f"{now():%Y%m%d}-{secrets.token_hex(4)}"
        if there:
            rows.forget(store, asked, certificate, this_person())
    return finish(home, certificate)


def _asked(registry: Registry, kind: str, name: str, home: Path) -> Asked:
    """What is asked for, with the names that records call it by."""
    if kind == "feedback":
        return Asked(kind, name, registry.domain, feedback=(name,))
    if kind == "source":
        if "#" in name or re.split("[/:]", name)[0] in NOT_SOURCES:
            raise NothingToForget(f"{name} is no source: name one, or a document or a row of one, as `trace` does")
        return Asked(kind, name, registry.domain, names=frozenset({name}))
    if kind == "identity":
        return Asked(kind, name, registry.domain)
    row = forgetting.receipt_row(registry, name, home)
    if row is None:
        raise NothingToForget(f"no receipt knows the example {name}; give its whole id, as `trace` shows it")
    if row["origin"] == "feedback":
        return Asked(kind, name, registry.domain, feedback=forgetting.feedback_behind(row))
    read = row["source"][:1] if row["origin"] in ("human", "general") else ()  # with it goes the row it was read from
    return Asked(kind, name, registry.domain, names=frozenset({name, *read}))


def _look(work: Work) -> dict[str, list[Any]]:
    """What would go, and which versions know it."""
    snapshots = [path.name for path in forgetting.held_snapshots(work.home, work.gone)]
    return {
        "versions": [
            {"domain": registry.domain, "version": version.number, "manifest_sha256": version.manifest, "why": why}
            for registry in work.registries
            for version, why in forgetting.reached(registry, work.gone, snapshots)
        ],
        "snapshots": snapshots,
        "files": [path.relative_to(work.home).as_posix() for path in _files(work)],
        "objects": [oid for _, oid in _objects(work)],
    }


def finish(home: Path, certificate: str) -> dict[str, Any]:
    """Do what is left of a forgetting, and write its certificate.

    Raises:
        NothingToForget: there is none of this number.
    """
    path = home / CERTIFICATES / f"{certificate}.json"
    begun = path.with_suffix(".begun")
    with live(home) as (params, _, store), contextlib.chdir(home), contextlib.ExitStack() as alone:
        entry = rows.begun(store, params.domain, certificate)
        if entry is None:
            raise NothingToForget(f"nothing was forgotten under the number {certificate}")
        kept: dict[str, Any] = next(
            (json.loads(one.read_text(encoding="utf-8")) for one in (begun, path) if one.is_file()), {}
        )
        lists = {name: kept.get(name, []) for name in ("versions", "snapshots", "files", "objects")}
        kind = (entry.detail or {})["kind"]
        work = Work(home, store, params.domain, kind, rows.hashes_of(store, certificate), lists)
        alone.enter_context(one_at_a_time(home, print, "nightly"))
        for place in work.places:
            alone.enter_context(one_at_a_time(place.root, print))
        for name, looked in _look(work).items():
            known = [_key(one) for one in lists[name]]
            lists[name] += [one for one in looked if _key(one) not in known]
        write_json(begun, lists)
        marked = _mark(work, certificate)
        for place in work.places:
            _bring_state(work, place, {version.manifest for version in marked})
        _purge(work)
        left = _purge_versions(work, certificate)
        found = _certificate(work, entry, left)
        write_json(path, found)
        begun.unlink()
        return found


def _key(found: Any) -> Any:
    """By what an entry of a list is known again: why a version knows it may be told otherwise later."""
    return (found["domain"], found["version"]) if isinstance(found, dict) else found


def _mark(work: Work, certificate: str) -> list[Version]:
    """Mark every version that knows it, and blank its words in all receipts; returns those that are marked."""
    marked = []
    for registry in work.registries:
        known = {one["version"] for one in work.lists["versions"] if one["domain"] == registry.domain}
        for version in registry.versions():
            forgetting.redact(registry, version, work.gone)
            if version.number in known:
                registry.mark_forgotten(version, certificate)
                marked.append(version)
    return marked


def _bring_state(work: Work, place: Workspace, marked: set[str]) -> None:
    """Let the pointers name snapshots without it and no marked version, and tell the stages what to leave out."""
    before = (work.home / layout.HOME / "nights").glob("*.before.json")
    for path in (place.root / layout.FEEDBACK_POINTER, *before):
        if path.is_file():
            pointer = read_committed(path, FeedbackPointer, SnapshotError)
            new = forgetting.without(pointer, work.home, work.gone, marked)
            if new != pointer:
                write_json(path, new.model_dump(mode="json"))
    hashes = read_forgotten(place.root).hashes | work.gone.hashes
    if work.kind in ("example", "source") and hashes != read_forgotten(place.root).hashes:
        write_json(place.root / FORGOTTEN, sorted(hashes))
    commit_results(place, "Forgotten")


def _files(work: Work) -> list[Path]:
    """Files of ours that hold it: what stages made, learned documents, checkpoints and caches."""
    folders = [place.root / name for place in work.places for name in MADE]
    found = [path for folder in (*folders, *(work.home / own for own in OWN)) for path in _holders(folder, work)]
    for place in work.places:
        for learned in place.root.glob(f"{layout.DOMAINS}/{work.domain}/{LEARNED_FOLDER}/*"):
            found += [learned] if work.gone(f"{LEARNED.name}/{learned.name}") else []
    return found


def _holders(folder: Path, work: Work) -> list[Path]:
    return forgetting.holders(folder, work.gone) if folder.is_dir() else []


def _objects(work: Work) -> Iterator[tuple[Any, str]]:
    """The objects of DVC's cache and remote that hold it, each with where it lies."""
    if not (work.home / ".dvc").is_dir():
        return
    with open_repo(work.home) as repo:
        for place in _odbs(repo):
            for oid in list(place.all()) if place.fs.exists(place.path) else []:
                with place.fs.open(place.oid_to_path(oid), "rb") as stream:
                    if forgetting.holds(stream, work.gone):
                        yield place, oid


def _odbs(repo: Repo) -> list[Any]:
    return [repo.cache.local, *([repo.cloud.get_remote_odb()] if repo.config["core"].get("remote") else [])]


def _purge(work: Work) -> None:
    for path in forgetting.held_snapshots(work.home, work.gone):
        shutil.rmtree(path)
    for place, oid in _objects(work):
        place.delete(oid)
    for path in _files(work):
        path.unlink()
    if work.kind == "source":  # what a teacher made of it has no name beside it
        shutil.rmtree(work.home / layout.TEACHER_CACHE, ignore_errors=True)


def _purge_versions(work: Work, certificate: str) -> list[str]:
    """Delete packages and reports of marked versions, once another is champion; returns what is left to do."""
    left = []
    for registry in work.registries:
        champion = registry.alias("champion")
        if champion is not None and champion.tags.get(FORGET):
            left.append(
                f"version {champion.number} of {registry.domain}, the champion, knows it, and is served without its "
                "passages: release one that does not (make run), then run this command again"
            )
            continue
        for version in registry.versions():
            if certificate in version.tags.get(FORGET, "").split(","):
                drop_artifacts(registry.client, version.run_id, *forgetting.PURGED)
                shutil.rmtree(work.home / layout.WEIGHTS / version.manifest, ignore_errors=True)
    return left


def _certificate(work: Work, entry: LedgerEntry, left: list[str]) -> dict[str, Any]:
    if work.kind in ("example", "source"):
        left.append(f"commit {FORGOTTEN}; what it was read from is in the domain's own files and their history in git")
    return {
        "certificate": entry.reason,
        "kind": work.kind,
        "sha256": entry.digest,
        "domain": work.domain,
        "began": entry.created_at.isoformat(timespec="seconds"),
        "written": now().isoformat(timespec="seconds"),
        "by": entry.actor,
        "rows": (entry.detail or {})["rows"],
        "names": {domain: sorted(hashes) for domain, hashes in work.names.items()},
        **work.lists,
        "remaining": [*left, "backups that were taken before hold it: delete them, or forget again after a restore"],
    }


def verify(home: Path, certificate: str) -> list[str]:
    """What still holds something that was forgotten, in words.

    Raises:
        NothingToForget: the certificate is not here.
    """
    path = home / CERTIFICATES / f"{certificate}.json"
    if not path.is_file():
        raise NothingToForget(f"{path} is not here; those that are: {', '.join(_numbers(home)) or 'none'}")
    told = json.loads(path.read_text(encoding="utf-8"))
    names = {domain: frozenset(hashes) for domain, hashes in told["names"].items()}
    with live(home) as (_, _, store), contextlib.chdir(home):
        work = Work(home, store, told["domain"], told["kind"], names, {})
        found = rows.still_there(store, told["kind"], told["sha256"], work.gone)
        if rows.hashes_of(store, certificate) != names:
            found.append("the database: its list of what the gateway leaves out is not the certificate's")
        looked = _look(work)
        found += [f"a snapshot of feedback: {one}" for one in looked["snapshots"]]
        found += [f"a file: {one}" for one in looked["files"]]
        found += [f"an object of DVC: {one}" for one in looked["objects"]]
        for one in looked["versions"]:
            version = Registry(one["domain"], home).get(one["version"])
            if FORGET not in version.tags:
                found.append(f"version {version.number} of {one['domain']}, which is not marked: {one['why']}")
            elif "champion" in version.aliases:
                found.append(f"version {version.number} of {one['domain']}, the champion: {one['why']}")
    return found


def _numbers(home: Path) -> list[str]:
    return sorted(path.stem for path in (home / CERTIFICATES).glob("*.json"))
