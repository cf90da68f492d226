"""What a training computes: lengths as training encodes them, batches as each trainer puts them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.params import load_params
from tasks.core.records import Example, Preference, make_example, read_own_jsonl, write_jsonl
from tasks.text.prompts import PromptBook
from tasks.train.preference.rows import encode_groups
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.workload import Batch, RowSize, read_rows, workload_of
from tasks.train.tuning.batches import encode_rows, plan_epoch
from tests.small_tokenizer import lay_tokenizer


def test_lengths_and_steps_are_those_that_training_plans(job: TrainingJob) -> None:
    """Eleven examples in steps of at most four: three steps an epoch; packed, so that no token is padding."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    encoded = encode_rows(tokenizer, job.system, read_own_jsonl(job.data["train"], Example), 512)
    rows, held = read_rows(job)
    assert [(row.prompt, row.longest) for row in rows] == [
        (sum(label == -100 for label in row["labels"]), len(row["labels"])) for row in encoded
    ]
    assert len(held) == 3

    work, lengths = workload_of(job, rows, []), [row.longest for row in rows]
    assert (work.steps, work.examples, work.looked) == (6, 11, 0)
    assert work.tokens == 2 * sum(lengths) == 2 * work.learnt
    plans = [plan_epoch(lengths, 2, 2, job.seed, epoch) for epoch in range(2)]
    assert work.largest.filled == max(sum(lengths[i] for i in hand) for plan in plans for step in plan for hand in step)
    assert workload_of(job, rows, held).looked == 3 * sum(row.longest for row in held) / 2
    settings = job.settings.model_copy(update={"gradient_accumulation": 2})
    assert workload_of(job.model_copy(update={"settings": settings}), rows, []).steps == 4


def test_a_template_that_marks_what_the_assistant_says_is_counted(root: Path, job: TrainingJob, tmp_path: Path) -> None:
    """`<s>` is one token, every other letter one, and so is the end of `Yes`."""
    template = (root / "domains/traffic_law/prompts/chat_template.jinja").read_text()
    example = make_example(instruction="?", output="Yes", language="en", origin="human", source=("t",))
    write_jsonl(tmp_path / "train.jsonl", [example])
    prompt = "<start_of_turn>user\nAnswer.\n\n?<end_of_turn>\n<start_of_turn>model\n"
    model, data = lay_tokenizer(tmp_path / "model", template), dict.fromkeys(job.data, tmp_path / "train.jsonl")
    rows, _ = read_rows(job.model_copy(update={"base_model": model, "system": "Answer.", "data": data}))
    assert rows == [RowSize(1 + len(prompt), (4,))]


def test_preferences_are_grouped_as_training_groups_them(preferring: Any, tmp_path: Path) -> None:
    """And one that cannot be encoded is left out, as there: here the user speaks twice."""
    from transformers import AutoTokenizer

    job = preferring("reward")
    preferences = read_own_jsonl(job.data["train"], Preference)
    bad = preferences[0].model_copy(update={"prompt": preferences[0].prompt * 2})
    write_jsonl(tmp_path / "bad.jsonl", [bad, *preferences])
    job = job.model_copy(update={"data": {**job.data, "train": tmp_path / "bad.jsonl"}})
    groups = encode_groups(AutoTokenizer.from_pretrained(job.base_model), job.system, preferences, 512)
    rows, _ = read_rows(job)
    assert rows == [RowSize(len(group.prompt), tuple(map(len, group.answers))) for group in groups]


@pytest.mark.parametrize(
    ("alignment", "examples", "steps", "largest"),
    [("reward", 6, 2, 6), ("dpo", 12, 3, 4), ("kto", 18, 5, 2)],
)
def test_a_batch_counts_prompts_with_all_their_answers_or_pairs_or_answers(
    preferring: Any, alignment: str, examples: int, steps: int, largest: int
) -> None:
    """Six prompts of two pairs and three answers, two of whatever counts in a batch, two processes."""
    job = preferring(alignment, batch_size=2)
    work = workload_of(job, *read_rows(job))
    assert (work.examples, work.steps, work.largest.rows) == (examples, steps, largest)
    assert (work.largest.scored == 0) == (alignment == "reward")


def test_an_online_update_answers_besides_learning(online: Any) -> None:
    """16 prompts, 2 processes: 8 answers each, 2 minibatches of 4, two answers a forward pass, 4 passes over them.

    So 8 steps an update, each of 2 forward passes, and 8 more to answer and to judge.
    """
    work = workload_of(online("ppo"), [], [])
    assert (work.steps, work.learnt) == (24, 3 * (8 * 2 + 8) * work.largest.positions)
    assert work.largest == Batch(rows=2, tokens=online("ppo").settings.rollout.max_prompt_tokens + 32, scored=32)


def test_pretraining_is_full_rows_of_documents_and_general_text(job: TrainingJob, tmp_path: Path) -> None:
    """D tokens of documents at a ratio of 5 make 6 D in all, in rows of 512, of which one in twenty is held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["building permit " * 100] * 10}), tmp_path / "documents.parquet")
    settings = load_params().pretrain
    other = job.model_copy(update={"settings": settings, "data": {"documents": tmp_path / "documents.parquet"}})
    learnt, held = read_rows(other.model_copy(update={"stage": "pretrain"}))
    tokens = 10 * (PromptBook(job.base_model).count("building permit " * 100) + 1)
    assert len(learnt) + len(held) == round(tokens * 6 / 512)
    assert set(learnt) == {RowSize(0, (512,))} and len(held) == (len(learnt) + len(held)) // 20
