"""The platform in the background: what it is made of, its processes, its keys, and how a failing start is told."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner

from flows.deploy import render
from flywheel.cli import main
from flywheel.platform.platform import Platform, load
from flywheel.platform.status import attention, look, words
from flywheel.platform.up import PlatformFailed, down, first_keys, holder, read_key, running, secret_path, states, up
from tasks.core import layout, processes
from tasks.core.files import write_json
from tasks.core.params import load_params
from tasks.core.processes import free_port
from tasks.store import ledger
from tasks.store.identities import authenticate
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.mlflow_store import lay_mlflow

PORTS = (("platform", "prefect_port"), ("platform", "mlflow_port"), ("engine", "port"), ("serving", "port"))


@pytest.fixture(autouse=True)
def no_servers_elsewhere(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)  # params.yaml names a file in infra/
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "FLYWHEEL_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose ports are free ones."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    for section, key in PORTS:
        params[section][key] = free_port()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "infra").symlink_to(root / "infra")
    (tmp_path / "data/base_model").mkdir(parents=True)
    (tmp_path / "data/base_model/MANIFEST.json").write_text("{}")
    monkeypatch.setenv("FLYWHEEL_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def half_up(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor as `up` leaves it in the background, over a process that sleeps."""
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    process = processes.start(command, grace=1, out=subprocess.PIPE, outlives_us=True)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    record = {"pid": process.pid, "born": psutil.Process(process.pid).create_time()}
    write_json(home / layout.PLATFORM_UP, record)
    yield process
    processes.stop(process)


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def test_the_deployments_as_written_say_what_params_say(root: Path) -> None:
    written = yaml.safe_load((root / "infra/prefect.yaml").read_text())
    assert render(root, load_params(root / "params.yaml")) == written


def test_the_schedule_of_the_night_is_the_one_in_params(root: Path) -> None:
    params = load_params(root / "params.yaml")
    night = params.nightly.model_copy(update={"cron": "30 4 * * 1", "timezone": "Asia/Shanghai"})
    found = render(root, params.model_copy(update={"nightly": night, "domain": "law"}))
    rows = {row["name"]: row for row in found["deployments"]}
    assert rows["nightly"]["schedules"] == [{"cron": "30 4 * * 1", "timezone": "Asia/Shanghai", "active": True}]
    assert rows["nightly"]["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert rows["nightly"]["parameters"]["workspace"] == rows["release"]["parameters"]["workspace"] == "law"


def test_every_deployment_is_a_flow_that_exists(root: Path) -> None:
    for row in yaml.safe_load((root / "infra/prefect.yaml").read_text())["deployments"]:
        path, _, name = row["entrypoint"].partition(":")
        assert f"def {name}(" in (root / path).read_text(), row["entrypoint"]


def test_every_service_of_the_platform_is_in_the_configuration_with_a_restart(root: Path, home: Path) -> None:
    import configparser

    found = configparser.RawConfigParser()
    found.read(root / "infra/supervisor/platform.conf")
    programs = {name.partition(":")[2]: found[name] for name in found.sections() if name.startswith("program:")}
    assert set(programs) == {service.name for service in load(home).services()}
    for program in programs.values():
        assert program["autorestart"] == "true" and int(program["startretries"]) > 10
        assert program["stopasgroup"] == program["killasgroup"] == "true"


def test_children_are_offline_and_know_where_everything_is(home: Path) -> None:
    found = load(home).environment()
    ports = yaml.safe_load((home / "params.yaml").read_text())
    assert found["HF_HUB_OFFLINE"] == "1" and found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert found["FLYWHEEL_ROOT"] == str(home)
    assert found["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{ports['platform']['mlflow_port']}"
    assert found["PREFECT_API_URL"] == f"http://127.0.0.1:{ports['platform']['prefect_port']}/api"
    assert found["FLYWHEEL_DATABASE_URL"] == f"sqlite:///{home}/.flywheel/store/flywheel.db"


def test_a_server_elsewhere_takes_the_place_of_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org/")
    own = load(home).prefect_api
    monkeypatch.setenv("PREFECT_API_URL", own)  # naming our own address is naming our own server
    services = {service.name: service for service in load(home).services()}
    assert not services["mlflow"].ours and services["mlflow"].address == "https://mlflow.example.org"
    assert services["prefect"].ours
    assert load(home).environment()["MLFLOW_TRACKING_URI"] == "https://mlflow.example.org"


def test_a_socket_path_that_is_too_long_is_put_elsewhere(home: Path) -> None:
    params = load(home).params
    assert Platform(Path("/srv/flywheel"), params).socket == Path("/srv/flywheel/.flywheel/platform/control.sock")
    far = Platform(Path("/srv") / ("x" * 120), params)
    assert len(str(far.socket)) < 100 and far.socket != Platform(Path("/srv") / ("y" * 120), params).socket


def test_a_taken_port_is_told_with_the_process_that_holds_it(home: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert holder("127.0.0.1", server.getsockname()[1]).startswith(f"process {os.getpid()} (")
        params = yaml.safe_load((home / "params.yaml").read_text())
        params["serving"]["port"] = server.getsockname()[1]
        (home / "params.yaml").write_text(yaml.safe_dump(params))
        with pytest.raises(PlatformFailed, match=f"for gateway, is held by process {os.getpid()}"):
            up(load(home), lambda steps: None)
    assert holder("127.0.0.1", params["serving"]["port"]) == ""


def test_a_service_that_dies_ends_the_start_with_its_last_words_and_nothing_is_left(home: Path) -> None:
    engine = home / "tasks/engine"
    engine.mkdir(parents=True)
    (engine / "serve.py").write_text("import sys\nsys.exit('the engine has no model today')\n")
    with pytest.raises(
        PlatformFailed, match=r"(?s)engine ended while starting. Everything is stopped again.*no model today"
    ):
        up(load(home), lambda steps: None)
    assert states(load(home)) is None and running(home) == []
    assert down(load(home)) == 0


def test_up_without_the_base_model_says_how_to_get_it(home: Path) -> None:
    (home / "data/base_model/MANIFEST.json").unlink()
    with pytest.raises(PlatformFailed, match="make up"):
        up(load(home), lambda steps: None)


def test_the_first_keys_are_made_once_and_only_their_owner_can_read_them(home: Path) -> None:
    migrate(None, home=home)
    first_keys(home)
    keys = {name: read_key(home, name) for name in ("admin", "chat")}
    first_keys(home)
    assert keys == {name: read_key(home, name) for name in ("admin", "chat")}
    assert stat.S_IMODE(secret_path(home, "chat").stat().st_mode) == 0o600
    assert stat.S_IMODE(secret_path(home, "chat").parent.stat().st_mode) == 0o700
    store = Store.open(home=home)
    roles = [found.role for key in keys.values() if (found := authenticate(store, str(key)))]
    store.close()
    assert roles == ["admin", "chat"]


def test_keys_are_added_listed_and_disabled_by_the_verb(home: Path) -> None:
    made = json.loads(run("keys", "add", "安娜", "--role", "review", "--json"))
    assert made["key"].startswith("fw_") and made["role"] == "review"
    assert json.loads(run("keys", "disable", "安娜", "--json"))["disabled"]
    (row,) = json.loads(run("keys", "list", "--json"))["identities"]
    assert row["name"] == "安娜" and row["disabled"] and "key" not in row
    assert "Give a name" in run("keys", "add", status=2)
    assert "nobody" in run("keys", "disable", "nobody", status=1)


def test_a_platform_that_was_never_started_is_down_and_needs_no_attention(home: Path) -> None:
    found: dict[str, Any] = look(load(home))
    assert (found["platform"], found["nights"], found["alarm"]) == ("down", [], None)
    assert [text for text in attention(found) if "disk" not in text] == []


def test_status_says_why_the_gateway_serves_another_version_than_the_champion(home: Path) -> None:
    why = "version 8 is not served: it was trained over another base model"
    served = {"version": "base", "digest": "", "challenger": None, "problems": {"champion": why}}
    found: dict[str, Any] = look(load(home)) | {"platform": "up", "services": {}, "serving": served}
    found["attention"] = attention(found)
    assert why in found["attention"]
    assert {"  serving    version base", why} <= set(words(found).splitlines())


def test_status_says_that_a_version_waits_and_when_its_question_has_expired(home: Path) -> None:
    migrate(home=lay_mlflow(home))
    with contextlib.closing(Store.open(home=home)) as store:
        ledger.ask(store, "construction", "5", "d")
    assert "version 5 waits for a person: `flywheel approve 5`" in look(load(home))["approval"]
    params = yaml.safe_load((home / "params.yaml").read_text())
    params["nightly"]["approval_hours"] = 1e-9
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    assert look(load(home))["approval"] == "the question about version 5 is older than 1e-09 hours and has expired"


def test_a_platform_that_lost_its_supervisord_needs_attention_and_is_ended(
    home: Path, half_up: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = look(load(home))
    found["attention"] = attention(found)
    assert found["platform"] == "broken" and "make down" in words(found)
    monkeypatch.setenv("FLYWHEEL_BACKUP_PASSPHRASE", "a long passphrase")
    (home / "b").touch()
    assert "make down" in json.loads(run("restore", str(home / "b"), "--json", status=1))["error"]
    family = running(home)
    monkeypatch.setattr("flywheel.platform.up.GRACE_SECONDS", 0.1)  # nothing ends by itself
    assert json.loads(run("down", "--json"))["stopped"] == len(family) == 2
    assert not any(map(psutil.Process.is_running, family))
    assert look(load(home))["platform"] == "down"


def test_the_record_of_another_process_with_the_same_id_is_not_followed(
    home: Path, half_up: subprocess.Popen[bytes]
) -> None:
    write_json(home / layout.PLATFORM_UP, {"pid": half_up.pid, "born": 1.0})
    assert running(home) == [] and down(load(home)) == 0 and half_up.poll() is None


def test_backup_and_restore_by_the_verbs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(home / "flywheel.backup")
    assert "FLYWHEEL_BACKUP_PASSPHRASE" in run("backup", file, status=1)
    monkeypatch.setenv("FLYWHEEL_BACKUP_PASSPHRASE", "a long passphrase")
    run("keys", "add", "anna")
    assert json.loads(run("backup", file, "--json"))["versions"] == 0
    assert "--force" in run("restore", file, status=1)
    run("keys", "add", "berta")
    assert "store" in run("restore", file, "--force")
    assert [row["name"] for row in json.loads(run("keys", "list", "--json"))["identities"]] == ["anna"]
