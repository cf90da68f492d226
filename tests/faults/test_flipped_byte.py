"""One flipped byte in any file of a release is found before that file is used, wherever it is used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from flows import stages as dvc
from serving.follower import Follower, NotServed, Traffic
from serving.monitoring import Metrics
from serving.settings import GatewaySettings
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import folder_digest, sha256_file, verify_manifest, write_json, write_manifest
from tasks.engine.serve import serve
from tasks.evaluate.scoring.subject import load_subject
from tasks.registry import pointer
from tasks.registry.pointer import EVALUATION_ARTIFACT, VersionUnavailable, fetch_evaluation, fetch_weights
from tasks.registry.runs import open_run
from tasks.registry.versions import PromotionRefused, Registry, Version
from tasks.store.store import Store
from tasks.text.prompts import PromptBook
from tasks.train.champion.stage import champion
from tasks.train.run.handover import before_sft
from tasks.train.start.stage import start
from tests.damaged import damages
from tests.serving.gateways import DOMAIN, ROOT, Stub, make_home, make_index, params
from tests.serving.test_follower import fake_probes


@pytest.fixture(scope="module")
def home(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("flipped") / "home", base_model)


@pytest.fixture(scope="module")
def package(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a package holds, with a real index, over the base model of `home`."""
    folder = tmp_path_factory.mktemp("packages") / "package"
    make_index(folder / "knowledge")
    (folder / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / "adapter" / name).write_text(json.dumps({"name": name}))
    template = (home / layout.BASE_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    write_json(folder / "prompt.json", {"system": "Be brief.", "chat_template": template})
    write_json(folder / "base.json", {"digest": verify_manifest(home / layout.BASE_MODEL)})
    write_json(folder / "kind.json", {"served_as": "adapter", "why": "test"})
    write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def registered(home: Path, package: Path) -> tuple[Registry, Version, Path]:
    """A version with its verdict and evaluation, and where its artifacts lie."""
    registry = Registry(DOMAIN, home)
    run_id = open_run(registry.client, home, DOMAIN, "inputs", "test")
    artifacts = Path(unquote(urlsplit(registry.client.get_run(run_id).info.artifact_uri).path))
    registry.client.log_artifacts(run_id, str(package), "package")
    for name in ("answers.jsonl", "scores.jsonl"):
        registry.client.log_text(run_id, '{"id": "a"}\n', f"{EVALUATION_ARTIFACT}/{name}")
    registry.client.log_text(run_id, '{"outcome": "hold"}', "verdict.json")
    tags = {
        "manifest_sha256": verify_manifest(package),
        "verdict_sha256": sha256_file(artifacts / "verdict.json"),
        "evaluation_sha256": str(folder_digest(artifacts / EVALUATION_ARTIFACT)),
        "verdict": "hold",
    }
    return registry, registry.register(run_id, tags), artifacts


def all_refused(folder: Path, use: Callable[[], object], error: type[FlywheelError] = FlywheelError) -> None:
    """Every damage of the folder is an error of ours where it is used; without damage it can be used."""
    use()
    for damage in damages(folder):
        try:
            use()
        except error:
            continue
        pytest.fail(f"{damage} was not found")
    use()


def test_what_the_artifact_store_changed_is_not_fetched(
    registered: tuple[Registry, Version, Path], tmp_path: Path
) -> None:
    registry, version, artifacts = registered

    def fetched_anew() -> None:
        shutil.rmtree(tmp_path / layout.WEIGHTS, ignore_errors=True)
        fetch_weights(registry, version, tmp_path)

    all_refused(artifacts / "package", fetched_anew, VersionUnavailable)


def test_what_changed_on_this_machine_is_fetched_again(
    registered: tuple[Registry, Version, Path], tmp_path: Path
) -> None:
    registry, version, _ = registered
    folder = fetch_weights(registry, version, tmp_path)
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    for damage in damages(kept):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        fetch_weights(registry, version, tmp_path)
        assert verify_manifest(folder) == version.manifest, damage


def test_a_changed_evaluation_and_a_changed_verdict_are_refused(
    registered: tuple[Registry, Version, Path], tmp_path: Path
) -> None:
    registry, version, artifacts = registered

    def evaluation() -> None:
        shutil.rmtree(tmp_path / "found", ignore_errors=True)
        (tmp_path / "found").mkdir()
        fetch_evaluation(registry, version, str(tmp_path / "found"))

    all_refused(artifacts / EVALUATION_ARTIFACT, evaluation, VersionUnavailable)
    verdict = artifacts / "verdict.json"
    whole = verdict.read_bytes()
    assert registry.verdict(version) == {"outcome": "hold"}
    for at in range(len(whole)):
        verdict.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(PromotionRefused, match="not the one it was registered with"):
            registry.verdict(version)
    verdict.write_bytes(whole)


@pytest.fixture
def checkout(home: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose champion, and whose night's start, is the package."""
    monkeypatch.chdir(tmp_path)
    digest = verify_manifest(package)
    shutil.copytree(home / layout.BASE_MODEL, layout.BASE_MODEL)
    shutil.copytree(package, layout.PACKAGE)
    shutil.copytree(package, layout.WEIGHTS / digest)
    for name in (layout.PARAMS, Path("infra")):
        name.symlink_to(ROOT / name)
    write_json(layout.CHAMPION_POINTER, {"kind": "version", "version": "1", "digest": digest})
    night = {"count": 1, "digest": "a" * 64, "watermark": 1, "start": {"version": "1", "digest": digest}}
    write_json(layout.FEEDBACK_POINTER, night)
    champion()
    return layout.WEIGHTS / digest


def test_the_graph_takes_no_changed_champion(checkout: Path) -> None:
    """Neither to judge against nor to go on from; and training goes on from no changed start or base model."""
    all_refused(checkout, champion)
    all_refused(checkout, start)
    write_json(layout.PRETRAIN / "none/why.json", {"why": "test"})
    write_manifest(layout.PRETRAIN / "none")
    for folder in (layout.START, layout.BASE_MODEL):
        all_refused(folder, before_sft)


@pytest.mark.usefixtures("checkout")
def test_nothing_changed_is_evaluated() -> None:
    all_refused(layout.PACKAGE, lambda: load_subject("candidate"))
    all_refused(layout.CHAMPION, lambda: load_subject("champion"))
    for who in ("candidate", "champion"):
        all_refused(layout.BASE_MODEL, lambda who=who: load_subject(who))


@pytest.mark.usefixtures("checkout")
def test_the_engine_is_given_no_changed_base_model() -> None:
    """Whole, it is refused for want of an environment only: the engine's program is looked for after this check."""

    def told() -> str:
        with pytest.raises(FlywheelError) as refused:
            serve(pause=0.0)
        return str(refused.value)

    assert "make environments" in told()
    for damage in damages(layout.BASE_MODEL):
        if damage != "MANIFEST.json removed":  # is waited for: it is being built
            assert "MANIFEST.json" in (said := told()) or "does not match" in said, damage


@pytest.fixture(scope="module")
def engine() -> Iterator[Stub]:
    stub = Stub().start()
    yield stub
    stub.kill()


@pytest.fixture
def follower(home: Path, engine: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    """The gateway's follower, its thread not started."""
    monkeypatch.setattr(pointer, "fetch_probes", fake_probes)
    engine.behave(adapters={})
    store = Store.open(None, home)
    base = home / layout.BASE_MODEL
    settings = GatewaySettings(params(), home, None, engine.url, None)
    yield Follower(settings, store, Traffic(), Metrics(DOMAIN), PromptBook(base), verify_manifest(base))
    store.close()


def test_the_gateway_opens_no_index_and_loads_no_adapter_that_was_changed(
    registered: tuple[Registry, Version, Path], follower: Follower, engine: Stub, home: Path
) -> None:
    registry, version, artifacts = registered
    for damage in damages(artifacts / "package"):
        shutil.rmtree(home / layout.WEIGHTS, ignore_errors=True)
        with pytest.raises(VersionUnavailable):
            follower._load(registry, version)
        assert engine.seen()["adapters"] == {}, damage


def test_what_changes_between_check_and_use_takes_no_traffic(
    registered: tuple[Registry, Version, Path],
    follower: Follower,
    engine: Stub,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, version, _ = registered

    def change_and_probe(*given: Any) -> Any:
        (home / layout.WEIGHTS / version.manifest / "adapter/adapter_model.safetensors").write_text("changed")
        return fake_probes(*given)

    served = follower._load(registry, version)
    assert list(engine.seen()["adapters"]) == [served.model]
    follower.adapters.unload(served.model)
    monkeypatch.setattr(pointer, "fetch_probes", change_and_probe)
    with pytest.raises(NotServed, match="were changed on this machine"):
        follower._load(registry, version)
    assert engine.seen()["adapters"] == {}


def test_an_engine_that_was_started_again_gets_no_package_that_was_rewritten_with_its_manifest(
    registered: tuple[Registry, Version, Path], follower: Follower, engine: Stub, home: Path
) -> None:
    registry, version, _ = registered
    folder = fetch_weights(registry, version, home)
    follower.adapters.load("ours", folder)
    follower.traffic.champion = type("Model", (), {"model": "ours"})  # what is served, as far as adapters ask
    engine.behave(adapters={})
    (folder / "adapter/adapter_model.safetensors").write_text("changed")
    write_manifest(folder)
    with pytest.raises(NotServed, match="were changed"):
        follower.adapters.restore(["base"])
    assert engine.seen()["adapters"] == {}


PIPELINE = """
stages:
  index:
    cmd: "true"
    outs: [data/index: {persist: true}]
  package:
    cmd: "touch ran"
    deps: [data/index]
"""


def test_what_was_changed_in_dvcs_cache_is_not_given_to_a_stage(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC trusts a read-only object of its cache: it checks out a changed one, and calls it up to date."""

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    run("init", "--no-scm", "-q")
    Path("dvc.yaml").write_text(PIPELINE)
    shutil.copytree(package / "knowledge", "data/index")
    write_manifest(layout.INDEX)
    run("repro", "-s", "index")
    changed = next(p for p in Path(".dvc/cache").rglob("*") if p.is_file() and b"committee" in p.read_bytes())
    content = changed.read_bytes()
    changed.chmod(0o644)
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed.chmod(0o444)
    shutil.rmtree(layout.INDEX)
    run("checkout")
    with dvc.open_repo(tmp_path) as repo:
        assert dvc.is_current(repo, "index"), "DVC calls it up to date"
        with pytest.raises(dvc.StageFailed, match=r"stage package was not run: .*changed: passages\.parquet"):
            dvc.refuse_damaged(repo, "package")
