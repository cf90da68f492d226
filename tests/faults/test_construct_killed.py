"""The stage `construct` is killed while its teacher writes: taken up again, it pays for no kept reply a second time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.corpus.construct.self_instruct import FIELDS
from tasks.corpus.construct.stage import construct
from tests.construct_root import make_root, seed
from tests.said_teacher import said_items
from tests.teacher_server import Fault, Messages, TeacherServer

pytestmark = pytest.mark.slow

SEEDS = [seed(f"Explain what a {thing} is.", "A part of a house.") for thing in ("roof", "wall", "door", "beam")]
CONCURRENCY = 8
WORDS = "ash bark clay dune elm fern gorse heath iris juniper kelp larch moss nettle oak pine quartz reed sedge thyme"


def answer(messages: Messages) -> str:
    """Tasks made up of the request's digest, so that the same request has the same answer in every run."""
    asked = messages[-1]["content"]
    draws = hashlib.sha256(asked.encode()).digest()
    words = [WORDS.split()[draw % 20] for draw in draws]
    parts = [words[8 * n : 8 * n + 8] for n in range(4)]
    tasks = [(f"{' '.join(part).capitalize()}.", "", "", f"It is about {' and '.join(part[:6])}.") for part in parts]
    return said_items(*tasks, fields=FIELDS)


def faults(number: int) -> Fault:
    """About one request in seven fails on its way."""
    return "drop" if number % 60 == 50 else {3: 429, 7: 500}.get(number % 15)


def begin(folder: Path, root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.corpus.construct.stage"],
        cwd=folder,
        env=layout.child_environment(PYTHONPATH=str(root)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def prepare(folder: Path, root: Path, base_model: Path, server: TeacherServer) -> Path:
    folder.mkdir()
    on = {"examples": 400, "max_requests": 500, "max_similarity": 0.9}
    quick = {"concurrency": CONCURRENCY, "retries": 6}
    return make_root(folder, root, base_model, server.url, [], SEEDS, quick, self_instruct=on)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / layout.CONSTRUCT).iterdir())}


def kept(folder: Path) -> set[str]:
    return {path.stem for path in (folder / layout.TEACHER_CACHE).rglob("*.json")}


def test_a_killed_construction_goes_on_where_it_was_and_ends_with_the_same_bytes(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TeacherServer(answer, faults, delay=0.005) as server:
        whole = prepare(tmp_path / "whole", root, base_model, server)
        monkeypatch.chdir(whole)
        said = construct()
    assert "400 of" in said
    with TeacherServer(answer, faults, delay=0.005) as server:
        cut = prepare(tmp_path / "cut", root, base_model, server)
        stage = begin(cut, root)
        deadline = time.monotonic() + 60
        while server.requests < 60 and time.monotonic() < deadline:
            assert stage.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        stage.kill()
        stage.wait(timeout=30)
        assert not (cut / layout.CONSTRUCT).exists()
        before = kept(cut)
        assert len(before) > 30
        monkeypatch.chdir(cut)
        assert construct() == said
        paid = dict(server.paid)
    assert outputs(cut) == outputs(whole)
    assert {key for key in before if paid[key] != 1} == set()
    # What was under way at the kill, and nothing else, can have been paid for twice.
    assert set(paid) == kept(cut)
    assert sum(paid.values()) - len(paid) <= CONCURRENCY
