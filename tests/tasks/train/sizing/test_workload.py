"""What a training computes: lengths as training encodes them, batches as each trainer puts them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.params import load_params
from tasks.core.records import Example, Preference, make_example, read_own_jsonl, write_jsonl
from tasks.train.preference.rows import encode_groups, kto_rows
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.demand import Batch
from tasks.train.sizing.lengths import Counter, Row
from tasks.train.sizing.workload import read_rows, workload_of
from tasks.train.tuning.batches import encode_rows, plan_epoch


def test_lengths_are_those_that_training_encodes(job: TrainingJob) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    encoded = encode_rows(tokenizer, job.system, read_own_jsonl(job.data["train"], Example), 512)
    expected = (
        [sum(label == -100 for label in row["labels"]) for row in encoded],
        [len(row["labels"]) for row in encoded],
    )
    rows = Counter(job.base_model, job.system).rows(job.data["train"])
    assert ([row.prompt for row in rows], [row.longest for row in rows]) == expected
    assert [row.lines for row in rows] == [(line,) for line in range(11)]


def test_preferences_are_grouped_as_training_groups_them(preferring: Any) -> None:
    from transformers import AutoTokenizer

    job = preferring("reward")
    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    groups = encode_groups(tokenizer, job.system, read_own_jsonl(job.data["train"], Preference), 512)
    rows, _ = read_rows(job)
    assert [(row.prompt, row.answers, row.pairs) for row in rows] == [
        (len(group.prompt), tuple(map(len, group.answers)), tuple(group.pairs)) for group in groups
    ]
    assert [row.lines for row in rows] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]


def test_prompts_of_an_online_training_come_once_and_without_general_ones(job: TrainingJob, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from tasks.train.align.online.rollouts import prompt_rows

    asked = [
        ("One?", "human"),
        ("Two or three?", "human"),
        ("One?", "human"),
        ("Four?", "general"),
        ("x " * 90, "human"),
    ]
    examples = [
        make_example(instruction=text, output=f"Answer {place}.", language="en", origin=origin, source=("test",))
        for place, (text, origin) in enumerate(asked)
    ]
    write_jsonl(tmp_path / "prompts.jsonl", examples)
    expected, left_out = prompt_rows(AutoTokenizer.from_pretrained(job.base_model), job.system, examples, 100)
    found = Counter(job.base_model, job.system).prompts(tmp_path / "prompts.jsonl", 100)
    assert ([row.prompt for row in found], left_out) == ([len(row) for row in expected], 1)
    assert [row.lines for row in found] == [(0,), (1,)]


def test_the_steps_are_those_that_training_plans(job: TrainingJob) -> None:
    """Eleven examples in steps of at most four: three steps an epoch; the largest batch is the longest pair's."""
    rows = Counter(job.base_model, job.system).rows(job.data["train"])
    work = workload_of(job, rows, [])
    assert (len(work.steps), work.examples, work.validations) == (6, 11, 0)
    assert work.tokens == 2 * sum(row.longest for row in rows)
    lengths = [row.longest for row in rows]
    plan = plan_epoch(lengths, 2, 2, job.seed, 0)
    assert work.steps[0][0].tokens == max(lengths[i] for hand in plan[0] for i in hand)


def test_accumulated_batches_make_one_step(job: TrainingJob) -> None:
    settings = job.settings.model_copy(update={"gradient_accumulation": 2})
    work = workload_of(job.model_copy(update={"settings": settings}), [Row(5, (3,))] * 11, [])
    assert [len(step) for step in work.steps] == [2, 1, 2, 1]


def test_a_reward_model_s_batch_counts_prompts_with_all_their_answers(preferring: Any) -> None:
    """Six prompts, two a process: one step of 2 × 3 answers, one of 1 × 3; no words to score.

    The three held-out prompts pass one by one, two of them in the first process: before, after the epoch, and last.
    """
    job = preferring("reward", batch_size=2)
    work = workload_of(job, *read_rows(job))
    assert [[(batch.rows, batch.scored) for batch in step] for step in work.steps] == [[(6, 0)], [(3, 0)]]
    assert (work.examples, work.validations) == (6, 2)
    assert [batch.rows for batch in work.checks] == [batch.rows for batch in work.outside] == [3, 3]


def test_a_pair_is_two_sequences_of_dpo_and_the_reference_scores_each_answer_once(preferring: Any) -> None:
    """Six prompts of two pairs: three steps of 2 × 2 pairs. 18 + 9 answers, 14 of them in the first process."""
    job = preferring("dpo", batch_size=2)
    work = workload_of(job, *read_rows(job))
    assert [[batch.rows for batch in step] for step in work.steps] == [[4], [4], [4]]
    assert (work.examples, len(work.outside)) == (12, 14)
    assert {batch.rows for batch in work.outside} == {1}


def test_kto_takes_answers_in_the_order_it_keeps(preferring: Any) -> None:
    """18 answers in steps of 2 × 2, the last of two; each step as long as the longest of its rows."""
    from transformers import AutoTokenizer

    job = preferring("kto", batch_size=2)
    groups = encode_groups(
        AutoTokenizer.from_pretrained(job.base_model), job.system, read_own_jsonl(job.data["train"], Preference), 512
    )
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in kto_rows(groups, 2, job.seed)]
    work = workload_of(job, *read_rows(job))
    assert [step[0].rows for step in work.steps] == [2, 2, 2, 2, 1]
    assert [step[0].tokens for step in work.steps] == [max(lengths[i : i + 4]) for i in range(0, 18, 4)]


def test_an_online_update_answers_in_its_first_step(online: Any) -> None:
    """16 prompts, 2 processes: 8 answers each, 2 minibatches of 4, two answers a forward pass, 4 passes.

    So 8 steps an update, each of 2 forward passes, and in the first of them twice 4 more.
    """
    work = workload_of(online("ppo"), [Row(40, (9,))] * 16, [])
    assert [len(step) for step in work.steps] == [10, 2, 2, 2, 2, 2, 2, 2] * 3
    assert work.largest == Batch(rows=2, tokens=40 + 32, scored=32)
    assert work.outside == ()


def test_held_out_prompts_are_answered_twice_at_the_end(online: Any) -> None:
    """Five prompts, three of them in one process: 3 × 4 answers, twice, two a pass, four passes each: 48.

    A single prompt is not compared.
    """
    rows, held = [Row(40, (9,))] * 16, [Row(30, (9,))] * 5
    assert len(workload_of(online("ppo"), rows, held).outside) == 48
    assert workload_of(online("ppo"), rows, held[:1]).outside == ()
    assert len(workload_of(online("rloo", {"rollout": {"answers": 2}}), rows, held).outside) == 48


def test_pretraining_is_full_rows_of_documents_and_general_text(job: TrainingJob, tmp_path: Path) -> None:
    """D tokens of documents at a ratio of 5 make 6 D in all, in rows of 512, of which one in twenty is held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["building permit " * 100] * 10}), tmp_path / "documents.parquet")
    settings = load_params().pretrain
    other = job.model_copy(update={"settings": settings, "data": {"documents": tmp_path / "documents.parquet"}})
    tokens = Counter(job.base_model, "").texts(tmp_path / "documents.parquet")
    learnt, held = read_rows(other)
    assert len(learnt) + len(held) == round(tokens * 6 / 512)
    assert set(learnt) == {Row(0, (512,))} and len(held) == (len(learnt) + len(held)) // 20
