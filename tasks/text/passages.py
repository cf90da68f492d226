"""A question with the passages to answer it from: rendered once, for training, evaluation and serving alike.

Passages are numbered from 1; an answer cites them as [n], or says that they do not hold it. The words around them are
the domain's own, else its language's (answering/<language>.yaml); a language without any has the English ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from tasks.core.domain import Domain
from tasks.core.records import Example, Passage, Record
from tasks.core.settings import SettingsError, mistakes

FOLDER = Path(__file__).with_name("answering")
_CITATION = re.compile(r"\[(\d{1,2})\]")


class AnsweringWords(Record):
    """What stands around passages: `rule` says how to answer, `none` that nothing was found, `decline` is the answer.

    `declined` are pieces of text by which an answer is seen to decline, `refused` patterns by which it refuses a
    request; both are laid against the answer in lower case.
    """

    rule: str
    none: str
    question: str
    decline: str
    declined: tuple[str, ...]
    refused: tuple[re.Pattern[str], ...] = ()  # an index of before has none


def has_words(language: str) -> bool:
    """Whether a language has words of its own."""
    return (FOLDER / f"{language}.yaml").is_file()


@lru_cache(maxsize=8)
def answering_words(language: str) -> AnsweringWords:
    """The words of a language."""
    return _read(FOLDER / f"{language if has_words(language) else 'en'}.yaml")


def domain_words(domain: Domain) -> AnsweringWords:
    """The words of a domain; without `refused` in its own file, those of its language.

    Raises SettingsError: its own file is not as answering/en.yaml is.
    """
    words = answering_words(domain.language)
    if not domain.answering:
        return words
    own = _read(domain.folder / domain.answering)
    return own if own.refused else own.model_copy(update={"refused": words.refused})


def _read(path: Path) -> AnsweringWords:
    try:
        return AnsweringWords.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in mistakes(error))) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from None


def ask_from(passages: Sequence[Passage], question: str, words: AnsweringWords) -> str:
    """What the user's turn becomes: the numbered passages, the rule, the question."""
    numbered = [f"[{number}] {passage.whole}" for number, passage in enumerate(passages, start=1)]
    found = "\n".join(numbered) or words.none
    return f"{found}\n\n{words.rule}\n\n{words.question}{question}"


def asked(example: Example) -> str:
    """The user's turn of an example, with its passages where some were looked up."""
    if example.passages is None or example.framed:
        return example.framed or example.prompt
    return ask_from(example.passages, example.prompt, answering_words(example.language))


def quoted(passages: Sequence[Passage], answers: Mapping[str, str]) -> str:
    """What answers a question out of passages, by their ids, each after the number of its passage.

    Where there are several, each stands behind the question that its passage answers: its "Yes" might else be taken for
    another's.
    """
    several = len(answers) > 1
    return "\n".join(
        f"[{number}] {f'{one.question} ' if several and one.question else ''}{answers[one.id]}"
        for number, one in enumerate(passages, start=1)
        if one.id in answers
    )


def cited(answer: str, count: int) -> list[int]:
    """The places, from 0, of the passages that an answer cites, each once; numbers beyond `count` are none."""
    numbers = [int(number) for number in _CITATION.findall(answer)]
    return list(dict.fromkeys(number - 1 for number in numbers if 1 <= number <= count))


def uncited(answer: str) -> str:
    """The answer without its citations: their numbers mean nothing where other passages stand before it."""
    return re.sub(rf"\s*{_CITATION.pattern}", "", answer).strip()


def declines(answer: str, words: AnsweringWords) -> bool:
    """Whether an answer says that it cannot answer."""
    text = answer.casefold()
    return any(piece.casefold() in text for piece in words.declined)


def refuses(answer: str, words: AnsweringWords) -> bool:
    """Whether an answer does not do what it was asked to: it refuses, or declines."""
    text = answer.strip().casefold().replace("’", "'")
    return declines(answer, words) or any(pattern.search(text) for pattern in words.refused)
