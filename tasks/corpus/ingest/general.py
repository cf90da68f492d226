"""General dialogue becomes two separate pools: replay for training, and whole topics kept for the evaluation.

A prompt recurs in many conversations of the corpus, so an exchange is kept once for each prompt, and a prompt that
occurs in an evaluation topic is never replayed, whichever topic it also stands in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.core.domain import DialogueSource
from tasks.core.records import BadLine, Example, Receipt, make_example

STAGE = "ingest"


@dataclass
class Dialogue:
    """The two pools of dialogue sources, with the receipts of everything that was read."""

    replay: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    dropped: list[Example] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


def normalise(text: str) -> str:
    """A text as duplicates are compared: compatibility forms, case and runs of space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_dialogue(source: DialogueSource, paths: list[Path], dialogue: Dialogue) -> None:
    """Read the first exchange of every conversation; the evaluation topics first, so that their prompts win."""
    seen, read = set[str](), set[str]()
    for path in sorted(paths, key=lambda path: (path.stem not in source.evaluation_topics, path.stem)):
        held_out = path.stem in source.evaluation_topics
        for number, prompt, answer in _exchanges(path, dialogue.bad):
            example = make_example(
                instruction=prompt,
                output=answer,
                language=source.language,
                origin="general",
                source=(f"{source.name}/{path.stem}/{number}",),
                category=path.stem,
            )
            if example.id in read:
                continue  # the same exchange again; its first occurrence has the receipt
            read.add(example.id)
            reason = _refusal(source, prompt, answer, seen) or ("kept for the evaluation" if held_out else "")
            pool = dialogue.dropped if reason else dialogue.replay
            (dialogue.held_out if reason == "kept for the evaluation" else pool).append(example)
            seen.add(normalise(prompt))
            dialogue.receipts.append(
                Receipt(example_id=example.id, stage=STAGE, kept=not reason, reason=reason or "read", detail=path.stem)
            )


def _refusal(source: DialogueSource, prompt: str, answer: str, seen: set[str]) -> str:
    if normalise(prompt) in seen:
        return "prompt occurs before"
    if len(answer) > source.max_answer_characters:
        return f"answer longer than {source.max_answer_characters} characters"
    return ""


def _exchanges(path: Path, bad: list[BadLine]) -> Iterator[tuple[int, str, str]]:
    """The first prompt and answer of each conversation, numbered from 1; what is not one goes to `bad`."""
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        conversations = list(document["conversations"])
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        bad.append(BadLine(file=path.as_posix(), line=1, cause=f"not a conversation file: {error}", text=""))
        return
    for number, turns in enumerate(conversations, start=1):
        if isinstance(turns, list) and len(turns) >= 2 and all(str(turn or "").strip() for turn in turns[:2]):
            yield number, str(turns[0]).strip(), str(turns[1]).strip()
        else:
            cause = f"conversation {number} has no prompt with an answer"
            bad.append(BadLine(file=path.as_posix(), line=number, cause=cause, text=str(turns)[:2000]))
