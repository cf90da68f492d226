"""Stages `evaluate_candidate` and `evaluate_champion`: scores of one model on every evaluation item.

Where the champion's line is anchored at an earlier version, `evaluate_champion` measures that too, and the base model
where a renewal is to be judged: all but corrections, and mostly from the cache, as they were judged once.
Each side is asked under its own system prompt. Only questions whose response is not in the cache go to OpenCompass.
Anything that is not whole and in order stops the stage before a single score is written, and earlier scores are gone
by then, so the gate cannot take old ones for new.
Limits: an engine (evaluate.backend) is vLLM only, because likelihoods are needed; it is the stage's own and not the
platform's, and other items in a batch move a loss in its last digits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.benchmarks import Benchmark, load_benchmarks
from tasks.core.domain import Domain, load_domain
from tasks.core.files import fresh_directory, write_json
from tasks.core.hardware import resolve_precision
from tasks.core.params import EvaluateParams, Params, load_params
from tasks.core.processes import free_port
from tasks.core.records import EvaluationItem, Passage, Score, make_item, write_jsonl
from tasks.core.stage import run_stage, write_metrics
from tasks.engine.client import BASE, Engine
from tasks.engine.process import EngineProcess
from tasks.evaluate.run.benchmarks import asked_sets, benchmark_scores
from tasks.evaluate.run.opencompass_config import data_sets_of, engine_model, local_model, rows_of, write_inputs
from tasks.evaluate.run.opencompass_process import EvaluationError, run_opencompass
from tasks.evaluate.run.opencompass_results import read_responses
from tasks.evaluate.run.score_cache import Conditions, find, keep, key_of, lock_digest, source_digest
from tasks.evaluate.scoring.questions import (
    ANSWERED,
    BOUNDARY,
    FACTS,
    GeneratedAnswer,
    Question,
    Response,
    check_fits,
    means_of,
    questions_of,
    read_items,
    scores_of,
)
from tasks.evaluate.scoring.subject import Subject, Who, beside_champion, evaluation_of, load_subject, tokenizer_digest
from tasks.knowledge.search import Knowledge
from tasks.text.parity import CONVERSATIONS, Conversation, Reading, as_trained, refuse_differing
from tasks.text.passages import answering_words, domain_words
from tasks.text.prompts import PromptBook, encode_text

OPENCOMPASS = "opencompass-0.5.4"


def evaluate(who: Who) -> str:
    """Evaluate one model and write its scores; returns what happened, in a sentence."""
    started = time.monotonic()
    stage, folder = f"evaluate_{who}", evaluation_of(who)
    shutil.rmtree(folder, ignore_errors=True)
    (layout.METRICS / f"{stage}.json").unlink(missing_ok=True)
    params = load_params()
    subject, domain = load_subject(who), load_domain(params.domain)
    sets = load_benchmarks(domain.name)
    for one in sets:
        one.definition(domain.folder)  # what is not there is told before anything is asked
    tokenizer = load_tokenizer(subject.base)
    questions = questions_for(subject, tokenizer, domain)
    check_fits(questions, tokenizer, room_of(subject, params), params.evaluate.max_new_tokens)
    responses, asked = responses_to(questions, subject, params.evaluate)
    results = list(zip(questions, responses, strict=True))
    more = benchmark_scores_of(sets, subject, domain, params.evaluate)
    scores = write_evaluation(folder, subject, params.evaluate, results, more)
    if who in ("candidate", "champion"):
        write_metrics(stage, means_of(scores))
    seconds = time.monotonic() - started
    beside = f"; {len(more)} items of {len(sets)} benchmarks" if sets else ""
    return f"{len(questions)} questions, {asked} of them asked now, the others known{beside}; {seconds:.0f} s"


def benchmark_scores_of(
    sets: Sequence[Benchmark], subject: Subject, domain: Domain, settings: EvaluateParams
) -> list[Score]:
    """The scores of the domain's own benchmarks; see benchmark_scores."""
    conditions = conditions_of(settings)
    system = domain.system_text() if subject.system is None else subject.system
    serve = partial(serving, subject, conditions, settings)
    return benchmark_scores(sets, domain.folder, subject, system, conditions, serve, settings.timeout_minutes)


def questions_for(subject: Subject, tokenizer: Any, domain: Domain) -> list[Question]:
    """All that is asked of one model, under its own system prompt, or under the domain's where it has none.

    Raises PromptsDiffer: they would be put otherwise than the model was trained (earlier turns, which standing items
    have not, are not compared).
    """
    system = domain.system_text() if subject.system is None else subject.system
    for conversation in CONVERSATIONS:
        if not conversation.history:
            trained = as_trained(tokenizer, system, conversation)
            refuse_differing([trained, as_evaluated(tokenizer, system, conversation)])
    items, words = read_items(corrections=subject.who in ("candidate", "champion")), domain_words(domain)
    return questions_of(items, tokenizer, system, words, passages_for(subject, items))


def passages_for(subject: Subject, items: Sequence[EvaluationItem]) -> dict[str, tuple[Passage, ...]]:
    """What the model's own index finds for each item that is answered as a user's question is; {} without an index."""
    if subject.knowledge is None:
        return {}
    knowledge = Knowledge(subject.knowledge, PromptBook(subject.base).count)
    asked = [item for item in items if item.set in ANSWERED]
    hits = knowledge.search([item.prompt for item in asked])
    return {item.id: tuple(hit.passage for hit in found) for item, found in zip(asked, hits, strict=True)}


def as_evaluated(tokenizer: Any, system: str, conversation: Conversation) -> Reading:
    """As OpenCompass is sent a question about an answer's likelihood, and its model splits it again."""
    item = make_item(set="dialogue", prompt=conversation.user, reference=conversation.answer)
    line = rows_of(questions_of([item], tokenizer, system, answering_words(""))[0])[0].text
    prompt, answer = line.split(BOUNDARY)
    return Reading("evaluation", prompt, *(tuple(encode_text(tokenizer, text)) for text in (prompt, answer)))


def load_tokenizer(folder: Path) -> Any:
    """The model's own tokenizer; code that lies beside it is not run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def conditions_of(settings: EvaluateParams) -> Conditions:
    """How evaluations are made on this machine with these settings."""
    from torch import cuda

    device = "cuda" if cuda.is_available() else "cpu"
    return Conditions(
        backend=f"{OPENCOMPASS}/{settings.backend}",
        precision=resolve_precision(settings.precision, {"use_cpu": device == "cpu"}),
        device=device,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        threads=settings.threads,
        lock=lock_digest(settings.backend),
        source=source_digest(settings.backend),
    )


def responses_to(
    questions: Sequence[Question], subject: Subject, settings: EvaluateParams
) -> tuple[list[Response], int]:
    """The response to each question, in order, and how many had to be asked.

    Raises EvaluationError: OpenCompass failed or its results are not whole; nothing of them is kept then.
    """
    conditions = conditions_of(settings)
    keys = [key_of(question, subject.identity, conditions) for question in questions]
    known = {key: found for key, question in zip(keys, questions, strict=True) if (found := find(key, question))}
    missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
    if missing:
        print(f"{subject.who}: {len(known)} responses known, {len(missing)} to ask; starting OpenCompass", flush=True)
        asked = ask(list(missing.values()), subject, conditions, settings)
        for key, response in zip(missing, asked, strict=True):
            keep(key, response)
            known[key] = response
    return [known[key] for key in keys], len(missing)


def ask(
    questions: Sequence[Question], subject: Subject, conditions: Conditions, settings: EvaluateParams
) -> list[Response]:
    """Put the questions to OpenCompass, in a folder of their own under .flywheel; see responses_to."""
    folder = (layout.HOME / "evaluation" / subject.who).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data_sets = data_sets_of(questions)
    with serving(subject, conditions, settings) as model:
        inputs = write_inputs(folder, data_sets, model, conditions)
        run_opencompass(inputs, folder, subject.who, settings.timeout_minutes)
    return read_responses(folder / "runs", subject.who, data_sets, questions)


@contextmanager
def serving(subject: Subject, conditions: Conditions, settings: EvaluateParams) -> Iterator[dict[str, Any]]:
    """OpenCompass's configuration of the model: its own, or that of an engine which serves it within the block.

    Raises EvaluationError: the engine that params.yaml names tells no likelihoods; EngineError: it cannot be started or
    does not take the adapter.
    """
    if settings.backend != "engine":
        end_of_turn = load_tokenizer(subject.base).eos_token_id
        yield local_model(subject, conditions, context_length(subject.base), end_of_turn)
        return
    engine = load_params().engine
    if engine.kind != "vllm":
        raise EvaluationError("evaluate.backend: engine needs engine.kind: vllm, which tells likelihoods")
    engine = engine.model_copy(update={"precision": conditions.precision})
    name = (subject.adapter_digest or BASE)[:16]
    with EngineProcess(engine, subject.base, port=free_port(), name=f"engine-{subject.who}") as process:
        if subject.adapter is not None:
            with Engine(process.url) as client:
                client.load_adapter(name, subject.adapter)
        room = min(context_length(subject.base), engine.max_model_tokens)
        yield engine_model(subject, conditions, room, process.url, name)


def context_length(folder: Path) -> int:
    """How many tokens the model can read at once."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return int(config.get_text_config().max_position_embeddings)


def room_of(subject: Subject, params: Params) -> int:
    """How many tokens are left for a prompt with its answer: an engine may read fewer, an adapter may add its own."""
    room = context_length(subject.base)
    if params.evaluate.backend == "engine":
        room = min(room, params.engine.max_model_tokens)
    if subject.adapter is None:
        return room
    config = json.loads((subject.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return room - int(config.get("num_virtual_tokens") or 0)


def write_evaluation(
    folder: Path,
    subject: Subject,
    settings: EvaluateParams,
    results: Sequence[tuple[Question, Response]],
    benchmarks: Sequence[Score] = (),
) -> list[Score]:
    """Write scores, generated answers and the conditions they were made under; returns the scores.

    `benchmarks` are the scores of the domain's own sets.
    """
    scores = [score for question, response in results for score in scores_of(question, response)]
    right = {score.id: bool(score.value) for score in scores if (score.set, score.metric) == (FACTS, "right")}
    answers = [
        GeneratedAnswer(
            **question.item.model_dump(include={"id", "set", "prompt", "reference"}),
            text=response.text,
            right=right.get(question.item.id),
            passages=None if question.passages is None else tuple(one.source for one in question.passages),
        )
        for question, response in results
        if response.text is not None
    ]
    scores += benchmarks
    domain = load_params().domain
    sets = asked_sets(load_benchmarks(domain) if benchmarks else (), layout.DOMAINS / domain, scores)
    with fresh_directory(folder) as fresh:
        write_jsonl(fresh / "scores.jsonl", scores)
        write_jsonl(fresh / "answers.jsonl", answers)
        own = {"model": subject.identity, "system": subject.system, "tokenizer": tokenizer_digest(subject.base)}
        write_json(fresh / "conditions.json", {**own, **asdict(conditions_of(settings)), "sets": sets})
    return scores


def evaluate_side(who: Who) -> str:
    """Evaluate the candidate; or the champion, and what is measured beside it."""
    said = evaluate(who)
    beside = beside_champion() if who == "champion" else ()
    return ". ".join([said, *(f"{one.capitalize()}: {evaluate(one)}" for one in beside)])


def main() -> None:
    """`python -m tasks.evaluate.run.stage --who candidate|champion`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--who", choices=["candidate", "champion"], required=True)
    who: Who = parser.parse_args().who
    # Ends the child through the `finally` of run_opencompass.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_stage(f"evaluate_{who}", lambda: evaluate_side(who))


if __name__ == "__main__":
    main()
