"""The evaluation items at hand: the frozen sets, and a night's corrections."""

from __future__ import annotations

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.records import EvaluationItem, read_own_jsonl
from tasks.evaluate.scoring.questions import FEEDBACK


class ItemsUnusable(FlywheelError):
    """A set of items is missing, or holds what it should not."""


def read_items(corrections: bool = False) -> list[EvaluationItem]:
    """The items of every evaluation set; with `corrections`, what users corrected too, where a night is to learn it.

    Raises ItemsUnusable: a set is missing or empty, an id stands twice, or an item is in the wrong file; RecordError: a
    line is damaged.
    """
    files = {name: layout.EVALUATION_ITEMS / f"{name}.jsonl" for name in layout.EVALUATION_SETS}
    items = []
    for name, path in (files | ({FEEDBACK: layout.CORRECTION_ITEMS} if corrections else {})).items():
        found = read_own_jsonl(path, EvaluationItem) if path.is_file() else []
        if name in files and not found:
            raise ItemsUnusable(f"{path} holds no items; run the stage ingest again")
        if any(item.set != name for item in found) or len({item.id for item in found}) != len(found):
            raise ItemsUnusable(f"{path} holds another set's items or one item twice; run dvc repro")
        items += found
    return items
