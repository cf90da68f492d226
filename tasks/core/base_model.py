"""The base model as domain.yaml names it: a packaged file, a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from tasks.core import layout
from tasks.core.settings import Section, Text

# What a kind must say, and what contradicts it. What `path` and `hub` leave out, the model's own files say.
NEEDED = {
    "files": ("name", "sha256", "licence", "licence_url", "pad_token"),
    "path": (),
    "hub": ("revision",),
}
FOREIGN = {
    "files": ("revision",),
    "path": ("package", "sha256", "terms_file", "revision"),
    "hub": ("package", "sha256", "terms_file"),
}
TOLD = "source.json"  # in the stage's output: what the files of a folder said of themselves
SHIPPED_TEMPLATES = Path(__file__).parents[1] / "text/templates"


class BaseModelSource(Section):
    """The general language model that is tuned: exactly one of `files`, `path` and `hub`."""

    name: str = ""
    package: str = ""
    files: Annotated[list[Text], Field(default_factory=list)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    path: str = ""  # of a folder; absolute, or below the domain's
    hub: Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+)?$")] = ""
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")] = ""  # the commit, 40 hex digits
    licence: str = ""
    licence_url: str = ""
    terms: str = ""  # a word that params.yaml must name in accepted_terms before the model is used
    terms_file: str = ""  # in the package: the terms themselves
    chat_template: str = ""  # a file of the domain's folder or the name of a shipped one, for models that have none
    # Role markers of that template which the model's tokenizer does not call special tokens of its own accord.
    markers: Annotated[list[Text], Field(default_factory=list)]
    pad_token: str = ""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        return {**raw, "name": name_of(raw)} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _one_kind(self) -> BaseModelSource:
        given = [kind for kind in NEEDED if getattr(self, kind)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"name exactly one of `files` (with `package`), `path` and `hub`; found {found}")
        kind = given[0]
        wrong = [f"`{key}` is missing" for key in NEEDED[kind] if not getattr(self, key)]
        wrong += [f"`{key}` has no meaning beside `{kind}`" for key in FOREIGN[kind] if getattr(self, key)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def name_of(raw: dict[str, Any]) -> str:
    """The name of a base model as domain.yaml has it: its own, the hub's, or the folder's."""
    return str(raw.get("name") or raw.get("hub") or Path(str(raw.get("path") or "")).name)


def shipped_template(name: str) -> Path | None:
    """The chat template that is shipped under a name, such as `chatml`; None: there is none."""
    path = SHIPPED_TEMPLATES / f"{name}.jinja"
    return path if name.isidentifier() and path.is_file() else None


def told(source: BaseModelSource, folder: Path = layout.BASE_MODEL) -> BaseModelSource:
    """The source with what the stage base_model found in the model's own files, where it has run."""
    found = {} if source.files else found_in(folder)
    return source.model_copy(update={key: getattr(source, key) or value for key, value in found.items()})


def found_in(folder: Path) -> dict[str, str]:
    """What the stage found in a model's own files: name, licence, licence_url, pad_token; nothing for a GGUF file."""
    path = folder / TOLD
    return dict(json.loads(path.read_text(encoding="utf-8"))["found"]) if path.is_file() else {}
