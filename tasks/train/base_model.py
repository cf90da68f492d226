"""Stage base_model: the general language model that is tuned, in safetensors, with its licence and a manifest.

Why: the default base comes as a package that holds one quantised GGUF file; every later stage reads a plain
Hugging Face folder instead. Needs the package's file under .flywheel/packages and no network.
Limits: GGUF only; the weights are those of the quantised file, widened to fp32, not the publisher's originals.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks import layout
from tasks.domain import BaseModelSource, Domain, load_domain
from tasks.errors import FlywheelError
from tasks.files import fresh_directory, sha256_file, write_json, write_manifest, write_text
from tasks.params import load_params
from tasks.stage import run_stage

LICENCE_FILES = ("LICENSE", "LICENSE.*", "LICENCE", "LICENCE.*", "licenses/LICENSE*")
# What transformers notes about this machine and this run rather than about the model.
LOCAL_KEYS = ("_model_name_or_path", "is_local", "local_files_only", "name_or_path")


class BaseModelError(FlywheelError):
    """The base model's file is not the one the domain names, or cannot be converted."""


def checked_file(domain: Domain) -> Path:
    """The base model's one file, after its SHA-256 was compared with domain.yaml.

    Raises:
        BaseModelError: more than one file, not a GGUF file, or another content than the one that was pinned.
    """
    paths = domain.paths(domain.base_model)
    if len(paths) != 1 or paths[0].suffix != ".gguf":
        raise BaseModelError(f"base_model.files must name one .gguf file, found {[path.name for path in paths]}")
    found = sha256_file(paths[0])
    if found != domain.base_model.sha256:
        raise BaseModelError(f"{paths[0]} has SHA-256 {found}, domain.yaml pins {domain.base_model.sha256}")
    return paths[0]


def own_pad_token(tokenizer: Any, model: Any, pad_token: str) -> None:
    """Give tokenizer and model a pad token of their own.

    A pad token equal to the end-of-turn token would be masked wherever padding is masked, and with it the one token
    that teaches the model to stop.

    Raises:
        BaseModelError: the token is not in the vocabulary, or is the end-of-turn token.
    """
    if pad_token not in tokenizer.get_vocab():
        raise BaseModelError(f"base_model.pad_token {pad_token!r} is not in the model's vocabulary")
    tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise BaseModelError(f"base_model.pad_token {pad_token!r} is the end-of-turn token; name another one")
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def load_gguf(path: Path) -> tuple[Any, Any]:
    """Tokenizer and fp32 model from a GGUF file, without the marks of quantisation that forbid saving."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return tokenizer, model


def licence_text(source: BaseModelSource, packages: Path = layout.PACKAGES) -> str:
    """The licence as the package carries it; where it carries none, its name and address."""
    folders = sorted(packages.glob(f"{source.package.replace('-', '_')}-*.dist-info")) if source.package else []
    for folder in folders:
        for pattern in LICENCE_FILES:
            for path in sorted(folder.glob(pattern)):
                return path.read_text(encoding="utf-8")
    return f"{source.licence}\n{source.licence_url}\n"


def notice(source: BaseModelSource, file: Path) -> str:
    """What the folder holds, where it comes from and what was changed, as the licence asks."""
    return (
        f"{source.name}, licensed under {source.licence} ({source.licence_url}).\n"
        f"Source: {file.name} from the package {source.package or 'of this domain'}, SHA-256 {source.sha256}.\n"
        f"Changed: the quantised weights were widened to fp32 safetensors, and {source.pad_token} became the pad "
        "token.\n"
    )


def strip_local(folder: Path) -> None:
    """Take out of every JSON setting in `folder` what transformers notes about this machine."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = folder / name
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {key: value for key, value in settings.items() if key not in LOCAL_KEYS})


def convert(domain: Domain, target: Path) -> str:
    """Write the domain's base model to `target`, whole or not at all; returns the folder's digest."""
    file = checked_file(domain)
    tokenizer, model = load_gguf(file)
    own_pad_token(tokenizer, model, domain.base_model.pad_token)
    with fresh_directory(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        strip_local(folder)
        (folder / "model.safetensors").chmod(0o644)
        write_text(folder / "LICENSE.txt", licence_text(domain.base_model))
        write_text(folder / "NOTICE.txt", notice(domain.base_model, file))
        return write_manifest(folder)


def stage() -> str:
    """Convert the base model of the domain that params.yaml names."""
    domain = load_domain(load_params().domain)
    digest = convert(domain, layout.BASE_MODEL)
    return f"{domain.base_model.name} in {layout.BASE_MODEL}, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("base_model", stage)


if __name__ == "__main__":
    main()
