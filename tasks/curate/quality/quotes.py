"""Which evaluation item a text quotes whole: the leak that nobody disputes, found in one pass over the text.

Texts are compared by letters and digits alone (case, spaces, punctuation and width of characters are dropped), so no
language's spaces matter. Items that are short in bytes (a Chinese character is three) are no evidence and not searched.
Reworded questions and look-alikes are for the leak guard of stage `mix`, which measures similarity.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tasks.core.records import EvaluationItem, read_own_jsonl

MIN_BYTES = {"prompt": 30, "reference": 60}  # an answer shares turns of phrase with others sooner than a question
PROBE = 8  # characters; fewer than MIN_BYTES can hold at 4 bytes a character would lose items


def letters(text: str) -> str:
    """A text's letters and digits in one case, full-width forms as plain ones."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


class Quotes:
    """The prompts, or the references, of evaluation items, to be searched for in texts."""

    def __init__(self, items: Iterable[tuple[str, str]], min_bytes: int) -> None:
        """`items`: (id, text); texts below `min_bytes` of letters are left out."""
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


def read_quotes(folder: Path, field: str) -> Quotes:
    """The `field` (prompt or reference) of every evaluation item in a folder's *.jsonl.

    Raises:
        RecordError: a file is damaged.
    """
    items = [item for path in sorted(folder.glob("*.jsonl")) for item in read_own_jsonl(path, EvaluationItem)]
    return Quotes(((item.id, getattr(item, field)) for item in items), MIN_BYTES[field])
