"""Versions of a domain's model in the MLflow registry (aliases candidate, champion, previous), and who is champion.

A version is known by what it holds (manifest_sha256) and how it was judged (verdict_sha256): registering the same pair
again finds the one that is there. `released`, set last, says that nothing of that release is left to do. Promotion does
not trust the caller: it reads the verdict kept with the version and compares digests.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import FlywheelError
from tasks.core.files import sha256_bytes, write_text
from tasks.core.pointers import Renewal
from tasks.registry import signing
from tasks.registry.runs import PACKAGE_ARTIFACT, connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

RELEASED = "released"
ROLLED_BACK = "rolled_back"
BY_PERSON, NOT_SERVED = "true", "not served"  # its values: what a person takes back, a night does not learn again
NOT_PASSED = "not_passed"  # the gate's criteria that it did not pass
FORGET = "forget"  # certificates of what it learnt or holds and what was forgotten since
SERVED_AS = "served_as"  # adapter, weights, or nothing; versions without it are adapters


class PromotionRefused(FlywheelError):
    """A version may not become champion; the message names every condition it fails."""


class UnknownVersion(FlywheelError):
    """No such version in the registry; the message names those there are."""


@dataclass(frozen=True)
class Version:
    """One version of the domain's model."""

    number: str
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...] = ()

    @property
    def manifest(self) -> str:
        """The package's digest."""
        return self.tags["manifest_sha256"]


class Registry:
    """The versions of one domain. `home` is the folder that holds .flywheel/."""

    def __init__(self, domain: str, home: Path) -> None:
        """Connects, and creates the registered model where it is missing."""
        self.domain, self.home = domain, home
        self.client: MlflowClient = connect(home)
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(domain)
        except MlflowException:
            with contextlib.suppress(MlflowException):
                self.client.create_registered_model(domain)
        if not signing.adopted_path(home).is_file() and not signing.pinned_keys():
            self._sign_what_there_is()

    def _sign_what_there_is(self) -> None:
        """Once, when this installation gets its key: versions older than signing are taken on trust."""
        for model in self.client.search_registered_models(max_results=1000):
            for row in self.client.search_model_versions(f"name='{model.name}'", max_results=10_000):
                if "manifest_sha256" in row.tags and signing.SIGNATURE not in row.tags:
                    self._sign(model.name, str(row.version), row.tags)
        write_text(signing.adopted_path(self.home), f"with {signing.public_key(self.home)}\n")

    def _sign(self, model: str, number: str, tags: dict[str, str]) -> None:
        signature = signing.sign(self.home, model, tags)
        self.client.set_model_version_tag(model, number, signing.SIGNATURE, signature)

    def untrusted(self, version: Version) -> str | None:
        """Why a version may not be served here, by its signature; None where that holds."""
        return signing.untrusted(self.home, self.domain, version.number, version.tags)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        aliases = self._aliases()
        found = self.client.search_model_versions(f"name='{self.domain}'", max_results=10_000)
        rows = [
            Version(str(row.version), row.run_id or "", dict(row.tags or {}), aliases.get(str(row.version), ()))
            for row in found
        ]
        return sorted(rows, key=lambda version: -int(version.number))

    def _aliases(self) -> dict[str, tuple[str, ...]]:
        named: dict[str, tuple[str, ...]] = {}
        for alias, number in sorted(dict(self.client.get_registered_model(self.domain).aliases).items()):
            named[str(number)] = (*named.get(str(number), ()), alias)
        return named

    def get(self, number: str) -> Version:
        """One version, by its number or by an alias.

        Raises:
            UnknownVersion: there is none.
        """
        versions = self.versions()
        for version in versions:
            if number in (version.number, *version.aliases):
                return version
        known = ", ".join(version.number for version in versions) or "none yet"
        raise UnknownVersion(f"no version {number!r} of {self.domain}; there are: {known}")

    def alias(self, name: str) -> Version | None:
        """The version under an alias."""
        return next((version for version in self.versions() if name in version.aliases), None)

    def find(self, **tags: str) -> Version | None:
        """The newest version that carries all these tags."""
        return next((v for v in self.versions() if all(v.tags.get(k) == value for k, value in tags.items())), None)

    def register(self, run_id: str, tags: dict[str, str]) -> Version:
        """The version with this manifest and verdict: the one that is there, or a new one over the run's package."""
        same = {key: tags[key] for key in ("manifest_sha256", "verdict_sha256")}
        version = self.find(**same)
        if version is None:
            source = f"runs:/{run_id}/{PACKAGE_ARTIFACT}"
            tags = tags | {signing.SIGNATURE: signing.sign(self.home, self.domain, tags)}
            created = self.client.create_model_version(self.domain, source, run_id=run_id, tags=tags)
            version = self.get(str(created.version))
        elif self.untrusted(version):  # the same was made here again
            self._sign(self.domain, version.number, tags)
        self.client.set_registered_model_alias(self.domain, "candidate", version.number)
        return self.get(version.number)

    def finish(self, version: Version, inputs: str) -> None:
        """Say that this version's release is complete, and which inputs lead to it. The last write of a release."""
        if version.tags.get("inputs_sha256") != inputs:
            self.client.set_model_version_tag(self.domain, version.number, f"inputs_sha256.{inputs[:16]}", inputs)
        self.client.set_model_version_tag(self.domain, version.number, RELEASED, "true")

    def of_inputs(self, inputs: str) -> Version | None:
        """The newest version that these inputs led to, complete or not."""
        for version in self.versions():
            if inputs in (value for key, value in version.tags.items() if key.startswith("inputs_sha256")):
                return version
        return None

    def verdict(self, version: Version) -> dict[str, Any]:
        """The verdict kept with a version.

        Raises:
            PromotionRefused: it is missing, or differs from the digest the version was registered with.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = self.client.download_artifacts(version.run_id, "verdict.json", folder)
                content = Path(path).read_bytes()
            except Exception as error:  # every artifact store fails in its own way
                raise PromotionRefused(f"version {version.number}: its verdict cannot be read: {error}") from error
        if sha256_bytes(content) != version.tags.get("verdict_sha256"):
            raise PromotionRefused(f"version {version.number}: its verdict.json is not the one it was registered with")
        return dict(json.loads(content))

    def override(self, version: Version, reason: str) -> Version:
        """Let a person answer for a version: without a passing verdict, rolled back, or not signed by a key of ours."""
        if not reason.strip():
            raise PromotionRefused("an override needs a reason")
        if ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(self.domain, version.number, ROLLED_BACK)
        self.client.set_model_version_tag(self.domain, version.number, "override", reason.strip())
        if self.untrusted(version):
            self._sign(self.domain, version.number, version.tags)
        return self.get(version.number)

    def promote(self, version: Version) -> Version | None:
        """Make a version the champion; the old champion becomes `previous`, and is returned. Again is no change.

        Raises:
            PromotionRefused: no passing verdict for exactly this package against exactly this champion, and no
                `override` tag with a reason; or no engine serves it, or its signature does not hold, which no
                override changes.
        """
        champion = self.alias("champion")
        if champion is not None and champion.number == version.number:
            return champion
        if reason := unservable(version) or self.untrusted(version):
            raise PromotionRefused(reason)
        if not version.tags.get("override", "").strip():
            check_verdict(version, self.verdict(version), champion)
        if champion is not None:
            self.client.set_registered_model_alias(self.domain, "previous", champion.number)
        self.client.set_registered_model_alias(self.domain, "champion", version.number)
        return champion

    def roll_back(self, earlier: Iterable[str] = (), mark: str = BY_PERSON) -> tuple[Version, Version]:
        """Make the champion before champion again, and the champion `previous`; returns (new champion, old champion).

        The old one is marked, so that no release makes it champion again, and no other rollback: only a person may, by
        an override.

        Args:
            earlier: former champions, newest first, for where `previous` was rolled back itself.
            mark: the tag's value: BY_PERSON, or NOT_SERVED.

        Raises:
            PromotionRefused: there is no previous champion that was not rolled back, or has to be forgotten.
        """
        champion, previous = self.alias("champion"), self.alias("previous")
        if champion is None or previous is None:
            raise PromotionRefused(f"{self.domain} has no previous champion to go back to")
        lost = (ROLLED_BACK, FORGET)
        known = {one.number: one for one in self.versions() if not any(one.tags.get(tag) for tag in lost)}
        target = next((known[n] for n in (previous.number, *earlier) if n in known and n != champion.number), None)
        if target is None:
            raise PromotionRefused(
                f"every champion before version {champion.number} was rolled back, or knows what was forgotten; "
                "`flywheel promote N --override REASON` makes one of them champion again"
            )
        self.client.set_registered_model_alias(self.domain, "champion", target.number)
        self.client.set_registered_model_alias(self.domain, "previous", champion.number)
        self.mark_rolled_back(champion, mark)
        return target, champion

    def mark_rolled_back(self, version: Version, mark: str = BY_PERSON) -> None:
        """Say that a version is champion no more because somebody went back from it."""
        self.client.set_model_version_tag(self.domain, version.number, ROLLED_BACK, mark)

    def mark_forgotten(self, version: Version, certificate: str) -> None:
        """Say that a version knows what was forgotten. An override that it had was given before: it holds no more."""
        known = [one for one in version.tags.get(FORGET, "").split(",") if one and one != certificate]
        self.client.set_model_version_tag(self.domain, version.number, FORGET, ",".join([*known, certificate]))
        if "override" in version.tags and certificate not in version.tags.get(FORGET, ""):
            self.client.delete_model_version_tag(self.domain, version.number, "override")


def line_of(registry: Registry, version: Version) -> list[Version]:
    """A version and those it went on from, the first of its line last."""
    known = {one.number: one for one in registry.versions()}
    line = [version]
    while (before := known.get(line[-1].tags.get("continues", ""))) is not None:
        line.append(before)
    return line


def anchor_of(registry: Registry, version: Version) -> Version | None:
    """The last of a version's line that showed its gain: as a release, or as a renewal that began at the base model."""
    for one in line_of(registry, version):
        asked = one.tags.get("asked")
        if asked == "release" or (asked == "renewal" and one.tags.get("continues") == "base"):
            return one
    return None


def renewal_of(registry: Registry, champion: Version | None) -> Renewal:
    """Why what follows the champion begins anew: see Pointer. A night that the anchor alone held passed all else."""
    if champion is None or champion.tags.get(FORGET):
        return "forgotten" if champion else ""
    nights = (one.tags for one in registry.versions() if one.tags.get("asked") == "night")
    last = next((tags for tags in nights if tags.get("continues") == champion.number), {})
    missed = last.get(NOT_PASSED, "").split(",")
    held = last.get("verdict") == "hold" and all(name.endswith("_since_anchor") for name in missed)
    return "drifted" if held else ""


def spent_since(registry: Registry, anchor: Version, night: int | None) -> dict[str, int]:
    """Criterion → how many nights of the lines that go on from `anchor` have not passed it; `night` itself apart.

    A night counts once however often it was judged, and also where its version was rolled back since. Renewals since
    the anchor count too, each package once: they stand in for nights.
    """
    line, failed = {anchor.number}, set()
    for version in reversed(registry.versions()):
        asked, number = version.tags.get("asked"), version.tags.get("feedback_night")
        goes_on = asked != "release" and version.tags.get("continues") in line
        line |= {version.number} if goes_on else set()
        renewed = asked == "renewal" and int(version.number) > int(anchor.number)
        if (renewed or (goes_on and asked == "night")) and number != str(night):
            key = version.manifest if renewed else number
            failed |= {(key, name) for name in version.tags.get(NOT_PASSED, "").split(",") if name}
    return dict(Counter(sorted(name for _, name in failed)))


def held_nights(registry: Registry) -> tuple[int, ...]:
    """The nights that taught a version which a person rolled back, in order; versions of the champion's line apart."""
    versions, champion = registry.versions(), registry.alias("champion")
    line = {version.number for version in line_of(registry, champion)} if champion else set()
    learnt = {version.number: int(version.tags.get("feedback_night", "0")) for version in versions}
    return tuple(
        sorted(
            night
            for version in versions
            if version.tags.get(ROLLED_BACK) == BY_PERSON and version.number not in line
            for night in range(learnt.get(version.tags.get("continues", ""), 0) + 1, learnt[version.number] + 1)
        )
    )


def unservable(version: Version) -> str | None:
    """Why no engine of ours can serve a version; None where one can."""
    if version.tags.get(SERVED_AS) != "nothing":
        return None
    return (
        f"version {version.number} can be compared, not served: no engine of ours adds virtual tokens. Train with a "
        "method that is served (docs/training.md)"
    )


def check_verdict(version: Version, verdict: dict[str, Any], champion: Version | None) -> None:
    """Refuse unless the verdict says promote, for this package, against the champion of this moment."""
    problems = []
    if verdict.get("outcome") != "promote" or version.tags.get("verdict") != "promote":
        problems.append(f"its verdict is {verdict.get('outcome')!r}, not 'promote'")
    if version.tags.get(ROLLED_BACK):
        problems.append("it was rolled back by a person")
    if version.tags.get(FORGET):
        problems.append(f"it knows what was forgotten (certificate {version.tags[FORGET]})")
    candidate = verdict.get("candidate", {}).get("digest")
    if candidate != version.tags.get("manifest_sha256"):
        problems.append(
            f"the verdict judged package {short(candidate)}, this is {short(version.tags.get('manifest_sha256'))}"
        )
    judged = verdict.get("champion", {}).get("digest")
    wanted = champion.manifest if champion is not None else version.tags.get("base_manifest_sha256")
    if judged != wanted:
        who = f"version {champion.number}" if champion is not None else "the base model"
        problems.append(f"it was judged against {short(judged)}, but the champion is {who}, {short(wanted)}")
    if problems:
        raise PromotionRefused(
            f"version {version.number} may not become champion: {'; '.join(problems)}. "
            "An `override` tag with a reason on the version lifts this."
        )


def short(digest: Any) -> str:
    """The first twelve characters of a digest, for people."""
    return str(digest)[:12] if digest else "nothing"
