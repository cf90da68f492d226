"""A model that lies elsewhere becomes the base model without a copy: links to its weights, small files beside them.

The weights keep their type of number. What is written anew are tokenizer and settings, with the pad token, the end of
turn and the template that every side will use. Limits: where the folder is moved or changed, it must be taken again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks.core.base_model import TOLD, BaseModelSource
from tasks.core.domain import Domain
from tasks.core.files import digest_of, fresh_directory, write_json, write_manifest, write_text
from tasks.train.base_model.folder import INDEX, BaseModelError, examine, read_config
from tasks.train.base_model.found import (
    licence_file,
    licence_of,
    own_end_of_turn,
    pad_token_of,
    refuse_other_answers,
)
from tasks.train.base_model.hub import snapshot
from tasks.train.base_model.settle import own_pad_token, own_template, strip_local


def folder_of(domain: Domain) -> Path:
    """Where the model of a source with `path` or `hub` lies. Raises BaseModelError: its files are not here."""
    source = domain.base_model
    if source.hub:
        return snapshot(source.hub, source.revision).resolve()
    return (domain.folder / source.path).resolve()


def settled_tokenizer(domain: Domain, folder: Path) -> Any:
    """The model's tokenizer with template, end of turn and pad token. Raises BaseModelError: one cannot be told."""
    from transformers import AutoTokenizer

    source = domain.base_model
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise BaseModelError(f"the tokenizer of {source.name} cannot be read: {error}") from None
    if not tokenizer.is_fast:
        raise BaseModelError(f"the tokenizer of {source.name} has no tokenizer.json, nor what one could be made of")
    own_template(tokenizer, domain)
    own_end_of_turn(tokenizer, source.name)
    refuse_other_answers(tokenizer, domain.system_text(), source.name)
    own_pad_token(tokenizer, pad_token_of(tokenizer, source))
    return tokenizer


def take(domain: Domain, target: Path) -> str:
    """Write the base model's folder to `target`, whole or not at all; returns its digest."""
    source, origin = domain.base_model, folder_of(domain)
    facts = examine(origin)
    tokenizer = settled_tokenizer(domain, origin)
    found = {"name": source.name, **licence_of(origin, source), "pad_token": tokenizer.pad_token}
    links = [path.name for path in facts.weights]
    with fresh_directory(target) as folder:
        tokenizer.save_pretrained(folder)
        _write_settings(origin, folder, tokenizer)
        for path in facts.weights:
            (folder / path.name).symlink_to(path.resolve())
        if (origin / INDEX).is_file():
            shutil.copyfile(origin / INDEX, folder / INDEX)
        _write_terms(origin, folder, source.model_copy(update=found), tokenizer)
        write_json(folder / TOLD, {"entry": entry_digest(source), "found": found})
        return write_manifest(folder, links)


def entry_digest(source: BaseModelSource) -> str:
    """Tells whether a folder was made for this entry of domain.yaml."""
    return digest_of(source.model_dump(mode="json"))


def made_for(folder: Path) -> str:
    """The digest of the entry that a folder was made for; "" where its model was converted from a file."""
    path = folder / TOLD
    return str(json.loads(path.read_text(encoding="utf-8"))["entry"]) if path.is_file() else ""


def _write_settings(origin: Path, folder: Path, tokenizer: Any) -> None:
    """The model's settings as they are, but for its pad token and with the end of a turn among the ends."""
    generation = origin / "generation_config.json"
    settings = {"config.json": read_config(origin)}
    if generation.is_file():
        settings[generation.name] = json.loads(generation.read_text(encoding="utf-8"))
    for name, values in settings.items():
        ends = values.get("eos_token_id")
        known = ends if isinstance(ends, list) else [] if ends is None else [ends]
        if tokenizer.eos_token_id not in known:
            values["eos_token_id"] = [tokenizer.eos_token_id, *known] if known else tokenizer.eos_token_id
        write_json(folder / name, {**values, "pad_token_id": tokenizer.pad_token_id})
    strip_local(folder)


def _write_terms(origin: Path, folder: Path, source: BaseModelSource, tokenizer: Any) -> None:
    file = licence_file(origin)
    text = file.read_text("utf-8", "replace") if file else f"{source.licence}\n{source.licence_url}\n"
    write_text(folder / "LICENSE.txt", text)
    for path in sorted(origin.glob("NOTICE*")):
        write_text(folder / f"{path.stem}.of_the_model.txt", path.read_text("utf-8", "replace"))
    place = (
        f"{source.hub} on the Hugging Face hub, commit {source.revision}" if source.hub else f"a folder, {source.name}"
    )
    address = f" ({source.licence_url})" if source.licence_url else ""
    terms = f"{source.name} is used under the terms of {source.licence}.\n" if source.terms else ""
    template = f"Added: the chat template {source.chat_template}.\n" if source.chat_template else ""
    write_text(
        folder / "NOTICE.txt",
        f"{source.name}, licensed under {source.licence}{address}.\n{terms}Source: {place}.\n"
        f"Changed: no weight. {tokenizer.pad_token} is the pad token, and {tokenizer.eos_token} ends a turn.\n"
        f"{template}",
    )
