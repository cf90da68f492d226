"""General dialogue becomes two separate pools: replay for training, and whole topics kept for the evaluation.

A prompt recurs in many conversations of the corpus, so an exchange is kept once for each prompt, and a prompt that
occurs in an evaluation topic is never replayed, whichever topic it also stands in.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.core.domain import DialogueSource
from tasks.core.records import BadLine, Example, Receipt, make_example

STAGE = "ingest"


@dataclass
class Dialogue:
    """The two pools of a dialogue source, with the receipts of everything that was read."""

    replay: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    dropped: list[Example] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


def normalise(text: str) -> str:
    """A text as duplicates are compared: compatibility forms, case and runs of space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_dialogue(source: DialogueSource, paths: list[Path]) -> Dialogue:
    """Read the first exchange of every conversation; the evaluation topics first, so that their prompts win."""
    dialogue, seen, read = Dialogue(), set[str](), set[str]()
    for path in sorted(paths, key=lambda path: (path.stem not in source.evaluation_topics, path.stem)):
        held_out = path.stem in source.evaluation_topics
        for number, (prompt, answer) in _exchanges(path, dialogue.bad):
            example = _example_of(source, path.stem, number, prompt, answer)
            if example.id in read:
                continue  # the same exchange again; its first occurrence has the receipt
            read.add(example.id)
            reason = _refusal(source, prompt, answer, seen)
            if held_out and not reason:
                dialogue.held_out.append(example)
                reason = "kept for the evaluation"
            elif not reason:
                dialogue.replay.append(example)
            else:
                dialogue.dropped.append(example)
            seen.add(normalise(prompt))
            kept = reason == ""
            dialogue.receipts.append(
                Receipt(example_id=example.id, stage=STAGE, kept=kept, reason=reason or "read", detail=path.stem)
            )
    return dialogue


def _refusal(source: DialogueSource, prompt: str, answer: str, seen: set[str]) -> str:
    if normalise(prompt) in seen:
        return "prompt occurs before"
    if len(answer) > source.max_answer_characters:
        return f"answer longer than {source.max_answer_characters} characters"
    return ""


def _example_of(source: DialogueSource, topic: str, number: int, prompt: str, answer: str) -> Example:
    return make_example(
        instruction=prompt,
        output=answer,
        language=source.language,
        origin="general",
        source=(f"{source.name}/{topic}/{number}",),
        category=topic,
    )


def _exchanges(path: Path, bad: list[BadLine]) -> list[tuple[int, tuple[str, str]]]:
    """The first prompt and answer of each conversation, numbered from 1; what is not one goes to `bad`."""
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        conversations = list(document["conversations"])
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        bad.append(BadLine(file=path.as_posix(), line=1, cause=f"not a conversation file: {error}", text=""))
        return []
    found = []
    for number, turns in enumerate(conversations, start=1):
        if isinstance(turns, list) and len(turns) >= 2 and all(str(turn or "").strip() for turn in turns[:2]):
            found.append((number, (str(turns[0]).strip(), str(turns[1]).strip())))
        else:
            cause = f"conversation {number} has no prompt with an answer"
            bad.append(BadLine(file=path.as_posix(), line=number, cause=cause, text=str(turns)[:2000]))
    return found
