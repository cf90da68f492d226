"""What a teacher is asked, in the domain's language: prompts/<language>.yaml beside this file.

Every request is a short conversation of worked examples with the real question last, so that a base model, which only
continues patterns, follows it as well as a tuned one. A language without a file is asked in English, and told which
language to answer in by its code.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from tasks.core.settings import Section, parse_settings

FOLDER = Path(__file__).with_name("prompts")
FALLBACK = "en"


class ShownPassage(Section):
    """The worked example of Self-QA."""

    passage: str
    questions: str
    question: str
    answer: str


class SelfQaPrompts(Section):
    """Both requests of Self-QA."""

    questions: str
    answer: str
    shown: ShownPassage

    @model_validator(mode="after")
    def _fields(self) -> SelfQaPrompts:
        require(self.questions, "passage", "number")
        require(self.answer, "passage", "question")
        return self


class SelfInstructPrompts(Section):
    """The four requests of Self-Instruct, and the words that its replies are read by."""

    instructions: str
    classification: str
    yes: str
    no: str
    instance: str
    labelled_instance: str
    input: str
    output: str
    label: str
    none: str

    @model_validator(mode="after")
    def _fields(self) -> SelfInstructPrompts:
        require(self.instructions, "title", "tasks", "number", "next")
        for text in (self.classification, self.instance, self.labelled_instance):
            require(text, "instruction")
        return self


class TeacherPrompts(Section):
    """Everything of one language. `language` is what the teacher is told to write in.

    refusals: beginnings of a text that declines. deictic: what makes a question hang on its passage. unfit: what makes
    an instruction one that text cannot follow. All are looked for without regard to upper and lower case.
    """

    language: str
    refusals: list[str] = Field(min_length=1)
    deictic: list[str] = Field(min_length=1)
    unfit: list[str] = Field(min_length=1)
    self_qa: SelfQaPrompts
    self_instruct: SelfInstructPrompts


def require(text: str, *names: str) -> None:
    """Raises ValueError where a prompt lacks a placeholder."""
    if missing := [name for name in names if f"{{{name}}}" not in text]:
        raise ValueError(f"a prompt lacks {', '.join(f'{{{name}}}' for name in missing)}")


def load_prompts(language: str) -> TeacherPrompts:
    """The prompts of a language, or the English ones with the language named by its code.

    Raises:
        SettingsError: the file holds mistakes; all of them are listed.
    """
    path = FOLDER / f"{language}.yaml"
    if path.is_file():
        return parse_settings(path, TeacherPrompts)
    fallback = parse_settings(FOLDER / f"{FALLBACK}.yaml", TeacherPrompts)
    return fallback.model_copy(update={"language": f"the language with the code {language!r}"})
