"""What the pipeline has nothing of its own for in a language; each lack has something that stands in."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.corpus.construct.method import has_prompts
from tasks.curate.quality.expectations import detector_of
from tasks.text.passages import has_words


def lacking(language: str, *, dialogue: Iterable[str], embedder: bool, answering: bool) -> list[str]:
    """What a domain in `language` (ISO 639-1) does without, and what would help.

    `dialogue` are the languages of its general dialogue; `embedder` and `answering` say whether it names its own.
    """
    found = []
    if other := next((one for one in dialogue if one != language), ""):
        found.append(f"general dialogue is in {other!r}: put conversations in {language!r} under `general`")
    if not embedder and language != "en":
        found.append(
            "no embedder: passages are found by their words alone, and what says the same in other words is not seen; "
            "a multilingual one helps (embedder)"
        )
    if not answering and not has_words(language):
        found.append(
            "the words around passages are English (`Answer from the passages …`): write yours into "
            "prompts/answering.yaml, as in tasks/text/answering/en.yaml, and name it under `answering`"
        )
    if not has_prompts(language):
        found.append(f"a teacher is asked in English, and told to answer in {language!r}, where `construct` uses one")
    if detector_of(language) is None:
        found.append(f"no check that examples are in {language!r}: the detector does not know it")
    return found
