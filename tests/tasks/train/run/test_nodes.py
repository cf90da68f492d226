"""Several machines by environment variables: one path for the first and for those that follow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tasks.train.run.launch import launch_command, read_launch
from tasks.train.run.nodes import ANNOUNCEMENT, NodesUnknown, announced, announcement, this_node

PLACE = {"PET_NNODES": "3", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "training-0", "PET_MASTER_PORT": "29500"}


@pytest.fixture
def placed(root: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(root)
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PET_NPROC_PER_NODE", raising=False)
    return monkeypatch


def test_without_the_variables_there_is_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PET_NNODES", raising=False)
    assert this_node() is None


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("PET_NODE_RANK", "3", "PET_NODE_RANK is 3 of 3 machines; they count from 0"),
        ("PET_MASTER_PORT", "http", "PET_MASTER_PORT is missing or wrong"),
        ("PET_MASTER_ADDR", None, "'PET_MASTER_ADDR' of"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(
    placed: pytest.MonkeyPatch, name: str, value: str | None, message: str
) -> None:
    placed.delenv(name) if value is None else placed.setenv(name, value)
    with pytest.raises(NodesUnknown, match=re.escape(message)):
        this_node()


def test_the_environment_says_how_many_processes_there_are(placed: pytest.MonkeyPatch) -> None:
    """Three machines of eight as the file says, or of four as the environment says."""
    found = read_launch("kubernetes")
    assert (found["num_machines"], found["num_processes"]) == (3, 24)
    placed.setenv("PET_NPROC_PER_NODE", "4")
    assert read_launch("kubernetes")["num_processes"] == 12


def test_other_launches_are_as_their_files_say(placed: pytest.MonkeyPatch) -> None:
    assert read_launch("gpu8")["num_processes"] == 8
    assert "--machine_rank" not in launch_command("gpu8", read_launch("gpu8"), "m", [])


def test_accelerate_is_told_the_place_and_understands_it(placed: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = launch_command("kubernetes", read_launch("kubernetes"), "tasks.train.sft.worker", ["job", "run"])
    told = command[command.index("--config_file") :]
    found, _, _ = _validate_launch_command(launch_command_parser().parse_args(told))
    assert (found.num_machines, found.num_processes, found.machine_rank) == (3, 24, 1)
    assert (found.main_process_ip, int(found.main_process_port)) == ("training-0", 29500)
    assert found.deepspeed_multinode_launcher == "standard" and found.training_script_args == ["job", "run"]


def test_a_launch_by_environment_needs_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("PET_NNODES", raising=False)
    with pytest.raises(NodesUnknown, match="needs PET_NNODES"):
        launch_command("kubernetes", read_launch("kubernetes"), "m", [])


def test_the_first_machine_tells_the_others_what_to_join_for_as_long_as_it_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    settings = read_launch("kubernetes")
    monkeypatch.chdir(tmp_path)
    seen = []
    for _ in range(2):
        with announced(settings, "kubernetes", "worker", ["job"]):
            seen.append(json.loads(ANNOUNCEMENT.read_text()))
            assert announcement() == seen[-1]
        assert announcement() is None
    assert [(news["launch"], news["module"], news["arguments"]) for news in seen] == [
        ("kubernetes", "worker", ["job"])
    ] * 2
    assert seen[0]["id"] != seen[1]["id"]
