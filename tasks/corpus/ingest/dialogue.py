"""General dialogue: a pool that is replayed in training, and conversations kept apart for the evaluation.

It comes in every form that human examples have, or as chatterbot's YAML. Kept apart are whole topics where domain.yaml
names any, else one conversation in HELD_OUT_SHARE, by the hash of how it begins. A prompt recurs in many conversations,
so an exchange is kept once for each, and what follows a prompt that is evaluated on is never replayed.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.core.domain import DialogueSource
from tasks.core.files import digest_of
from tasks.core.records import BadLine, Example, Receipt, make_example
from tasks.corpus.ingest.human import human_rows
from tasks.corpus.reading.lines import bad_line

STAGE = "ingest"
CHATTERBOT = (".yml", ".yaml")
HELD_OUT_SHARE = 5  # one conversation in so many is kept for the evaluation, where no topics are named


@dataclass
class Dialogue:
    """The two pools of dialogue sources, with the receipts of everything that was read.

    `unused` counts the rows in which a field holds something that nobody reads, as in human_rows.
    """

    replay: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    dropped: list[Example] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)


def normalise(text: str) -> str:
    """A text as duplicates are compared: compatibility forms, case and runs of space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def opening(example: Example) -> str:
    """What its conversation begins with."""
    return example.history[0].user if example.history else example.prompt


def is_held_out(source: DialogueSource, example: Example) -> bool:
    """Whether an example is of the evaluation: all turns of a conversation, and all that begin alike, are."""
    if source.evaluation_topics:
        return example.category in source.evaluation_topics
    return int(digest_of(normalise(opening(example))), 16) % HELD_OUT_SHARE == 0


def read_dialogue(source: DialogueSource, paths: list[Path], dialogue: Dialogue) -> None:
    """Read every conversation; those of the evaluation first, so that their prompts win."""
    read = [pair for path in sorted(paths, key=lambda path: path.stem) for pair in _said(source, path, dialogue)]
    ids, seen, evaluated = set[str](), set[str](), set[str]()
    for example, receipt in sorted(read, key=lambda pair: not is_held_out(source, pair[0])):
        if example.id in ids:
            continue  # the same exchange again; its first occurrence has the receipt
        ids.add(example.id)
        held_out = is_held_out(source, example)
        before = [text for turn in example.history for text in (turn.user, turn.assistant)]
        words = normalise("\n".join([*before, example.prompt]))
        reason, pool = ("kept for the evaluation", dialogue.held_out) if held_out else ("", dialogue.replay)
        if not receipt.kept:
            reason, pool = receipt.reason, dialogue.dropped
        elif words in seen or (not held_out and normalise(opening(example)) in evaluated):
            reason, pool = "prompt occurs before", dialogue.dropped
        elif len(example.output) > source.max_answer_characters:
            reason, pool = f"answer longer than {source.max_answer_characters} characters", dialogue.dropped
        pool.append(example)
        seen.add(words)
        if held_out:
            evaluated.add(normalise(opening(example)))
        detail = receipt.detail or example.category
        dialogue.receipts.append(
            Receipt(example_id=example.id, stage=STAGE, kept=not reason, reason=reason or "read", detail=detail)
        )


def _said(source: DialogueSource, path: Path, dialogue: Dialogue) -> Iterator[tuple[Example, Receipt]]:
    """The examples of a file, as general ones, with what reading them said; a file is the topic of what has none."""
    if path.suffix.casefold() in CHATTERBOT:
        yield from _chatterbot(source, path, dialogue.bad)
        return
    for example, receipt in human_rows(source, [path], source.language, dialogue.bad, dialogue.unused):
        fields = {"origin": "general", "category": example.category or path.stem}
        yield example.model_copy(update=fields), receipt


def _chatterbot(source: DialogueSource, path: Path, bad: list[BadLine]) -> Iterator[tuple[Example, Receipt]]:
    for number, prompt, answer in _exchanges(path, bad):
        example = make_example(
            instruction=prompt,
            output=answer,
            language=source.language,
            origin="general",
            source=(f"{source.name}/{path.stem}/{number}",),
            category=path.stem,
        )
        yield example, Receipt(example_id=example.id, stage=STAGE, kept=True, reason="read")


def _exchanges(path: Path, bad: list[BadLine]) -> Iterator[tuple[int, str, str]]:
    """The first prompt and answer of each conversation, numbered from 1; what is not one goes to `bad`."""
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        conversations = list(document["conversations"])
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        bad.append(bad_line(path, 1, f"not a conversation file: {error}"))
        return
    for number, turns in enumerate(conversations, start=1):
        if isinstance(turns, list) and len(turns) >= 2 and all(str(turn or "").strip() for turn in turns[:2]):
            yield number, str(turns[0]).strip(), str(turns[1]).strip()
        else:
            bad.append(bad_line(path, number, f"conversation {number} has no prompt with an answer", str(turns)))
