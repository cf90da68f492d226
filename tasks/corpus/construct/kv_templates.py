"""The templates that word Self-KV's questions and answers: a YAML file, by language, then by path.

A path is one relation or two; `^relation` is walked from object to subject, as in SPARQL. `{subject}` is what the
question starts from, `{via}` the node between two relations, `{object}` the answer. Everything wrong with a file is
reported at once: a placeholder that is missing or unknown, a path that stands there twice.

    zh:
      joiner: 、                      # between several answers
      templates:
        - path: [公布机关]
          questions: ["《{subject}》由哪个机关公布？"]
          answers: ["《{subject}》由{object}公布。"]
          max_answers: 1              # more answers than this, and the question is not asked
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from tasks.core.settings import Positive, Section, SettingsError, mistakes

Wordings = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Template(Section):
    """How the questions and answers of one path are worded."""

    path: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2)]
    questions: Wordings
    answers: Wordings
    max_answers: Positive = 1

    @model_validator(mode="after")
    def _fields(self) -> Template:
        two = {"via"} if len(self.path) == 2 else set()
        problems = [p for text in self.questions for p in _field_problems(text, {"subject"}, {"subject"})]
        problems += [p for text in self.answers for p in _field_problems(text, {"object"}, {"subject", "object"} | two)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Templates(Section):
    """All templates of a domain in one language. `joiner` stands between several answers.

    `paraphrase` asks a teacher for another wording of `{question}`; without it, no question is reworded.
    """

    joiner: str = ", "
    paraphrase: str = ""
    templates: Annotated[list[Template], Field(min_length=1)]

    @model_validator(mode="after")
    def _prompt(self) -> Templates:
        problems = _field_problems(self.paraphrase, {"question"}, {"question"}) if self.paraphrase else []
        paths = Counter(tuple(template.path) for template in self.templates)
        problems += [f"path {' '.join(path)} stands here {n} times" for path, n in paths.items() if n > 1]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def load_templates(path: Path, language: str) -> Templates:
    """The templates of a file in one language.

    Raises:
        SettingsError: the file is missing, has none in this language, or holds mistakes; all of them are listed.
    """
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or language not in raw:
            raise SettingsError(f"{path}: no templates for the language {language!r}; add them under that key")
        return Templates.model_validate(raw[language])
    except FileNotFoundError:
        raise SettingsError(f"{path}: the file does not exist") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from None
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {language}.{line}" for line in mistakes(error))) from None


def _field_problems(text: str, wanted: set[str], allowed: set[str]) -> list[str]:
    """What is wrong with the placeholders of a template; attributes, indices and formats are not allowed either."""
    try:
        parts = [(name, spec, how) for _, name, spec, how in Formatter().parse(text) if name is not None]
    except ValueError as error:
        return [f"{text!r}: {error}"]
    names = {name for name, _, _ in parts}
    problems = [f"{text!r} lacks {{{name}}}" for name in sorted(wanted - names)]
    problems += [f"{text!r}: unknown {{{name}}}" for name in sorted(names - allowed)]
    return problems + [f"{text!r}: {{{name}}} with a format" for name, spec, how in parts if spec or how]
