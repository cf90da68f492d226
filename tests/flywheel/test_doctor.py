"""`flywheel doctor`: what is missing is named in one line each, with how to fix it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flywheel.doctor import changed_files, check_installation, check_machine, installed_versions, main, read_lock


def test_it_needs_nothing_but_the_standard_library(root: Path) -> None:
    """-S leaves site-packages out, -E the environment: what a bare machine has."""
    code = (
        "import sys; sys.path.insert(0, '.'); from flywheel.doctor import main; sys.exit(main(['--machine', '--json']))"
    )
    done = subprocess.run([sys.executable, "-S", "-E", "-c", code], cwd=root, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert done.stderr == "" and {check["name"] for check in report["checks"]} >= {
        "Python 3.11",
        "git",
        "make",
        "C++ compiler",
    }


def test_a_machine_without_tools_is_told_each_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = {check.name: check.line() for check in check_machine(tmp_path) if not check.ok and not check.warning}
    assert failed.keys() >= {"git", "make", "C++ compiler"}
    assert failed["C++ compiler"] == "FAIL  C++ compiler: missing. Install one, e.g. `apt-get install g++`"


def test_the_bare_machine_check_says_nothing_where_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20 * 10**9))
    assert main(["--machine"]) == 0
    assert capsys.readouterr().out == ""


def test_the_disk_wanted_is_that_of_what_is_not_installed_and_of_a_release(tmp_path: Path) -> None:
    """8.5 GB for the three environments and the packages; of these 3.0 for the main one; 3.0 for a release."""

    def disk() -> str:
        return next(check.found for check in check_machine(tmp_path) if check.name == "disk")

    assert disk().endswith("GB free, 11.5 GB wanted: 3.0 for a release, 8.5 for what is not installed yet")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.complete").touch()
    assert disk().endswith("8.5 GB wanted: 3.0 for a release, 5.5 for what is not installed yet")


def test_an_environment_that_differs_from_its_lock_is_named(tmp_path: Path) -> None:
    """Names are compared in their normal form, local parts such as +cpu left out."""
    (tmp_path / "infra/locks").mkdir(parents=True)
    (tmp_path / "infra/locks/main.txt").write_text(
        "# a comment\ntorch==2.13.0\nPy_Yaml==6.0 ; x\nrich[all]==15.0\nmlflow==3.17.2\n"
    )
    site = tmp_path / ".venv/lib/python3.11/site-packages"
    for name in ("torch-2.13.0+cpu", "py_yaml-6.0", "rich-14.0"):
        (site / f"{name}.dist-info").mkdir(parents=True)
        title, _, version = name.rpartition("-")
        (site / f"{name}.dist-info/METADATA").write_text(f"Name: {title}\nVersion: {version}\n")
    checks = {check.name: check for check in check_installation(tmp_path)}
    assert (
        checks["main environment"].found
        == "2 differ from the lock: rich 14.0 (lock: 15.0), mlflow missing (lock: 3.17.2)"
    )
    assert checks["evaluation environment"].found == ".venv-evaluation is missing"
    assert dict(read_lock(tmp_path / "infra/locks/main.txt"))["py-yaml"] == "6.0"
    assert installed_versions(tmp_path / ".venv")["torch"] == "2.13.0"


def test_a_package_file_that_was_changed_or_lost_is_found(tmp_path: Path) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"data").digest()).decode().rstrip("=")
    record = tmp_path / "p-1.dist-info/RECORD"
    record.parent.mkdir()
    record.write_text(
        "".join(f"{name},sha256={digest},4\n" for name in ("good", "bad", "lost")) + "p-1.dist-info/RECORD,,\n"
    )
    (tmp_path / "good").write_bytes(b"data")
    (tmp_path / "bad").write_bytes(b"dat4")
    assert changed_files(tmp_path) == ["bad", "lost"]


def test_mistakes_in_settings_are_reported_by_key(root: Path, tmp_path: Path) -> None:
    from flywheel.doctor import check_settings

    for name in (".venv", "tasks", "infra", "domains"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text().replace("epochs:", "epoks:"))
    found = {check.name: check for check in check_settings(tmp_path)}
    assert not found["settings"].ok and "sft.epoks: unknown key" in found["settings"].found
