"""Smaller forms of the packaged version: quantised, or distilled into a student. See quantise.py and distil.py.

Each lies in .flywheel/smaller/<name>: `package/` is what is handed on, `weights/` what is measured where that differs
from it (a GGUF file read back), and the verdict comes beside them. A form that is there, whole and of this version is
not made again. Outside of the graph, so that no release waits for it.
Limits: one form of each name; `make run` on another version makes the old ones stale, and they are made anew.
"""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import (
    ManifestError,
    digest_of,
    fresh_directory,
    sha256_file,
    verify_manifest,
    write_json,
    write_manifest,
    write_text,
)
from tasks.core.packaged import KIND, MODEL, Kind, read_package
from tasks.core.params import Params, load_params
from tasks.core.records import Example, read_own_jsonl, write_jsonl
from tasks.corpus.teacher.cache import ReplyCache
from tasks.corpus.teacher.teacher import Teacher, local_engine, open_teacher
from tasks.corpus.teacher.wire import Endpoint
from tasks.train.entry.execute import execute, run_folder
from tasks.train.package import weight_parity
from tasks.train.package.prompt_parity import check_prompts
from tasks.train.package.stage import finish_model, probe_prompts
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import write_trained
from tasks.train.smaller.distil import describe_student, make_student, taught
from tasks.train.smaller.quantise import Quantisation, logit_error, quantise, read_back

HOME = layout.HOME / "smaller"
GGUF = "model.gguf"
ABOUT = "about.json"
BEGUN = "wanted.json"


class NothingToShrink(FlywheelError):
    """The packaged version cannot be made smaller."""


@dataclass(frozen=True)
class Smaller:
    """A smaller form: its folder, its package's digest, the weights to measure, and what is known of it."""

    folder: Path
    digest: str
    weights: Path
    about: dict[str, Any]


def whole_model() -> Any:
    """The packaged version as one model in fp32, its adapter merged.

    Raises:
        NothingToShrink: it has virtual tokens, which no weights can hold.
        ManifestError: models/package or the base model is not whole.
    """
    verify_manifest(layout.PACKAGE)
    parts = read_package(layout.PACKAGE)
    if not parts.servable:
        raise NothingToShrink(f"the packaged version has no weights of its own ({parts.kind.why})")
    if parts.model is None:
        verify_manifest(layout.BASE_MODEL)
    model = weight_parity.load(parts.model or layout.BASE_MODEL)
    return weight_parity.merge(weight_parity.adapted(model, parts.adapter)) if parts.adapter else model


def known(folder: Path, wanted: dict[str, Any]) -> Smaller | None:
    """The form in a folder, if it is whole and what is wanted."""
    try:
        digest = verify_manifest(folder / "package")
        about = json.loads((folder / "package" / ABOUT).read_text(encoding="utf-8"))
        weights = folder / "package" / MODEL if (folder / "package" / MODEL).is_dir() else folder / "weights"
        verify_manifest(weights)
    except (ManifestError, OSError, ValueError):
        return None
    return Smaller(folder, digest, weights, about) if wanted.items() <= about.items() else None


def quantised(kind: Quantisation) -> Smaller:
    """The packaged version as a GGUF file in eight or four bits, read back.

    Raises:
        QuantiseError, NothingToShrink: it cannot be.
    """
    folder = HOME / kind
    wanted = {"of": verify_manifest(layout.PACKAGE), "quantisation": kind}
    if found := known(folder, wanted):
        return found
    domain, model = load_domain(load_params().domain), whole_model()
    shutil.rmtree(folder, ignore_errors=True)
    with fresh_directory(folder / "package") as package:
        sizes = quantise(model, domain, kind, package / GGUF)
        again = read_back(package / GGUF, folder / "weights")
        error = round(logit_error(model, again, probe_prompts(domain)), 6)
        why = "a GGUF file: for llama.cpp and engines that read it (engine.kind: url)"
        _describe(package, Kind(served_as="nothing", why=why), {**wanted, **sizes, "logit_error": error})
        write_manifest(package)
    found = known(folder, wanted)
    if found is None:
        raise NothingToShrink(f"{folder} was not written whole; run the command again")
    return found


def distilled(layers: int) -> Smaller:
    """A student with fewer layers, trained on the teacher's answers; goes on where it was killed.

    The teacher is the endpoint that construct.teacher names, else the packaged version itself, on an engine of ours.

    Raises:
        DistilError, TeacherError, LaunchError, NothingToShrink: it cannot be.
    """
    params = load_params()
    domain = load_domain(params.domain)
    folder = HOME / f"distilled_{layers}"
    wanted = {
        "of": verify_manifest(layout.PACKAGE),
        "layers": layers,
        "teacher": _teacher_name(params),
        "training": digest_of([params.sft.model_dump(), params.methods.full.model_dump(), _learnt_from()]),
    }
    if found := known(folder, wanted):
        return found
    if not (folder / BEGUN).is_file() or json.loads((folder / BEGUN).read_text(encoding="utf-8")) != wanted:
        shutil.rmtree(folder, ignore_errors=True)  # another version's student, or another's teaching
        write_json(folder / BEGUN, wanted)
    student, data = folder / "student", folder / "data"
    if not (student / "MANIFEST.json").is_file():
        whole_model_to(folder / "teacher")
        make_student(weight_parity.load(folder / "teacher"), layers, student)
    begun = {"train": len(_teach(params, domain.system_text(), folder / "teacher", data))}
    job = describe_student(params, domain, student, verify_manifest(student), _files(data))
    run = run_folder(job)
    done = execute(job, run)
    write_trained(done, folder / "trained", domain.base_model.name)
    with fresh_directory(folder / "package") as package:
        shutil.copytree(folder / "trained" / "model", package / MODEL)
        (package / MODEL / "MANIFEST.json").unlink()
        finish_model(package / MODEL)
        weights = sorted((package / MODEL).glob("*.safetensors"))
        for path in weights:
            weight_parity.refuse_broken_weights(path)
        prompt = json.loads((layout.PACKAGE / "prompt.json").read_text(encoding="utf-8"))
        check_prompts(domain.system_text(), layout.BASE_MODEL, package / MODEL, prompt)
        sizes = {"bytes": sum(path.stat().st_size for path in weights), "examples": begun["train"]}
        _describe(package, Kind(served_as="weights", why="a student of fewer layers"), {**wanted, **sizes})
        write_manifest(package)
    for path in (folder / "trained", folder / "teacher"):
        shutil.rmtree(path)
    forget(run)
    found = known(folder, wanted)
    if found is None:
        raise NothingToShrink(f"{folder} was not written whole; run the command again")
    return found


def whole_model_to(target: Path) -> None:
    """The packaged version as a model's folder, whole or not at all."""
    with fresh_directory(target) as folder:
        whole_model().save_pretrained(folder)
        finish_model(folder)


def _learnt_from() -> list[str]:
    """What decides the questions that are taught, and what the student is measured on."""
    return [sha256_file(layout.MIX / f"{name}.jsonl") for name in ("train", "validation")]


def _files(data: Path) -> dict[str, Path]:
    return {"train": data / "train.jsonl", "validation": layout.MIX / "validation.jsonl"}


def _teacher_name(params: Params) -> str:
    teacher = params.construct_.teacher
    return teacher.model if teacher.kind == "url" else "the packaged version"


def _teach(params: Params, system: str, weights: Path, data: Path) -> list[Example]:
    """The training set with the teacher's answers, written to `data`."""
    examples = read_own_jsonl(layout.MIX / "train.jsonl", Example)
    unique = list({example.id: example for example in examples}.values())
    tokenizer = weight_parity.load_tokenizer(layout.BASE_MODEL)
    with _open_teacher(params, weights) as teacher:
        found = taught(unique, system, teacher, params.construct_.teacher.max_tokens, tokenizer)
    write_jsonl(data / "train.jsonl", found)
    return found


def _open_teacher(params: Params, weights: Path) -> Teacher:
    """construct.teacher's endpoint, or an engine of ours on the packaged version; replies are kept either way."""
    settings = params.construct_.teacher
    if settings.kind == "url":
        return open_teacher(params)

    def serve() -> AbstractContextManager[Endpoint]:
        return local_engine(params.engine, weights, Path())

    cache = ReplyCache(layout.TEACHER_CACHE, {"base_model": verify_manifest(weights)})
    return Teacher(settings, cache, serve)


def _describe(package: Path, kind: Kind, about: dict[str, Any]) -> None:
    """What stands beside the weights: prompt and base of the version, how it is served, what was done."""
    for name in ("prompt.json", "base.json"):
        shutil.copyfile(layout.PACKAGE / name, package / name)
    write_json(package / KIND, kind.model_dump())
    write_json(package / ABOUT, about)
    card = (layout.PACKAGE / "README.md").read_text(encoding="utf-8")
    facts = "\n".join(f"- {key}: {value}" for key, value in sorted(about.items()))
    write_text(package / "README.md", f"{card}\n## A smaller form\n\n{kind.why}.\n\n{facts}\n")
