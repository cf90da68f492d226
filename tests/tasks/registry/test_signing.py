"""Who made a version is signed: with a real MLflow registry that somebody else may write to, and a real database."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.registry import deploy, signing
from tasks.registry.deploy import settled_champion
from tasks.registry.pointer import VersionUnavailable, fetch_weights
from tasks.registry.signing import NotTrusted, public_key
from tasks.registry.versions import PromotionRefused, Registry, Version
from tasks.store import ledger
from tasks.store.store import Store
from tests.mlflow_store import lay_mlflow
from tests.tasks.registry.registered import judged
from tests.tasks.registry.test_pointer import champion_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A registry and a key of this test's own."""
    return lay_mlflow(tmp_path / "home")


def write_tag(registry: Registry, version: Version, key: str, value: str) -> Version:
    """What whoever may write to MLflow can do."""
    registry.client.set_model_version_tag(registry.domain, version.number, key, value)
    return registry.get(version.number)


def unsigned(registry: Registry, version: Version) -> Version:
    """The version as it would be without us."""
    registry.client.delete_model_version_tag(registry.domain, version.number, signing.SIGNATURE)
    return registry.get(version.number)


def test_the_private_key_is_made_once_for_its_owner_alone(registry: Registry, home: Path) -> None:
    key = home / layout.SECRETS / "signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    assert registry.untrusted(judged(Registry("another", home), "1")) is not None, "it was signed as another domain's"
    assert registry.untrusted(judged(registry, "1")) is None
    assert key.read_bytes() == before


def test_a_damaged_key_is_named_and_never_replaced(registry: Registry, home: Path) -> None:
    key = home / layout.SECRETS / "signing.key"
    key.write_text("half a k")
    with pytest.raises(NotTrusted, match=r"signing\.key holds no key; restore it"):
        judged(registry, "1")
    assert key.read_text() == "half a k"


@pytest.mark.parametrize("tag", signing.SIGNED)
def test_package_verdict_and_evaluation_cannot_be_rewritten_with_their_tags(registry: Registry, tag: str) -> None:
    forged = write_tag(registry, judged(registry, "1"), tag, "f" * 64)
    assert "its tags were changed since" in str(registry.untrusted(forged))


def test_a_flipped_character_of_the_signature_is_found(registry: Registry) -> None:
    version = judged(registry, "1")
    signature = version.tags[signing.SIGNATURE]
    for at in range(len(signature)):
        other = "0" if signature[at] != "0" else "1"
        tags = version.tags | {signing.SIGNATURE: signature[:at] + other + signature[at + 1 :]}
        assert signing.untrusted(registry.home, registry.domain, "1", tags), at


def test_what_is_not_signed_is_not_promoted_by_command_or_by_hand_and_its_override_tag_is_no_way_round(
    registry: Registry, store: Store
) -> None:
    deploy.promote(registry, store, judged(registry, "1"), "anna", "first")
    foreign = unsigned(registry, judged(registry, "2", against="1" * 64))
    foreign = write_tag(registry, foreign, "override", "set in MLflow")
    with pytest.raises(PromotionRefused, match=r"version 2 is not signed; .* `flywheel promote 2 --override REASON`"):
        deploy.promote(registry, store, foreign, "anna", "second")
    registry.client.set_registered_model_alias(registry.domain, "champion", foreign.number)
    champion = settled_champion(store, registry)
    assert champion is not None and champion.number == "1"
    refused = ledger.last(store, registry.domain, "refused")
    assert refused is not None and "is not signed" in refused.reason


def test_a_person_who_answers_for_a_version_signs_it(registry: Registry, store: Store) -> None:
    version = registry.override(unsigned(registry, judged(registry, "1", outcome="hold")), "I made it elsewhere")
    deploy.promote(registry, store, version, "anna", "")
    assert registry.untrusted(registry.get("champion")) is None


def test_the_ledger_keeps_what_was_signed(registry: Registry, store: Store) -> None:
    version = judged(registry, "1")
    deploy.promote(registry, store, version, "anna", "first")
    line = ledger.last(store, registry.domain)
    assert line is not None and line.detail is not None
    assert line.detail["manifest_sha256"] == "1" * 64
    assert line.detail["verdict_sha256"] == version.tags["verdict_sha256"]
    assert signing.untrusted(registry.home, registry.domain, "1", line.detail) is None, (
        "it can be checked from it alone"
    )


def test_files_and_manifest_rewritten_together_with_the_tag_are_not_fetched(registry: Registry, tmp_path: Path) -> None:
    """All that a manifest cannot show: whoever may write to MLflow makes package, manifest and tag agree."""
    champion_of(registry, tmp_path / "package")
    digest = champion_of(Registry("elsewhere", registry.home), tmp_path / "other", "other")
    registry.client.log_artifacts(registry.get("champion").run_id, str(tmp_path / "other"), "package")
    forged = write_tag(registry, registry.get("champion"), "manifest_sha256", digest)
    with pytest.raises(VersionUnavailable, match="its tags were changed since"):
        fetch_weights(registry, forged, tmp_path)


def test_versions_older_than_the_key_are_signed_once_when_it_is_made(registry: Registry, home: Path) -> None:
    old, later = judged(registry, "1"), judged(registry, "2")
    unsigned(registry, old)
    shutil.rmtree(home / layout.SECRETS)
    again = Registry(registry.domain, home)
    assert again.untrusted(again.get(old.number)) is None
    assert "which is not in FLYWHEEL_TRUSTED_KEYS" in str(again.untrusted(later)), "another key's is not signed over"
    unsigned(again, old)
    (home / layout.SECRETS / "signing.key").unlink()
    once_more = Registry(registry.domain, home)
    assert "is not signed" in str(once_more.untrusted(again.get(old.number))), "not with a second key either"
    assert once_more.untrusted(judged(once_more, "3")) is None


def test_another_machine_serves_what_a_pinned_key_signed_and_nothing_else(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's host has a store of its own, no private key, and the same MLflow."""
    champion_of(registry, tmp_path / "package")
    version, pinned = registry.get("champion"), public_key(registry.home)
    gateway = tmp_path / "gateway"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry.home}/.flywheel/mlflow/mlflow.db")
    monkeypatch.setenv(signing.TRUSTED, pinned)
    here = Registry(registry.domain, gateway)
    assert fetch_weights(here, version, gateway).is_dir()
    assert not (gateway / layout.SECRETS).exists()
    monkeypatch.setenv(signing.TRUSTED, "0" * 64)
    with pytest.raises(VersionUnavailable, match=r"signed by the key .* which is not in FLYWHEEL_TRUSTED_KEYS here"):
        fetch_weights(here, version, gateway)
