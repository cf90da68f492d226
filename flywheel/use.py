"""`flywheel use MODEL`: another base model for a domain, written into its domain.yaml, with what was found in it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from flywheel.answers import Answer, verb
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.layout import home

# The key with all that is indented below it; remarks and blank lines belong to it where more of it follows.
SECTION = re.compile(r"^base_model:[^\n]*\n(?:(?:\n|#[^\n]*\n)*[ \t]+[^\n]*\n)*", re.MULTILINE)
HUB = re.compile(r"[\w.-]+/[\w.-]+")


class UseError(FlywheelError):
    """The model is no folder and no name of the hub, or domain.yaml has no section to write to."""


@dataclass(frozen=True)
class Found:
    """What `flywheel use` says of a model. `missing`: lines to write under base_model before the model can be used."""

    name: str
    architecture: str
    parameters: int
    dtype: str
    context: int
    licence: str
    chat_template: str
    pad_token: str
    end_of_turn: str
    missing: list[str]


@verb
@click.argument("model")
@click.option("--revision", metavar="COMMIT", help="Of the hub: its 40 hex digits; otherwise the newest is asked for.")
@click.option("--domain", metavar="NAME", help="Otherwise the one that params.yaml names.")
@click.option(
    "--chat-template", metavar="NAME", help="For a model without one: chatml, or a file of the domain's folder."
)
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be written, and what was found.")
def use(model: str, revision: str | None, domain: str | None, chat_template: str | None, dry_run: bool) -> Answer:
    """Make MODEL the base model of a domain: a folder with safetensors, or the name of one on the Hugging Face hub.

    The entry is written into domain.yaml, whose other text stays, and what was found in the model is said. A name such
    as org/name is fetched only with FLYWHEEL_NETWORK=1. Exit status 1: it cannot be used, or a line is still missing.
    """
    from tasks.core.params import load_params

    given = Path(model).expanduser().absolute()  # seen from where the command was given
    with contextlib.chdir(home()):
        name = domain or load_params().domain
        entry = _entry(model, given, revision, chat_template)
        path = layout.DOMAINS / name / "domain.yaml"
        text, found = _tried(path, entry, name)
        if not dry_run:
            from tasks.core.files import write_text

            write_text(path, text)
    lines = _words(found)
    lines += [f"missing: {line}" for line in found.missing]
    lines.append(f"{path}: " + ("unchanged; this would be its entry:" if dry_run else "its entry is now:"))
    lines += [f"  {line}" for line in _section(entry).splitlines()]
    if not dry_run and not found.missing:
        lines.append("Next: make run" if domain is None else f"Next: set domain: {name} in params.yaml, and make run")
    answer = {"domain": name, "entry": entry, "written": not dry_run, **asdict(found)}
    return Answer(answer, "\n".join(lines), 1 if found.missing else 0)


def _entry(model: str, folder: Path, revision: str | None, chat_template: str | None) -> dict[str, str]:
    """What domain.yaml will say. Raises UseError: it is neither; BaseModelError: the newest commit cannot be asked."""
    template = {"chat_template": chat_template} if chat_template else {}
    if folder.is_dir():
        if revision:
            raise UseError(f"--revision is a commit of the hub, and {model} is a folder")
        return {"path": str(folder), **template}
    if not HUB.fullmatch(model):
        raise UseError(f"{model} is no folder here, and no name of the hub such as org/name")
    from tasks.train.base_model.hub import newest_revision

    return {"hub": model, "revision": revision or newest_revision(model), **template}


def _tried(path: Path, entry: dict[str, str], name: str) -> tuple[str, Found]:
    """domain.yaml with the entry, read as a domain, and what the model's files say.

    Raises SettingsError: it would be no domain; BaseModelError: the model cannot be used whatever is written.
    """
    from tasks.core.domain import check_domain, load_domain

    if not path.is_file():
        load_domain(name)  # which says so, and which domains there are
    text = with_entry(path.read_text(encoding="utf-8"), entry)
    return text, look(check_domain(yaml.safe_load(text), name))


def with_entry(text: str, entry: dict[str, str]) -> str:
    """The text of a domain.yaml with another base model; comments and all other sections stay.

    Raises UseError: it has no section base_model of its own lines.
    """
    section = SECTION.search(text if text.endswith("\n") else (text := f"{text}\n"))
    if section is None:
        raise UseError("domain.yaml has no section base_model to be written anew")
    kept = [line for line in section[0].splitlines(keepends=True) if line.lstrip().startswith("#")]
    return text[: section.start()] + _section(entry) + "".join(kept) + text[section.end() :]


def _section(entry: dict[str, str]) -> str:
    written: str = yaml.safe_dump({"base_model": entry}, sort_keys=False, allow_unicode=True, width=10_000)
    return written


def look(domain: Any) -> Found:
    """What a model's files say of it, and which lines domain.yaml lacks for it. Raises BaseModelError: unusable."""
    from tasks.train.base_model.folder import BaseModelError, examine
    from tasks.train.base_model.found import licence_of
    from tasks.train.base_model.take import folder_of, settled_tokenizer

    source, folder = domain.base_model, folder_of(domain)
    facts = examine(folder)
    licence, tokens, missing = "", ("", "", ""), []
    try:
        licence = licence_of(folder, source)["licence"]
    except BaseModelError as error:
        missing.append(str(error))
    try:
        tokenizer = settled_tokenizer(domain, folder)
        tokens = (source.chat_template or "its own", tokenizer.pad_token, tokenizer.eos_token)
    except BaseModelError as error:
        missing.append(str(error))
    return Found(
        source.name, facts.architecture, facts.parameters, facts.dtype, facts.context, licence, *tokens, missing=missing
    )


def _words(found: Found) -> list[str]:
    rows = {
        "architecture": found.architecture,
        "parameters": f"{found.parameters:,} in {found.dtype}",
        "licence": found.licence,
        "chat template": found.chat_template,
        "pads with": found.pad_token,
        "ends a turn": found.end_of_turn,
        "context": f"{found.context} tokens" if found.context else "",
    }
    return [found.name, *(f"  {what:<14} {value or 'not said'}" for what, value in rows.items())]
