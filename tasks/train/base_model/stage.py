"""Stage base_model: the general language model that is tuned, in safetensors, with its licence and a manifest.

A GGUF file, whole or in parts, is converted: its weights are widened to fp32. A folder of safetensors, given or from
the hub, is taken as it is (`take`).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.base_model import BaseModelSource
from tasks.core.domain import Domain, load_domain
from tasks.core.files import fresh_directory, write_manifest, write_text
from tasks.core.params import load_params
from tasks.core.stage import run_stage
from tasks.train.base_model.folder import BaseModelError, examine
from tasks.train.base_model.hub import place_of
from tasks.train.base_model.settle import own_pad_token, own_template, strip_local
from tasks.train.base_model.take import folder_of, take

LICENCE_FILES = ("LICENSE", "LICENSE.*", "LICENCE", "LICENCE.*", "licenses/LICENSE*")


def check_terms(domain: Domain, accepted: Collection[str]) -> None:
    """Raises BaseModelError where the licence has terms that params.yaml does not accept, with how to."""
    source = domain.base_model
    if source.terms and source.terms not in accepted:
        text = f"{layout.PACKAGES / source.terms_file} or " if source.terms_file else ""
        raise BaseModelError(
            f"{source.name} is used under the terms of {source.licence}. Read them: {text}{source.licence_url}. "
            f"To accept them, write accepted_terms: [{source.terms}] into params.yaml"
        )


def checked_files(domain: Domain) -> list[Path]:
    """The base model's GGUF file, or its parts in order. Raises BaseModelError: not what domain.yaml pins."""
    paths = domain.paths(domain.base_model)
    whole = len(paths) == 1 and paths[0].suffix == ".gguf"
    parts = len(paths) > 1 and all(path.name.startswith(f"{paths[0].stem}.part") for path in paths)
    if not whole and not (parts and paths[0].stem.endswith(".gguf")):
        names = [path.name for path in paths]
        raise BaseModelError(f"base_model.files must name one .gguf file, or its parts in order; found {names}")
    found = sha256_of(paths)
    if found != domain.base_model.sha256:
        raise BaseModelError(f"{paths[0]} has SHA-256 {found}, domain.yaml pins {domain.base_model.sha256}")
    return paths


def sha256_of(paths: Sequence[Path]) -> str:
    """The SHA-256 of files as if they were one, in hex, read in blocks."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def assembled(paths: Sequence[Path]) -> Iterator[Path]:
    """The one file that the parts make, gone when the block ends; a file that is whole is used where it lies."""
    if len(paths) == 1:
        yield paths[0]
        return
    layout.HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.HOME, prefix="assembled-") as folder:
        whole = Path(folder) / paths[0].stem
        with whole.open("wb") as target:
            for path in paths:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, target, 1 << 20)
        yield whole


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a GGUF file."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def load_gguf(path: Path) -> tuple[Any, Any]:
    """Tokenizer and fp32 model from a GGUF file, without the marks of quantisation that forbid saving."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = load_tokenizer(path)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return tokenizer, model


def licence_text(source: BaseModelSource, packages: Path = layout.PACKAGES) -> str:
    """The terms or the licence as the package carries it; where it carries none, its name and address."""
    if source.terms_file:
        return (packages / source.terms_file).read_text(encoding="utf-8")
    folder = f"{source.package.replace('-', '_')}-*.dist-info" if source.package else "-"
    found = (path for pattern in LICENCE_FILES for path in sorted(packages.glob(f"{folder}/{pattern}")))
    path = next(found, None)
    return path.read_text(encoding="utf-8") if path else f"{source.licence}\n{source.licence_url}\n"


def notice(source: BaseModelSource, file: Path) -> str:
    """What the folder holds, where it comes from and what was changed, as the licence asks."""
    terms = (
        f"{source.name} is provided under and subject to the terms at {source.licence_url}.\n" if source.terms else ""
    )
    template = f"Added: the chat template {source.chat_template} of this domain.\n" if source.chat_template else ""
    name = file.name if file.suffix == ".gguf" else f"{file.stem} in parts,"
    return (
        f"{source.name}, licensed under {source.licence} ({source.licence_url}).\n{terms}"
        f"Source: {name} from the package {source.package or 'of this domain'}, SHA-256 {source.sha256}.\n"
        f"Changed: the quantised weights were widened to fp32 safetensors, and {source.pad_token} became the pad "
        "token.\n"
        f"{template}"
    )


def convert(domain: Domain, target: Path, accepted: Collection[str] = ()) -> str:
    """Write the domain's base model to `target`, whole or not at all; returns the folder's digest."""
    source = domain.base_model
    check_terms(domain, accepted)
    if not source.files:
        return take(domain, target)
    files = checked_files(domain)
    with assembled(files) as file:
        tokenizer, model = load_gguf(file)
    for config in (model.config, model.generation_config):
        config.pad_token_id = own_pad_token(tokenizer, source.pad_token)
    own_template(tokenizer, domain)
    with fresh_directory(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        strip_local(folder)
        (folder / "model.safetensors").chmod(0o644)
        write_text(folder / f"LICENSE{Path(source.terms_file).suffix or '.txt'}", licence_text(source))
        write_text(folder / "NOTICE.txt", notice(source, files[0]))
        return write_manifest(folder)


def in_words(domain: Domain) -> str:
    """The domain's base model in a few words. Raises BaseModelError: its folder cannot be used."""
    source = domain.base_model
    if source.files:
        return f"{source.name}, converted from {source.files[0]}"
    if source.hub and not place_of(source.hub, source.revision).is_dir():
        return f"{source.name} at {source.revision[:12]}, still to be fetched"
    return f"{source.name}, {examine(folder_of(domain)).words()}"


def stage() -> str:
    """Convert the base model of the domain that params.yaml names."""
    params = load_params()
    domain = load_domain(params.domain)
    digest = convert(domain, layout.BASE_MODEL, params.accepted_terms)
    facts = examine(layout.BASE_MODEL).words()
    return f"{domain.base_model.name} in {layout.BASE_MODEL}: {facts}; digest {digest[:12]}"


if __name__ == "__main__":
    run_stage("base_model", stage)
