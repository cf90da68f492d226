"""A conversation is evaluated on as a whole: by its first question, and none of its answers is trained on."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import folder_digest, write_json
from tasks.core.records import EvaluationItem, Example, Receipt, Rewording, Turn, read_own_jsonl
from tasks.core.tables import read_records
from tasks.corpus.ingest.stage import HELD_OUT, held_back, ingest, item_of, items_of
from tasks.corpus.reading.forgotten import FORGOTTEN
from tests.examples import an_example

FIRST = an_example("How high?", "Two metres.")
SECOND = an_example("And wide?", "One.", history=(Turn(user="How high?", assistant="Two metres."),))


def receipts(*examples: Example, kept: bool = True) -> list[tuple[Example, Receipt]]:
    return [(one, Receipt(example_id=one.id, stage="ingest", kept=kept, reason="read")) for one in examples]


def test_the_items_are_what_conversations_begin_with() -> None:
    assert [item.prompt for item in items_of("domain", [FIRST, SECOND])] == ["How high?"]


def test_an_item_is_asked_under_the_system_text_and_behind_the_turns_of_its_example() -> None:
    """A row of Alpaca with a history has no example that comes before it."""
    item = item_of("domain", SECOND.model_copy(update={"system": "Be brief."}))
    assert (item.system, item.history) == ("Be brief.", SECOND.history)
    assert item.id != item_of("domain", SECOND).id


def test_all_answers_of_a_conversation_are_held_back_with_its_first() -> None:
    evaluated = {item_of("domain", FIRST).id}
    found = held_back(receipts(FIRST, SECOND), evaluated, ())
    assert [(receipt.kept, receipt.reason) for _, receipt in found] == [(False, HELD_OUT)] * 2
    assert held_back(receipts(FIRST, SECOND), (), ()) == receipts(FIRST, SECOND)


def test_what_was_dropped_before_keeps_its_own_reason_and_an_entry_that_is_asked_for_is_held_back() -> None:
    dropped = receipts(FIRST, kept=False)
    assert held_back(dropped, {item_of("domain", FIRST).id}, ()) == dropped
    [(_, receipt)] = held_back(receipts(FIRST), (), FIRST.source)
    assert receipt.reason == HELD_OUT


def test_what_was_forgotten_leaves_every_output_and_has_a_receipt(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default domain: an entry of its FAQ that an evaluation item is answered from, and a topic of its dialogues.

    The item goes too: nobody could answer it any more, and the next version would be blamed for it.
    """
    for name in ("domains", "infra", ".flywheel"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    domain = load_domain("construction")
    ingest(domain)
    before = folder_digest(layout.INGEST)
    items = read_own_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", EvaluationItem)
    entry = next(source for item in items for source in item.source if source.startswith("zaragoza"))
    reworded = read_own_jsonl(layout.INGEST / "rewordings.jsonl", Rewording)
    general = read_records(layout.INGEST / "general.parquet", Example)
    talk = sum(one.source[0].startswith("chatterbot-corpus/ai/") for one in general)
    assert talk > 0

    write_json(tmp_path / FORGOTTEN, [])
    ingest(domain)
    assert folder_digest(layout.INGEST) == before
    names = (entry, "chatterbot-corpus/ai")
    write_json(tmp_path / FORGOTTEN, sorted(sha256(name.encode()).hexdigest() for name in names))
    assert "examples were forgotten" in ingest(domain)
    left = read_own_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", EvaluationItem)
    assert left == [item for item in items if entry not in item.source] and len(left) < len(items)
    examples = [
        example
        for name in ("examples", "general", "safety", "dropped")
        for example in read_records(layout.INGEST / f"{name}.parquet", Example)
    ]
    assert not [one for one in examples if entry in one.source or one.source[0].startswith("chatterbot-corpus/ai/")]
    assert len(read_records(layout.INGEST / "general.parquet", Example)) == len(general) - talk
    told = read_own_jsonl(layout.INGEST / "rewordings.jsonl", Rewording)
    assert told == [one for one in reworded if one.source != entry]
    last = {receipt.example_id: receipt for receipt in read_records(layout.INGEST / "receipt.parquet", Receipt)}
    reasons = Counter(receipt.reason for receipt in last.values() if not receipt.kept)
    assert reasons["forgotten"] >= talk + 1
    assert {one.id for one in general if one.source[0].startswith("chatterbot-corpus/ai/")} <= {
        receipt.example_id for receipt in last.values() if receipt.reason == "forgotten"
    }
