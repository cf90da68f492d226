"""Says what this machine or checkout lacks, in one line each, and how to fix it.

Standard library only, so that `python3 -m flywheel.doctor` works before any environment is built; the checks of
settings and domain are made by the main environment's Python where there is one.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

GIGABYTE = 2**30
# What each folder that `make run` fills takes, and what a release takes beside it: as measured, rounded up.
DISK_OF = {".venv": 3.0, ".venv-evaluation": 2.0, ".venv-engine": 2.5, ".flywheel/packages": 1.0}
DISK_TO_RUN = 3.0
MEMORY = 7 * GIGABYTE
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)")
ENVIRONMENTS = {"main": ".venv", "evaluation": ".venv-evaluation", "engine": ".venv-engine"}
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Check:
    """One finding. `fix` is what to do about it; a warning does not stop anything."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    warning: bool = False

    def line(self) -> str:
        """For people."""
        mark = "ok  " if self.ok else ("note" if self.warning else "FAIL")
        return f"{mark}  {self.name}: {self.found}" + (f". {self.fix}" if self.fix and not self.ok else "")


def check_machine(root: Path) -> Iterator[Check]:
    """What must be there before anything is installed."""
    yield _python()
    for program, package in (("git", "git"), ("make", "make")):
        path = shutil.which(program)
        yield Check(program, path is not None, path or "missing", f"Install it, e.g. `apt-get install {package}`")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "c++", "clang++"))), None)
    yield Check("C++ compiler", compiler is not None, compiler or "missing", "Install one, e.g. `apt-get install g++`")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    yield Check(
        "Python headers",
        header.is_file(),
        str(header) if header.is_file() else "missing",
        "DeepSpeed compiles its optimizer against them, e.g. `apt-get install python3.11-dev`",
    )
    yield _disk(root)
    yield _memory()
    yield _writable(root)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fix = "Install Python 3.11 and say where: `make run PYTHON=/path/to/python3.11`"
    if sys.version_info[:2] != (3, 11):
        return Check("Python 3.11", False, f"this is {version}", fix)
    lacking = [name for name in ("venv", "ensurepip") if util.find_spec(name) is None]
    if lacking:
        return Check(
            "Python 3.11", False, f"it has no {' and no '.join(lacking)}", "e.g. `apt-get install python3.11-venv`"
        )
    return Check("Python 3.11", True, version)


def _disk(root: Path) -> Check:
    """Free disk against what is not installed yet and one release, in GB."""
    lacking = sum(size for folder, size in DISK_OF.items() if not (root / folder / ".complete").is_file())
    wanted, free = lacking + DISK_TO_RUN, shutil.disk_usage(root).free / GIGABYTE
    found = f"{free:.1f} GB free, {wanted:.1f} GB wanted: {DISK_TO_RUN:.1f} for a release"
    found += f", {lacking:.1f} for what is not installed yet" if lacking else ""
    return Check("disk", free >= wanted, found, "Free some space, or move the checkout to a larger disk")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{total / GIGABYTE:.1f} GB, {MEMORY / GIGABYTE:.0f} GB wanted"
    return Check(
        "memory", total >= MEMORY, found, "Training may be killed; lower sft.batch_size in params.yaml", warning=True
    )


def _writable(root: Path) -> Check:
    home = root / ".flywheel"
    try:
        home.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return Check(".flywheel", False, f"cannot be written: {error.strerror}", f"Make {home} writable for this user")
    return Check(".flywheel", True, "writable")


def check_installation(root: Path) -> Iterator[Check]:
    """What `make run` installs: the environments against their locks, the packages against their own records."""
    for name, folder in ENVIRONMENTS.items():
        yield _environment(root, name, folder)
    yield _environment(root, "packages", ".flywheel/packages")
    yield _package_files(root)
    ninja = root / ".venv/bin/ninja"
    yield Check("ninja", ninja.is_file() or bool(shutil.which("ninja")), str(ninja), "`make environments` installs it")


def _environment(root: Path, name: str, folder: str) -> Check:
    title = f"{name} environment" if name in ENVIRONMENTS else "data packages"
    # The engine's stamp says which of its locks was installed: that for processors or that for GPUs.
    stamp = root / folder / ".complete"
    written = stamp.read_text(encoding="utf-8").strip() if name == "engine" and stamp.is_file() else ""
    lock = root / f"infra/locks/{written or name}.txt"
    if not (root / folder).is_dir():
        return Check(title, False, f"{folder} is missing", "`make environments` builds it")
    if not lock.is_file():
        fix = "`git checkout -- infra/locks` brings it back"
        return Check(title, False, f"infra/locks/{lock.name} is missing", fix)
    wanted, found = dict(read_lock(lock)), installed_versions(root / folder)
    wrong = [f"{key} {found.get(key, 'missing')} (lock: {one})" for key, one in wanted.items() if found.get(key) != one]
    if wrong:
        fix = f"`rm -f {folder}/.complete && make environments` installs what the lock says"
        return Check(title, False, f"{len(wrong)} differ from the lock: {', '.join(wrong[:5])}", fix)
    return Check(title, True, f"{len(wanted)} packages as locked")


def read_lock(path: Path) -> Iterator[tuple[str, str]]:
    """(normalised name, version) of each pinned line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := PINNED.match(line.strip()):
            yield _normal(found[1]), found[2].partition("+")[0]


def installed_versions(folder: Path) -> dict[str, str]:
    """Normalised name → version of what is installed below an environment or a target folder; local parts dropped."""
    places = [str(folder), *map(str, folder.glob("lib*/python3*/site-packages"))]
    found = metadata.distributions(path=places)
    return {_normal(one.metadata["Name"]): one.version.partition("+")[0] for one in found}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _package_files(root: Path) -> Check:
    bad = changed_files(root / ".flywheel/packages")
    if bad:
        fix = "`rm -rf .flywheel/packages && make environments` installs them again"
        return Check("package files", False, f"{len(bad)} differ from their record: {', '.join(bad[:3])}", fix)
    return Check("package files", True, "as recorded")


def changed_files(packages: Path) -> list[str]:
    """Files that are missing or whose SHA-256 differs from the RECORD of their package."""
    bad = []
    for package in metadata.distributions(path=[str(packages)]):
        for name, recorded, *_ in csv.reader((package.read_text("RECORD") or "").splitlines()):
            path = packages / name
            if not recorded.startswith("sha256=") or name.startswith("../"):
                continue
            content = path.read_bytes() if path.is_file() else None
            digest = base64.urlsafe_b64encode(hashlib.sha256(content or b"").digest()).decode().rstrip("=")
            if content is None or recorded != f"sha256={digest}":
                bad.append(name)
    return bad


def check_settings(root: Path) -> Iterator[Check]:
    """Whether params.yaml and its domain can be loaded, and whether the surroundings keep us offline."""
    online = [name for name in OFFLINE if os.environ.get(name, "1").lower() in ("0", "false", "no")]
    found = "nothing asks for the network" if not online else f"{', '.join(online)} ask for the network"
    yield Check("offline", not online, found, "Unset them: the stages set them to 1 for themselves", warning=True)
    python = root / ".venv/bin/python"
    if not python.exists():
        yield Check("settings", False, "not checked, for want of the main environment", "`make environments` builds it")
        return
    code = (
        "from tasks.core.params import load_params; from tasks.core.domain import load_domain; "
        "from tasks.core.errors import FlywheelError; from tasks.train.base_model.stage import check_terms, in_words\n"
        "try:\n"
        "    params = load_params(); domain = load_domain(params.domain)\n"
        "    check_terms(domain, params.accepted_terms); print(in_words(domain))\n"
        "except FlywheelError as error: raise SystemExit(str(error))"
    )
    done = subprocess.run([str(python), "-c", code], cwd=root, capture_output=True, text=True)
    wrong = done.stderr.strip() or "cannot be loaded"
    yield Check(
        "settings",
        done.returncode == 0,
        f"params.yaml and domain are valid; base model: {done.stdout.strip()}" if done.returncode == 0 else wrong,
        "Correct the keys named above",
    )


def report(checks: Iterable[Check], as_json: bool, only_problems: bool) -> int:
    """Print the checks; returns 1 if one that is no mere warning fails."""
    done = []
    for check in checks:
        done.append(check)
        if not as_json and not (only_problems and check.ok):
            print(check.line(), flush=True)
    failed = [check for check in done if not check.ok and not check.warning]
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in done]}, indent=2))
    return 1 if failed else 0


def examine(root: Path, machine_only: bool) -> Iterator[Check]:
    """All checks, or those of the bare machine."""
    yield from check_machine(root)
    if not machine_only:
        yield from check_installation(root)
        yield from check_settings(root)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="flywheel doctor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--machine", action="store_true", help="check the bare machine only; name only what is wrong")
    options = parser.parse_args(arguments)
    return report(examine(Path.cwd(), options.machine), options.json, only_problems=options.machine)


if __name__ == "__main__":
    raise SystemExit(main())
