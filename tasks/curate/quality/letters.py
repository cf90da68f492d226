"""What a text says of others, by letters and digits alone (no case, spaces, punctuation or width of characters).

Quotes of whole evaluation items: the leak that nobody disputes. Items that are short in bytes (a Chinese character is
three) are no evidence. Reworded questions are for the leak guard of stage `mix`, which measures similarity.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tasks.core.records import EvaluationItem, read_own_jsonl

MIN_BYTES = {"prompt": 30, "reference": 60}  # an answer shares turns of phrase with others sooner than a question
PROBE = 8  # characters; fewer than MIN_BYTES can hold at 4 bytes a character would lose items


def letters(text: str) -> str:
    """A text's letters and digits in one case, full-width forms as plain ones."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


class Quotes:
    """Texts to be searched for in others: (id, text), without those below `min_bytes` of letters."""

    def __init__(self, items: Iterable[tuple[str, str]], min_bytes: int) -> None:
        self._by_probe: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for identity, text in items:
            wanted = letters(text)
            if len(wanted.encode()) >= min_bytes and len(wanted) >= PROBE:
                self._by_probe[wanted[:PROBE]].append((identity, wanted))

    def in_text(self, text: str) -> str:
        """The id of the first item that stands whole in `text`, or ""."""
        found = letters(text)
        for start in range(len(found) - PROBE + 1):
            for identity, wanted in self._by_probe.get(found[start : start + PROBE], ()):
                if found.startswith(wanted, start):
                    return identity
        return ""


@lru_cache(maxsize=4)
def read_quotes(folder: Path, field: str) -> Quotes:
    """The `field` (prompt or reference) of every evaluation item in a folder's *.jsonl."""
    items = [item for path in sorted(folder.glob("*.jsonl")) for item in read_own_jsonl(path, EvaluationItem)]
    return Quotes(((item.id, getattr(item, field)) for item in items), MIN_BYTES[field])


def states_a_triple(answer: str, evidence: str, question: str) -> bool:
    """Whether `answer` names a subject or object of its triples that `question` does not.

    Where the question names them all (is it so?), any of them will do. `evidence` is lines "subject | relation |
    object"; evidence without a triple states nothing.
    """
    lines = [line.split(" | ") for line in evidence.splitlines()]
    names = {letters(part) for line in lines if len(line) >= 3 for part in (line[0], line[-1])} - {""}
    asked, answered = letters(question), letters(answer)
    unknown = {name for name in names if name not in asked}
    return any(name in answered for name in unknown or names)
