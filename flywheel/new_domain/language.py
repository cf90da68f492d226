"""What there is for a language, and what a domain in it has to do without: told when it is made, in its domain.yaml."""

from __future__ import annotations

from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.evaluate.card.language import lacking

SYSTEM = {
    "en": "You answer questions about {title}.",
    "zh": "你回答有关{title}的问题。",
    "sv": "Du svarar på frågor om {title}.",
    "de": "Du beantwortest Fragen über {title}.",
    "fr": "Tu réponds à des questions sur {title}.",
    "es": "Respondes preguntas sobre {title}.",
}
CHATTERBOT = {
    "bn": "bengali", "de": "german", "en": "english", "es": "spanish", "fa": "persian", "fr": "french", "he": "hebrew",
    "hi": "hindi", "id": "indonesian", "it": "italian", "ja": "japanese", "ko": "korean", "mr": "marathi",
    "nl": "dutch", "or": "oriya", "pt": "portuguese", "ru": "russian", "sv": "swedish", "ta": "tamil", "te": "telugu",
    "th": "thai", "tr": "turkish", "uk": "ukrainian", "ur": "urdu", "yo": "yoruba", "zh": "chinese",
}  # fmt: skip


def system_text(language: str, title: str) -> str:
    """The system prompt of a new domain."""
    return SYSTEM.get(language, SYSTEM["en"] + " Answer in the language of the question.").format(title=title)


def dialogue_in(language: str, general: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """General dialogue in a language, where chatterbot-corpus has it; else what another domain has, as it is."""
    name = CHATTERBOT.get(language, "")
    topics = sorted((layout.PACKAGES / "chatterbot_corpus" / "data" / name).glob("*.yml")) if name else []
    if not topics:
        return general
    source = {
        "name": "chatterbot-corpus",
        "package": "chatterbot-corpus",
        "files": [f"chatterbot_corpus/data/{name}/*.yml"],
        "language": language,
        "licence": "BSD-3-Clause",
        "attribution": "chatterbot-corpus by Gunther Cox and contributors, BSD 3-Clause",
        "url": "https://github.com/gunthercox/chatterbot-corpus",
    }
    stems = [path.stem for path in topics]
    return [source | ({"evaluation_topics": stems[::3]} if len(stems) > 1 else {})]


def missing_for(domain: Domain, model_language: str) -> list[str]:
    """What the language of a new domain lacks, and what would help; `model_language` is that of the domain copied from.

    What is asked for in it works all the same: each has something that stands in.
    """
    from serving.page.pages import table

    code, found = domain.language, list[str]()
    if model_language != code:
        found += [
            f"the base model {domain.base_model.name} comes from a domain in {model_language!r}: see whether it "
            f"writes {code!r}, or choose another (base_model)",
            f"harmful requests, their refusals and the MMLU questions are in {model_language!r}: "
            "put your own under `safety` and `mmlu`",
        ]
    found += lacking(
        code,
        dialogue=[source.language for source in domain.general],
        embedder=bool(domain.embedder.files),
        answering=bool(domain.answering),
    )
    if code not in table()["languages"]:
        found.append("the chat page's own words are English")
    return found
