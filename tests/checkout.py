"""A checkout of this repository in which whole releases take minutes: a cut-down base model and few rows.

The stages, dvc.yaml and settings are the repository's own; `python` in dvc.yaml also writes down what each stage reads
(tests/reads.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.train.base_model.stage import sha256_of

PACKAGES = Path(".flywheel/packages")
ROWS, ITEMS, SEEDS, PREFERENCES = 60, 10, 12, 24
FEW: dict[str, Any] = {
    "accepted_terms": ["gemma"],
    "validate": {"min_rows": 10},
    "construct": {"self_kv": {"examples": 12}},
    "embed": {"batch_size": 8},
    "methods": {"osf": {"kept_rank": 32}},
    "evaluate": {"max_new_tokens": 4, "batch_size": 4},
    "gate": {"resamples": 1000},
    "serving": {"port": 9},  # where nothing listens: no gateway is waited for
}
ONE_PROCESS = ("pretrain", "sft", "reward", "align")
FEW_TOPICS = ("food", "literature", "ai")
LAYERS = 2
NARROWER = {"llama": 3, "gemma3": 10}  # by architecture: how often less wide it becomes


def lay_checkout(root: Path, folder: Path) -> Path:
    """Copy what git tracks in `root` to `folder`, cut the model and the domains down, commit; returns the folder."""
    names = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, text=True).split("\0")
    for name in filter(None, names):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    (folder / PACKAGES / "cut").mkdir(parents=True)
    for name in (".venv", ".venv-evaluation", *(PACKAGES / path.name for path in (root / PACKAGES).iterdir())):
        (folder / name).symlink_to((root / name).resolve())
    (folder / "dvc.lock").unlink(missing_ok=True)
    pipeline = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(pipeline.replace(".venv/bin/python", ".venv/bin/python -m tests.reads", 1))
    settings = FEW | {name: {"launch": "cpu1", "max_tokens": 512} for name in ONE_PROCESS}
    change(folder, settings)
    cut_domain(folder, "construction")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "start"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", *who, *command], cwd=folder, check=True)
    return folder


def cut_domain(checkout: Path, name: str) -> None:
    """Leave few rows of a domain's sources, two layers of its base model, and items drawn anew."""
    folder, packages = checkout / "domains" / name, checkout / PACKAGES
    path = folder / "domain.yaml"
    domain = yaml.safe_load(path.read_text())
    parts = [part for pattern in domain["base_model"]["files"] for part in sorted(packages.glob(pattern))]
    model = packages / "cut" / f"{name}.gguf"
    with tempfile.NamedTemporaryFile(dir=model.parent) as whole:
        whole.write(b"".join(part.read_bytes() for part in parts))
        whole.flush()
        cut_model(Path(whole.name), model)
    domain["base_model"] |= {"package": "cut", "files": [f"cut/{model.name}"], "sha256": sha256_of([model])}
    domain["base_model"]["terms_file"] = ""
    for source in [*domain.get("human", []), domain["safety"]]:
        base = packages if source.get("package") else folder
        lines = (base / source["files"][0]).read_text().splitlines(keepends=True)
        source |= {"package": "", "files": ["few_" + Path(source["files"][0]).name]}
        (folder / source["files"][0]).write_text("".join(lines[:ROWS]))
    domain["general"][0]["files"] = [domain["general"][0]["files"][0].replace("*", name) for name in FEW_TOPICS]
    domain["evaluation"] = dict.fromkeys(domain["evaluation"], ITEMS)
    domain["mmlu"]["files"] = [domain["mmlu"]["files"][0].replace("*", "a*")]
    path.write_text(yaml.safe_dump(domain, allow_unicode=True))
    for name, few in (("seeds.jsonl", SEEDS), ("sources/seeds.jsonl", SEEDS), ("preferences.jsonl", PREFERENCES)):
        if (folder / name).is_file():
            lines = (folder / name).read_text().splitlines(keepends=True)
            (folder / name).write_text("".join(lines[:few]))
    python(checkout, "-m", "flywheel.new_domain.freeze", "--again", "--domain", folder.name)


def cut_model(source: Path, target: Path) -> None:
    """Write `source`, cut down, to `target`; its weights are corners of the real ones, finite and no more."""
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    name = fields["general.architecture"]
    sizes, changed = smaller(fields, name)
    writer = GGUFWriter(target, name)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind, inner = field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, changed.get(key, fields[key]), kind, inner)
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= LAYERS:
            continue
        weights = dequantize(tensor.data, tensor.tensor_type)
        corner = tuple(slice(sizes.get(size, size)) for size in weights.shape)
        writer.add_tensor(tensor.name, np.ascontiguousarray(weights[corner], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def smaller(fields: dict[str, Any], name: str) -> tuple[dict[int, int], dict[str, int]]:
    """Each width with what it becomes, and the settings that say so. Heads keep their width."""
    by = NARROWER[name]
    keys = [f"{name}.embedding_length", f"{name}.feed_forward_length"]
    heads = [f"{name}.attention.head_count", f"{name}.attention.head_count_kv"]
    sizes = {fields[key]: fields[key] // by for key in keys}
    if f"{name}.attention.key_length" not in fields:  # then a head is as wide as the model over its heads
        width = fields[keys[0]] // fields[heads[0]]
        sizes |= {fields[key] * width: fields[key] * width // by for key in heads}
        keys += heads
    return sizes, {**{key: fields[key] // by for key in keys}, f"{name}.block_count": LAYERS}


def python(folder: Path, *arguments: str) -> None:
    """Run the checkout's own code."""
    subprocess.run([".venv/bin/python", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def change(folder: Path, settings: Mapping[str, Any]) -> None:
    """Change settings of the checkout's params.yaml, section by section and key by key."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    update(params, settings)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def update(section: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Change settings in place, section by section and key by key."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            update(section[key], value)
        else:
            section[key] = value


def repro(folder: Path, *stages: str) -> list[str]:
    """`dvc repro` up to these stages, up to all without any; returns those that were run."""
    from flows.stages import open_repo

    with open_repo(folder) as repo:
        return [stage.addressing for stage in repo.reproduce(stages or None)]


def read_records(folder: Path) -> list[dict[str, Any]]:
    """What each stage run so far read, in order."""
    return [json.loads(path.read_text()) for path in sorted((folder / ".flywheel/reads").glob("*.json"))]
