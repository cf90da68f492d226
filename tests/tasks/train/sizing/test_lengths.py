"""Lengths without a model library, under templates that are hard to render."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.core.records import make_example, write_jsonl
from tasks.train.sizing.lengths import Counter, Row
from tests.small_tokenizer import MISTRAL, lay_tokenizer


def test_a_template_that_marks_what_the_assistant_says_is_counted(root: Path, tmp_path: Path) -> None:
    """`<s>` is one token, every other letter one, and so is the end of `Yes`."""
    template = (root / "domains/traffic_law/prompts/chat_template.jinja").read_text()
    model = lay_tokenizer(tmp_path / "model", template)
    example = make_example(instruction="?", output="Yes", language="en", origin="human", source=("t",))
    write_jsonl(tmp_path / "train.jsonl", [example])
    prompt = "<start_of_turn>user\nAnswer.\n\n?<end_of_turn>\n<start_of_turn>model\n"
    assert Counter(model, "Answer.").rows(tmp_path / "train.jsonl") == [Row(1 + len(prompt), (4,), (), (0,))]


def test_a_preference_that_the_template_refuses_counts_for_nothing(tmp_path: Path) -> None:
    """`<s>`, `[INST]`, a space, one letter, `[/INST]`: five tokens. The second line has two user turns in a row."""
    model = lay_tokenizer(tmp_path / "model", MISTRAL)
    turn = {"role": "user", "content": "a"}
    lines = [{"prompt": prompt, "chosen": "b", "rejected": "cd"} for prompt in ([turn], [turn, turn], [turn])]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert Counter(model, "").rows(tmp_path / "rows.jsonl") == [Row(5, (2, 3), ((0, 1), (0, 1)), (0, 2))]
