"""A base model from the Hugging Face hub, at a pinned commit, kept below .flywheel/hub.

The only place where anything is fetched from a network; refused unless FLYWHEEL_NETWORK=1. The fetching runs in a
process of its own, because the libraries decide when they are imported whether they may go online.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tasks.core import layout
from tasks.train.base_model.folder import BaseModelError

NETWORK = "FLYWHEEL_NETWORK"
WANTED = ("*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "vocab*", "merges.txt",
          "special_tokens_map.json", "added_tokens.json", "*.jinja", "README.md", "LICEN[SC]E*", "NOTICE*",
          "USE_POLICY*")  # fmt: skip
FETCH = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], revision=sys.argv[2], local_dir=sys.argv[3], allow_patterns=sys.argv[4:])
"""
NEWEST = "import sys; from huggingface_hub import HfApi; print(HfApi().model_info(sys.argv[1]).sha)"


def place_of(name: str, revision: str) -> Path:
    """Where the snapshot of a model lies once it is fetched."""
    return layout.HUB / name.replace("/", "--") / revision


def snapshot(name: str, revision: str) -> Path:
    """The folder with a model's files, fetched at the first use; a fetch that was cut short goes on where it was.

    Raises BaseModelError: it is not here and the network is not allowed, or the hub does not give it.
    """
    folder = place_of(name, revision)
    if folder.is_dir():
        return folder
    _allowed(f"{name} at {revision[:12]} is not below {layout.HUB}")
    begun = folder.with_name(f"{revision}.part")
    begun.mkdir(parents=True, exist_ok=True)
    _online(FETCH, name, revision, str(begun), *WANTED)
    shutil.rmtree(begun / ".cache", ignore_errors=True)  # the library's notes on how far it was
    begun.rename(folder)
    return folder


def newest_revision(name: str) -> str:
    """The commit that a repository's main branch is at. Raises BaseModelError: the network is not allowed, or fails."""
    _allowed(f"which commit of {name} is its newest cannot be asked (or name one with --revision)")
    return _online(NEWEST, name)


def _allowed(why: str) -> None:
    if os.environ.get(NETWORK) != "1":
        raise BaseModelError(
            f"{why}, and the network is not used unasked: set {NETWORK}=1 to fetch it, or put the model's files into a "
            "folder and name that in base_model.path"
        )


def _online(code: str, *arguments: str) -> str:
    environment = {**layout.child_environment(), "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BaseModelError(f"{arguments[0]} could not be fetched from the hub: {last}")
    return done.stdout.strip()
