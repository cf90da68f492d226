"""The gateway follows a real MLflow registry: versions are moved with MLflow's own client while requests run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tasks.core import layout
from tasks.core.files import verify_manifest, write_manifest
from tasks.engine.parity import ParityProbe
from tasks.registry import pointer
from tasks.registry.runs import open_run
from tasks.registry.versions import Registry, Version
from tasks.store import ledger
from tasks.text.passages import answering_words, ask_from
from tests.serving.gateways import DOMAIN, PASSAGES, Gateway, Stub, make_home, make_index, running, wait_for

QUESTION: Any = [{"role": "user", "content": "How?"}]
MISBEHAVING = "answers otherwise than it was evaluated"


@dataclass
class Followed:
    """A gateway, its registry and the versions in it, by what they are good for."""

    gateway: Gateway
    registry: Registry
    versions: dict[str, Version]
    without_champion: dict[str, Any] = field(default_factory=dict)  # what /readyz said before there was one

    def move(self, name: str) -> None:
        """Move the alias as somebody would in MLflow's page."""
        self.registry.client.set_registered_model_alias(DOMAIN, "champion", self.versions[name].number)

    def ready(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.gateway.url}/readyz").json())

    def wait_until_served(self, name: str) -> float:
        began = time.monotonic()
        try:
            wait_for(lambda: self.ready()["version"] == self.versions[name].number, what=f"serving {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; /readyz: {self.ready()}") from None
        return time.monotonic() - began

    def events(self) -> list[tuple[str, str | None]]:
        lines = ledger.entries(self.gateway.service.storage.store, DOMAIN)
        return [(line.event, line.version) for line in reversed(lines)]

    def wait_until_told(self, event: str, version: str) -> None:
        """The ledger's line comes after the change that it tells of."""
        wait_for(lambda: (event, version) in self.events(), 60, f"the ledger's line {event} {version}")

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.gateway.url}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).rsplit(" ", 1)[1])


def register(registry: Registry, folder: Path, name: str, base: Path, part: str = "adapter", **prompt: str) -> Version:
    """A version with an adapter of a few bytes; an override lets the alias through without a verdict."""
    package = folder / name
    if name.startswith("knowing"):
        make_index(package / "knowledge", k=1)
    if name == "knowing badly":
        (package / "knowledge/retrieval.json").unlink()
    (package / part).mkdir(parents=True)
    (package / part / "adapter_model.safetensors").write_text(name)
    served_as = "weights" if part == "model" else "adapter"
    (package / "kind.json").write_text(json.dumps({"served_as": served_as, "why": "test"}))
    template = (base / "chat_template.jinja").read_text(encoding="utf-8")
    (package / "prompt.json").write_text(json.dumps({"system": f"You are {name}.", "chat_template": template} | prompt))
    trained_over = "0" * 64 if name == "stranger" else verify_manifest(registry.home / layout.BASE_MODEL)
    (package / "base.json").write_text(json.dumps({"digest": trained_over}))
    digest = write_manifest(package)
    run_id = open_run(registry.client, registry.home, DOMAIN, name, "test")
    registry.client.log_artifacts(run_id, str(package), "package")
    tags = {"manifest_sha256": digest, "verdict_sha256": name, "verdict": "hold", "override": "a test"}
    return registry.register(run_id, tags)


def fake_probes(registry: Registry, version: Version, most: int = 8) -> list[ParityProbe]:
    """What the version's evaluation would say: that it speaks as the stub does, unless the version is the odd one."""
    text = (
        "something else entirely" if version.tags["verdict_sha256"] == MISBEHAVING else f"{version.manifest[:16]} 1 2 3"
    )
    return [ParityProbe(messages=QUESTION, prompt="", prompt_ids=[], reference="r", nll=1.0, answer=text)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Stub]:
    stub = Stub().start()
    yield stub
    stub.kill()


@pytest.fixture(scope="module")
def followed(engine: Stub, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("followed")
    home = make_home(folder / "home", base_model)
    registry = Registry(DOMAIN, home)
    versions = {
        name: register(registry, folder / "packages", name, base_model)
        for name in ("first", "second", "damaged", MISBEHAVING, "stranger", "knowing", "knowing badly")
    }
    versions["foreign"] = register(registry, folder / "packages", "foreign", base_model, chat_template="{{ other }}")
    versions["whole"] = register(registry, folder / "packages", "whole", base_model, part="model")
    versions["unjudged"] = register(registry, folder / "packages", "unjudged", base_model)
    registry.client.delete_model_version_tag(DOMAIN, versions["unjudged"].number, "override")
    registry.client.log_text(versions["damaged"].run_id, "forged", "package/adapter/adapter_model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointer, "fetch_probes", fake_probes)
        with running(home, engine.url) as gateway:
            wait_for(lambda: gateway.service.ready()[0])
            followed = Followed(gateway, registry, versions)
            followed.without_champion = followed.ready()
            yield followed


@pytest.fixture
def first(followed: Followed) -> Followed:
    """The first version is served."""
    followed.move("first")
    followed.wait_until_served("first")
    return followed


def test_without_a_champion_the_base_model_answers_with_the_domains_prompt(followed: Followed) -> None:
    assert followed.without_champion["problems"] == {}
    assert followed.without_champion["version"] == "base"
    followed.wait_until_told("served", "base")


def test_moving_the_alias_under_traffic_fails_no_request_and_no_answer_has_two_versions(
    followed: Followed, engine: Stub
) -> None:
    followed.move("first")
    followed.wait_until_served("first")
    engine.behave(between=0.1)
    answers: list[tuple[str, str]] = []
    failures: list[Exception] = []
    ending = threading.Event()

    def ask(client: OpenAI) -> None:
        try:
            stream = client.chat.completions.with_raw_response.create(model=DOMAIN, messages=QUESTION, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream.parse())
            answers.append((stream.headers["x-flywheel-version"], text))
        except Exception as error:
            failures.append(error)

    def traffic() -> None:
        client = OpenAI(base_url=f"{followed.gateway.url}/v1", api_key=followed.gateway.keys["ann"], max_retries=0)
        asking = []
        while not ending.wait(0.5):  # two a second
            asking.append(threading.Thread(target=ask, args=(client,)))
            asking[-1].start()
        for thread in asking:
            thread.join()

    running_traffic = threading.Thread(target=traffic)
    running_traffic.start()
    for name in ("second", "first", "second"):
        time.sleep(1.2)
        followed.move(name)
        followed.wait_until_served(name)
    time.sleep(1.2)
    ending.set()
    running_traffic.join()
    engine.behave(between=0.0)
    names = {followed.versions[name].number: followed.versions[name].manifest[:16] for name in ("first", "second")}
    assert failures == []
    assert {version for version, _ in answers} == set(names)
    assert all(text == f"{names[version]} 1 2 3" for version, text in answers)


@pytest.mark.usefixtures("first")
def test_going_back_needs_no_second_load(followed: Followed, engine: Stub) -> None:
    for name in ("second", "first"):
        followed.move(name)
        followed.wait_until_served(name)
    assert {followed.versions[name].manifest[:16] for name in ("first", "second")} <= set(engine.seen()["adapters"])
    assert engine.seen()["asked"][-1]["model"] == followed.versions["first"].manifest[:16]


@pytest.mark.usefixtures("first")
def test_the_version_answers_with_the_system_prompt_it_was_trained_with(followed: Followed, engine: Stub) -> None:
    body = {"model": DOMAIN, "messages": QUESTION}
    reply = httpx.post(f"{followed.gateway.url}/v1/chat/completions", headers=followed.gateway.headers(), json=body)
    assert engine.seen()["asked"][-1]["messages"][0] == {"role": "system", "content": "You are first."}
    assert reply.json()["version"] == followed.versions["first"].number


@pytest.mark.usefixtures("first")
def test_a_version_with_an_index_is_probed_and_answers_from_its_passages(followed: Followed, engine: Stub) -> None:
    engine.behave(asked=[])
    followed.move("knowing")
    followed.wait_until_served("knowing")
    [probe] = engine.seen()["asked"]
    assert probe["messages"] == [{"role": "user", "content": ask_from(PASSAGES[2:3], "How?", answering_words("en"))}]
    served = followed.gateway.service.traffic.champion
    assert served is not None and "_lexicon" in vars(served.knowledge)
    body = {"model": DOMAIN, "messages": [{"role": "user", "content": "Who gives permits?"}]}
    reply = httpx.post(f"{followed.gateway.url}/v1/chat/completions", headers=followed.gateway.headers(), json=body)
    assert [source["source"] for source in reply.json()["choices"][0]["sources"]] == ["graph.csv:2"]
    asked = ask_from(PASSAGES[3:], "Who gives permits?", answering_words("en"))
    assert engine.seen()["asked"][-1]["messages"][-1]["content"] == asked
    followed.move("first")
    followed.wait_until_served("first")
    assert followed.gateway.service.traffic.champion.knowledge is None


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("damaged", "cannot be fetched"),
        (MISBEHAVING, "does not answer as it was evaluated"),
        ("foreign", "template"),
        ("stranger", "another base model"),
        ("whole", "whole weights"),
        ("knowing badly", "holds no index"),
    ],
)
def test_a_version_that_fails_leaves_the_old_one_and_says_why(followed: Followed, name: str, reason: str) -> None:
    failures = followed.metric("flywheel_serve_failures_total")
    followed.move(name)
    wait_for(lambda: reason in followed.ready()["problems"].get("champion", ""), what=reason)
    assert followed.ready()["version"] == followed.versions["first"].number
    assert followed.ready()["ready"] is True
    assert str(followed.gateway.home) not in json.dumps(followed.ready())
    followed.wait_until_told("serve_failed", followed.versions[name].number)
    assert followed.metric("flywheel_serve_failures_total") == failures + 1
    followed.move("first")
    wait_for(lambda: "champion" not in followed.ready()["problems"])


@pytest.mark.usefixtures("first")
def test_a_version_without_verdict_or_override_is_refused_and_the_alias_put_back(followed: Followed) -> None:
    followed.move("unjudged")
    wait_for(lambda: "refused" in followed.ready()["problems"])
    assert followed.ready()["version"] == followed.versions["first"].number
    champion = followed.registry.alias("champion")
    assert champion is not None and champion.number == followed.versions["first"].number
    followed.wait_until_told("refused", followed.versions["unjudged"].number)


@pytest.mark.usefixtures("first")
def test_an_engine_that_was_started_again_gets_its_adapter_before_traffic(followed: Followed, engine: Stub) -> None:
    engine.kill()
    wait_for(lambda: not followed.ready()["ready"])
    engine.start()
    wait_for(lambda: followed.ready()["ready"])
    assert list(engine.seen()["adapters"]) == [followed.versions["first"].manifest[:16]]
    body = {"model": DOMAIN, "messages": QUESTION}
    reply = httpx.post(f"{followed.gateway.url}/v1/chat/completions", headers=followed.gateway.headers(), json=body)
    assert reply.json()["choices"][0]["message"]["content"].startswith(followed.versions["first"].manifest[:16])


@pytest.mark.usefixtures("first")
def test_a_gateway_that_starts_with_a_broken_champion_takes_up_what_was_served_last(
    followed: Followed, engine: Stub
) -> None:
    followed.move(MISBEHAVING)
    wait_for(lambda: "champion" in followed.ready()["problems"])
    keys = followed.gateway.keys
    with running(followed.gateway.home, engine.url, keys) as second:
        wait_for(lambda: second.service.ready()[0])
        found = second.service.ready()[1]
    followed.move("first")
    assert found["version"] == followed.versions["first"].number
    assert "does not answer as it was evaluated" in found["problems"]["champion"]
