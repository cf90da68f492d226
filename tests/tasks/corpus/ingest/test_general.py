"""General dialogue: replay and evaluation share neither topic nor prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.core.domain import DialogueSource, load_domain
from tasks.corpus.ingest.general import Dialogue, normalise, read_dialogue

SOURCE = DialogueSource(
    name="talk", files=["*.yml"], language="en", licence="x", attribution="x", evaluation_topics=["food"]
)


def topic(folder: Path, name: str, *conversations: list[str]) -> Path:
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({"conversations": list(conversations)}))
    return path


def dialogue_of(paths: list[Path]) -> Dialogue:
    dialogue = Dialogue()
    read_dialogue(SOURCE, paths, dialogue)
    return dialogue


def test_a_prompt_of_an_evaluation_topic_is_never_replayed(tmp_path: Path) -> None:
    paths = [
        topic(tmp_path, "ai", ["What do you EAT?", "Bytes"], ["Who are you?", "A model"], ["Who are you?", "Nobody"]),
        topic(tmp_path, "food", ["what do you  eat?", "Bread"]),
    ]
    dialogue = dialogue_of(paths)
    assert [example.output for example in dialogue.held_out] == ["Bread"]
    assert [example.output for example in dialogue.replay] == ["A model"]
    assert [example.output for example in dialogue.dropped] == ["Bytes", "Nobody"]
    reasons = {receipt.reason for receipt in dialogue.receipts if not receipt.kept}
    assert reasons == {"kept for the evaluation", "prompt occurs before"}


def test_the_same_exchange_twice_has_one_receipt(tmp_path: Path) -> None:
    dialogue = dialogue_of([topic(tmp_path, "ai", ["Hi", "Hello"], ["Hi", "Hello"])])
    assert [(receipt.kept, receipt.reason) for receipt in dialogue.receipts] == [(True, "read")]


def test_what_is_not_a_conversation_is_quarantined_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text("conversations: [")
    paths = [topic(tmp_path, "ai", ["alone"], ["Hi", "Hello"]), tmp_path / "bad.yml"]
    dialogue = dialogue_of(paths)
    assert [example.output for example in dialogue.replay] == ["Hello"]
    assert sorted(line.cause.split(":")[0] for line in dialogue.bad) == [
        "conversation 1 has no prompt with an answer",
        "not a conversation file",
    ]


def test_the_real_corpus_is_split_without_a_shared_prompt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    dialogue = Dialogue()
    read_dialogue(domain.general[0], domain.paths(domain.general[0]), dialogue)
    replayed = {normalise(example.prompt) for example in dialogue.replay}
    held_out = {normalise(example.prompt) for example in dialogue.held_out}
    assert len(dialogue.replay) > 400 and len(dialogue.held_out) > 150
    assert not replayed & held_out
    assert not {e.category for e in dialogue.replay} & {e.category for e in dialogue.held_out}
