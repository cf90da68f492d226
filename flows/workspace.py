"""Where a release works: this checkout, or a git worktree of its own, one a domain.

A deployment must not depend on what somebody is editing: it runs in .flywheel/workspaces/<domain> on the branch
release/<domain>, with code and params of HEAD, state and dvc.lock of the branch, and the checkout's cache,
environments, packages and learned documents. What a release wrote is committed there before a version is registered:
the version's git_sha.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.stages import open_repo
from tasks.core import layout
from tasks.core.domain import LEARNED_FOLDER
from tasks.core.errors import FlywheelError
from tasks.core.files import folder_digest

LINKED = (
    *(".venv", ".venv-evaluation", ".venv-engine"),
    *(".flywheel/packages", ".flywheel/hub", ".flywheel/cache", ".flywheel/weights", ".flywheel/feedback"),
)
KEPT_ON_BRANCH = ("state", "dvc.lock")
COMMITTED = ("params.yaml", "state", "dvc.lock")
IDENTITY = {
    "GIT_AUTHOR_NAME": "flywheel",
    "GIT_AUTHOR_EMAIL": "flywheel@localhost",
    "GIT_COMMITTER_NAME": "flywheel",
    "GIT_COMMITTER_EMAIL": "flywheel@localhost",
}


class WorkspaceError(FlywheelError):
    """A workspace cannot be made or used; the message carries git's own words."""


@dataclass(frozen=True)
class Workspace:
    """`root` is where stages run; `home` holds .flywheel/ with the databases; `branch` is None in a plain checkout."""

    root: Path
    home: Path
    branch: str | None = None


def git(root: Path, *arguments: str, check: bool = True) -> str:
    """Run git in `root`, without hooks or prompts; returns its output.

    Raises:
        WorkspaceError: git failed.
    """
    environment = {**os.environ, **IDENTITY, "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise WorkspaceError(f"git {' '.join(arguments[:2])} failed in {root.name}: {done.stderr.strip()}")
    return done.stdout.rstrip("\n") if done.returncode == 0 else ""


def open_workspace(home: Path, name: str | None) -> Workspace:
    """This checkout where `name` is None, else the worktree of that domain, brought up to HEAD's code."""
    home = home.absolute()
    if name is None:
        return Workspace(home, home)
    branch = f"release/{name}"
    root = home / layout.WORKSPACES / name
    head = git(home, "rev-parse", "HEAD")
    git(home, "worktree", "prune")
    if not (root / ".git").exists():
        _add(home, root, branch, head)
    _bring_code(root, branch, head)
    _link(home, root)
    _share_cache(home, root)
    _bring_learned(home, root, layout.DOMAINS / name / LEARNED_FOLDER)
    return Workspace(root, home, branch)


def _add(home: Path, root: Path, branch: str, head: str) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    known = git(home, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False)
    git(home, "worktree", "add", "--quiet", *([] if known else ["-b", branch]), str(root), branch if known else head)


def _bring_code(root: Path, branch: str, head: str) -> None:
    """Put HEAD's tree on the branch, keeping the branch's own state and lock: a merge that cannot conflict."""
    tip = git(root, "rev-parse", branch)
    git(root, "reset", "--hard", "--quiet", tip)
    if git(root, "merge-base", head, tip, check=False) == head:
        return
    git(root, "read-tree", "--reset", "-u", head)
    for path in KEPT_ON_BRANCH:
        if git(root, "ls-tree", "--name-only", tip, path):
            git(root, "checkout", tip, "--", path)
    tree = git(root, "write-tree")
    commit = git(root, "commit-tree", tree, "-p", tip, "-p", head, "-m", f"Bring the code of {head[:12]}")
    git(root, "reset", "--hard", "--quiet", commit)


def _link(home: Path, root: Path) -> None:
    for name in LINKED:
        target, link = home / name, root / name
        if name.startswith(".flywheel/"):
            target.mkdir(parents=True, exist_ok=True)
        if target.exists() and not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=True)


def _share_cache(home: Path, root: Path) -> None:
    """One cache for all: the one that the checkout itself uses, wherever it was told to keep it."""
    with open_repo(home) as own:
        cache = Path(own.cache.local.path).parents[1]  # below it DVC keeps files/md5
    with open_repo(root) as repo, repo.config.edit("local") as settings:
        settings.setdefault("cache", {})["dir"] = str(cache)


def _bring_learned(home: Path, root: Path, folder: Path) -> None:
    """What `flywheel learn` keeps in the checkout's domain: releases read it before it is committed."""
    if folder_digest(home / folder) != folder_digest(root / folder):
        shutil.rmtree(root / folder, ignore_errors=True)
        if (home / folder).is_dir():
            shutil.copytree(home / folder, root / folder)


def commit_results(workspace: Workspace, message: str) -> str:
    """In a worktree, commit params, state and dvc.lock to its branch; returns HEAD's commit, or ""."""
    if workspace.branch is not None:
        present = [name for name in COMMITTED if (workspace.root / name).exists()]
        git(workspace.root, "add", "--force", "--", *present)
        if git(workspace.root, "diff", "--cached", "--name-only"):
            git(workspace.root, "commit", "--quiet", "-m", message)
    return git(workspace.root, "rev-parse", "--verify", "--quiet", "HEAD", check=False)


def is_dirty(workspace: Workspace, own: list[str]) -> bool:
    """Whether the checkout holds anything HEAD does not, apart from what a release writes itself.

    `own` are the stages' outputs; dvc.lock and state/ are kept with the version as artifacts.
    """
    listed = git(workspace.root, "status", "--porcelain", "--untracked-files=all", "-z", check=False)
    ours = [*own, *KEPT_ON_BRANCH, *LINKED]
    for entry in listed.split("\0"):
        path = entry[3:]
        if path and not any(path == name or path.startswith(f"{name}/") for name in ours):
            return True
    return not git(workspace.root, "rev-parse", "--verify", "--quiet", "HEAD", check=False)


@contextlib.contextmanager
def one_at_a_time(root: Path, say: Callable[[str], None], what: str = "release") -> Iterator[None]:
    """Hold the workspace's lock of this name; wait for another such run there to end. A dead one holds nothing."""
    path = root / layout.HOME / f"{what}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"another {what} is at work here: waiting for it to end")
                    told = True
                time.sleep(1.0)
        yield
