"""The hub: nothing is fetched unasked, what is fetched is whole or not there, and only what a model needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.train.base_model import hub
from tasks.train.base_model.folder import BaseModelError

REVISION = "a" * 40
PRETENDED = """
import json, os, sys, pathlib
folder = pathlib.Path(sys.argv[3])
(folder / ".cache").mkdir(exist_ok=True)
seen = {"arguments": sys.argv[1:3] + sys.argv[4:], "offline": os.environ["HF_HUB_OFFLINE"]}
(folder / "config.json").write_text(json.dumps(seen))
sys.exit(os.environ.get("PRETENDED_FAULT"))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "FETCH", PRETENDED)
    monkeypatch.delenv(hub.NETWORK, raising=False)


def test_without_leave_nothing_is_fetched_and_the_error_says_what_to_set() -> None:
    with pytest.raises(BaseModelError, match="set FLYWHEEL_NETWORK=1 to fetch it, or put"):
        hub.snapshot("org/model", REVISION)
    with pytest.raises(BaseModelError, match=r"or name one with --revision.* set FLYWHEEL_NETWORK=1"):
        hub.newest_revision("org/model")
    assert list(Path().iterdir()) == []


def test_a_model_is_fetched_once_at_its_commit_and_then_found_without_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(hub.NETWORK, "1")
    folder = hub.snapshot("org/model", REVISION)
    assert folder == Path(".flywheel/hub/org--model") / REVISION
    seen = json.loads((folder / "config.json").read_text())
    assert seen == {"arguments": ["org/model", REVISION, *hub.WANTED], "offline": "0"}
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    monkeypatch.delenv(hub.NETWORK)
    assert hub.snapshot("org/model", REVISION) == folder


def test_a_fetch_that_was_cut_short_is_no_model_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.NETWORK, "1")
    monkeypatch.setenv("PRETENDED_FAULT", "the line is dead")
    with pytest.raises(BaseModelError, match="org/model could not be fetched from the hub: the line is dead"):
        hub.snapshot("org/model", REVISION)
    begun = hub.place_of("org/model", REVISION).with_name(f"{REVISION}.part")
    (begun / "model.safetensors").write_bytes(b"half")
    monkeypatch.delenv("PRETENDED_FAULT")
    assert (hub.snapshot("org/model", REVISION) / "model.safetensors").read_bytes() == b"half"
