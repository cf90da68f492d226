"""What a training computes: lengths as training encodes them, batches as each trainer puts them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.params import load_params
from tasks.core.records import Example, Preference, make_example, read_own_jsonl, write_jsonl
from tasks.text.prompts import PromptBook
from tasks.train.preference.rows import encode_groups
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.workload import Batch, RowSize, read_rows, workload_of
from tasks.train.tuning.batches import encode_rows, plan_epoch
from tests.small_tokenizer import lay_tokenizer


def test_lengths_and_steps_are_those_that_training_plans(job: TrainingJob) -> None:
    """Eleven examples in steps of at most four: three steps an epoch; the largest batch is the longest pair's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    encoded = encode_rows(tokenizer, job.system, read_own_jsonl(job.data["train"], Example), 512)
    expected = [(sum(label == -100 for label in row["labels"]), len(row["labels"])) for row in encoded]
    rows, held = read_rows(job)
    assert [(row.prompt, row.longest) for row in rows] == expected and len(held) == 3
    assert [row.lines for row in rows] == [(line,) for line in range(11)]

    work, lengths = workload_of(job, rows, []), [row.longest for row in rows]
    assert (len(work.steps), work.examples, work.forward) == (6, 11, ())
    assert work.tokens == 2 * sum(lengths)
    plan = plan_epoch(lengths, 2, 2, job.seed, 0)
    assert work.steps[0][0].tokens == max(lengths[i] for hand in plan[0] for i in hand)
    settings = job.settings.model_copy(update={"gradient_accumulation": 2})
    again = workload_of(job.model_copy(update={"settings": settings}), rows, [])
    assert [len(step) for step in again.steps] == [2, 1, 2, 1]


def test_a_template_that_marks_what_the_assistant_says_is_counted(root: Path, job: TrainingJob, tmp_path: Path) -> None:
    """`<s>` is one token, every other letter one, and so is the end of `Yes`."""
    template = (root / "domains/traffic_law/prompts/chat_template.jinja").read_text()
    example = make_example(instruction="?", output="Yes", language="en", origin="human", source=("t",))
    write_jsonl(tmp_path / "train.jsonl", [example])
    prompt = "<start_of_turn>user\nAnswer.\n\n?<end_of_turn>\n<start_of_turn>model\n"
    model = lay_tokenizer(tmp_path / "model", template)
    changes = {"base_model": model, "system": "Answer.", "data": {"train": tmp_path / "train.jsonl"}}
    assert read_rows(job.model_copy(update=changes)) == ([RowSize(1 + len(prompt), (4,), (), (0,))], [])


def test_preferences_are_grouped_as_training_groups_them(preferring: Any, tmp_path: Path) -> None:
    """And one that cannot be encoded is left out, as there: here the user speaks twice."""
    from transformers import AutoTokenizer

    job = preferring("reward")
    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    preferences = read_own_jsonl(job.data["train"], Preference)
    bad = preferences[0].model_copy(update={"prompt": preferences[0].prompt * 2})
    write_jsonl(tmp_path / "bad.jsonl", [bad, *preferences])
    job = job.model_copy(update={"data": {"train": tmp_path / "bad.jsonl"}})
    groups = encode_groups(tokenizer, job.system, preferences, 512)
    rows, _ = read_rows(job)
    assert [(row.prompt, row.answers, row.pairs) for row in rows] == [
        (
            len(group.prompt),
            tuple(map(len, group.answers)),
            tuple((len(group.answers[better]), len(group.answers[worse])) for better, worse in group.pairs),
        )
        for group in groups
    ]
    assert [row.lines for row in rows] == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)]


def test_prompts_of_an_online_training_come_once_and_without_general_ones(online: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from tasks.train.align.online.policy import prompt_rows

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
    job = online("ppo", {"rollout": {"max_prompt_tokens": 100}})
    job = job.model_copy(update={"data": {"prompts": tmp_path / "prompts.jsonl"}})
    expected, left_out = prompt_rows(AutoTokenizer.from_pretrained(job.base_model), job.system, examples, 100)
    found, _ = read_rows(job)
    assert ([row.prompt for row in found], left_out) == ([len(row) for row in expected], 1)
    assert [row.lines for row in found] == [(0,), (1,)]


def test_a_reward_model_s_batch_counts_prompts_with_all_their_answers(preferring: Any) -> None:
    """Six prompts, two a process: one step of 2 × 3 answers, one of 1 × 3; no words to score.

    The three held-out prompts pass one by one, two of them in the first process: before, after the epoch, and last.
    """
    job = preferring("reward", batch_size=2)
    work = workload_of(job, *read_rows(job))
    assert [[(batch.rows, batch.scored) for batch in step] for step in work.steps] == [[(6, 0)], [(3, 0)]]
    assert (work.examples, work.validated) == (6, 2)
    assert [batch.rows for batch in work.forward] == [3] * 6


def test_a_pair_is_two_sequences_of_dpo_and_the_reference_scores_each_answer_once(preferring: Any) -> None:
    """Six prompts of two pairs: three steps of 2 × 2 pairs. 18 + 9 answers, 14 of them in the first process."""
    job = preferring("dpo", batch_size=2)
    work = workload_of(job, *read_rows(job))
    assert [[batch.rows for batch in step] for step in work.steps] == [[4], [4], [4]]
    scored = work.forward[2 * work.validated :]
    assert (work.examples, len(scored)) == (12, 14)
    assert {batch.rows for batch in scored} == {1}


def test_kto_takes_answers_one_by_one(preferring: Any) -> None:
    """18 answers in steps of 2 × 2, the last of two."""
    job = preferring("kto", batch_size=2)
    assert [step[0].rows for step in workload_of(job, *read_rows(job)).steps] == [2, 2, 2, 2, 1]


def test_an_online_update_answers_in_its_first_step(online: Any) -> None:
    """16 prompts, 2 processes: 8 answers each, 2 minibatches of 4, two answers a forward pass, 4 passes.

    So 8 steps an update, each of 2 forward passes, and in the first of them twice 4 more.
    """
    work = workload_of(online("ppo"), [RowSize(40, (9,))] * 16, [])
    assert [len(step) for step in work.steps] == [10, 2, 2, 2, 2, 2, 2, 2] * 3
    assert work.largest == Batch(rows=2, tokens=40 + 32, scored=32)
    assert (work.forward, work.update) == ((), 8)


def test_held_out_prompts_are_answered_twice_at_the_end(online: Any) -> None:
    """Five prompts, three of them in one process: 3 × 4 answers, twice, two a pass, four passes each: 48.

    A single prompt is not compared.
    """
    rows, held = [RowSize(40, (9,))] * 16, [RowSize(30, (9,))] * 5
    assert len(workload_of(online("ppo"), rows, held).forward) == 48
    assert workload_of(online("ppo"), rows, held[:1]).forward == ()
    assert len(workload_of(online("rloo", {"rollout": {"answers": 2}}), rows, held).forward) == 48


def test_pretraining_is_full_rows_of_documents_and_general_text(job: TrainingJob, tmp_path: Path) -> None:
    """D tokens of documents at a ratio of 5 make 6 D in all, in rows of 512, of which one in twenty is held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["building permit " * 100] * 10}), tmp_path / "documents.parquet")
    settings = load_params().pretrain
    other = job.model_copy(update={"settings": settings, "data": {"documents": tmp_path / "documents.parquet"}})
    other = other.model_copy(update={"stage": "pretrain"})
    tokens = 10 * (PromptBook(job.base_model).count("building permit " * 100) + 1)
    learnt, held = read_rows(other)
    assert len(learnt) + len(held) == round(tokens * 6 / 512)
    assert set(learnt) == {RowSize(0, (512,))} and len(held) == (len(learnt) + len(held)) // 20
