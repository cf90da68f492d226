"""Stage package: everything a server needs to answer as the model was trained to, in one checked folder.

Nothing is packaged that was not loaded and compared. One model in fp32 is held at a time. Limits: merged weights are
written in fp32, whole ones as training left them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks.core import files, layout
from tasks.core.base_model import told
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.package import ADAPTER, BASE, KIND, KNOWLEDGE, MODEL, PROMPT, Kind, kind_of_adapter
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.text.prompts import PromptBook, messages_of, render
from tasks.train.base_model.settle import strip_local
from tasks.train.package import parity
from tasks.train.package.model_card import model_card
from tasks.train.run.handover import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Weights, final

NOT_THE_TOKENIZER = {"config.json", "generation_config.json", "MANIFEST.json"}  # of a model's folder, with its weights


class PackageError(FlywheelError):
    """What was trained must not be judged or served."""


def kind_of(weights: Weights) -> Kind:
    """How an engine will serve what was trained. Raises PackageError: nothing was trained."""
    own_base = weights.base != layout.BASE_MODEL
    if weights.adapter is None:
        if not own_base:
            raise PackageError("nothing was trained: every training stage is switched off")
        return Kind(served_as="weights", why="every weight was trained")
    kind = kind_of_adapter(json.loads((weights.adapter / ADAPTER_CONFIG).read_text(encoding="utf-8")))
    if own_base and kind.served_as == "adapter":
        return Kind(served_as="weights", why="merged: it was trained over other weights than the base model's")
    return kind


def probe_prompts(domain: Domain) -> list[list[int]]:
    """A few fixed prompts as tokens, rendered as in training."""
    book = PromptBook(layout.BASE_MODEL)
    questions = ("Hello.", f"What do I have to know about {domain.title.lower()}?", "How are you today?")
    return [book.ids(render(book, messages_of(domain.system_text(), question))) for question in questions]


def place(weights: Weights, kind: Kind, folder: Path, prompts: list[list[int]], limit: float) -> str:
    """Put what was trained into the package's folder, compared with what training left; says what was compared.

    Raises WeightsRefused: they differ by more than `limit` in a logit, are not finite, or change nothing.
    """
    if weights.adapter is None:
        parity.refuse_unchanged(_logits_of(weights.base, prompts), _logits_of(layout.BASE_MODEL, prompts))
        _copy_model(weights.base, folder / MODEL)
        return "whole weights, bit by bit as they were trained"
    model = parity.load(weights.base)
    plain = parity.logits_of(model, prompts)
    model = parity.adapted(model, weights.adapter)
    trained = parity.logits_of(model, prompts)
    parity.refuse_unchanged(trained, plain)
    if kind.served_as != "weights":
        (folder / ADAPTER).mkdir()
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            _copy(weights.adapter / name, folder / ADAPTER / name)
    if kind.served_as == "nothing":
        if weights.base != layout.BASE_MODEL:
            _copy_model(weights.base, folder / MODEL)
        return "it changes answers; nothing to merge"
    model = parity.merge(model)
    if kind.served_as == "weights":
        model.save_pretrained(folder / MODEL)
        finish_model(folder / MODEL)
        del model  # before it is read back: two of them need twice the memory
        merged = _logits_of(folder / MODEL, prompts)
    else:
        merged = parity.logits_of(model, prompts)
    parity.refuse_difference(trained, merged, limit)
    return "adapter and merged weights agree"


def _logits_of(model: Path, prompts: list[list[int]]) -> list[Any]:
    """What whole weights answer; they are held no longer than that."""
    return parity.logits_of(parity.load(model), prompts)


def _copy_model(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.name in ("config.json", "generation_config.json") or ".safetensors" in path.name:
            _copy(path, target / path.name)
    finish_model(target)


def _copy(source: Path, target: Path) -> None:
    """Copy a file and read the copy back. Raises PackageError: it is not what was copied."""
    shutil.copyfile(source, target)
    if target.stat().st_size != source.stat().st_size or files.sha256_file(target) != files.sha256_file(source):
        raise PackageError(f"{target} is not what {source} is, after it was copied: look at the disk, and run again")


def finish_model(target: Path) -> None:
    """Tokenizer, template and licence come from the base model: those that every side began with."""
    for path in sorted(layout.BASE_MODEL.iterdir()):
        if path.is_file() and path.name not in NOT_THE_TOKENIZER and ".safetensors" not in path.name:
            shutil.copyfile(path, target / path.name)
    strip_local(target)
    files.write_manifest(target)


def prompt_of(domain: Domain, base: Path) -> dict[str, Any]:
    """What has to stand around a question: system prompt, chat template and special tokens."""
    template = (base / "chat_template.jinja").read_text(encoding="utf-8")
    settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    return {
        "system": domain.system_text(),
        "chat_template": template,
        "chat_template_sha256": files.sha256_bytes(template.encode()),
        "special_tokens": {name: settings.get(name) for name in parity.NAMED},
    }


def build(params: Params, domain: Domain, weights: Weights, base_digest: str, target: Path) -> tuple[str, str]:
    """Write the package to `target`, whole or not at all; returns what was compared, and its digest."""
    kind, prompt = kind_of(weights), prompt_of(domain, layout.BASE_MODEL)
    own = sorted(weights.base.glob("*.safetensors")) if weights.base != layout.BASE_MODEL else []
    for path in [*([weights.adapter / ADAPTER_WEIGHTS] if weights.adapter else []), *own]:
        parity.refuse_broken_weights(path)
    shutil.rmtree(target, ignore_errors=True)
    with files.fresh_directory(target) as folder:
        limit = params.package.max_logit_difference
        compared = place(weights, kind, folder, probe_prompts(domain), limit)
        served = folder / MODEL if (folder / MODEL).is_dir() else layout.BASE_MODEL
        parity.check_prompts(domain.system_text(), weights.base, served, prompt)
        files.write_json(folder / KIND, kind.model_dump())
        files.write_json(folder / PROMPT, prompt)
        if params.retrieval.enabled:
            files.verify_manifest(layout.INDEX)
            shutil.copytree(
                layout.INDEX, folder / KNOWLEDGE, ignore=shutil.ignore_patterns("refused.parquet", files.MANIFEST)
            )
        source = told(domain.base_model)
        made_from = {name: getattr(source, name) for name in ("name", "licence", "licence_url")}
        made_from |= {"digest": base_digest, "source_package": source.package, "source_sha256": source.sha256}
        if source.hub:
            made_from |= {"hub": source.hub, "revision": source.revision}
        files.write_json(folder / BASE, made_from)
        files.write_text(folder / "README.md", model_card(params, domain, kind))
        return compared, files.write_manifest(folder)


def stage() -> str:
    """Check base and what was trained, then pack it."""
    params = load_params()
    base_digest = files.verify_manifest(layout.BASE_MODEL)
    compared, digest = build(params, load_domain(params.domain), final(), base_digest, layout.PACKAGE)
    return f"{layout.PACKAGE}, digest {digest[:12]}; {compared}"


if __name__ == "__main__":
    run_stage("package", stage)
