"""A smaller student: some of the layers of a model, trained on the answers of a bigger teacher.

The student keeps the first and the last layer of the model and evenly spaced ones between (Sajjad et al. 2023, arXiv
2004.03844, compare which to drop), with embeddings and head as they are; its answers come from the teacher, greedily,
to the questions of the training set (sequence-level distillation: Kim and Rush 2016, arXiv 1606.07947). It is trained
by stage sft's own workers, with sft's settings and every weight open, so that a kill costs no more than there.
Limits: decoder layers that are all alike or listed in the configuration; the teacher's vocabulary plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.domain import Domain
from tasks.core.errors import FlywheelError
from tasks.core.params import Params
from tasks.core.records import Example, make_example
from tasks.corpus.teacher.cache import Ask, Message
from tasks.corpus.teacher.teacher import Teacher
from tasks.text.prompts import messages_of, smuggled_markers
from tasks.train.package.stage import finish_model
from tasks.train.sft.job import SftJob
from tasks.train.sft.stage import describe, with_enough_steps

DISTILLED = "distilled"  # in the source of an example whose answer is the teacher's


class DistilError(FlywheelError):
    """A student cannot be made as asked."""


def kept_layers(layers: int, keep: int) -> list[int]:
    """Which layers of a model stay: the first, the last, and evenly spaced ones between.

    Raises:
        DistilError: not fewer layers than there are, or fewer than two.
    """
    if not 2 <= keep < layers:
        raise DistilError(f"a student of a model with {layers} layers has 2 to {layers - 1}, not {keep}")
    return [round(at * (layers - 1) / (keep - 1)) for at in range(keep)]


def make_student(model: Any, keep: int, target: Path) -> list[int]:
    """Write the student as a model's folder with tokenizer and manifest; returns the layers it keeps.

    Raises:
        DistilError: the model's layers cannot be told apart, or the number is wrong.
    """
    import torch

    decoder: Any = getattr(model, "model", None)
    config = model.config.get_text_config()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise DistilError(
            f"the layers of {type(model).__name__} are not where they are looked for; quantise it instead"
        )
    kept = kept_layers(len(layers), keep)
    decoder.layers = torch.nn.ModuleList([layers[at] for at in kept])
    config.num_hidden_layers = keep
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[at] for at in kept]
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    finish_model(target)
    return kept


def taught(examples: Sequence[Example], system: str, teacher: Teacher, tokens: int, tokenizer: Any) -> list[Example]:
    """The examples with the teacher's answers; those that it did not end, or marked, are left out.

    Raises:
        DistilError: none is left.
        TeacherError: the teacher cannot be asked.
    """
    asks = [Ask(messages=_messages(example, system), max_tokens=tokens, temperature=0.0) for example in examples]
    found = []
    for example, reply in zip(examples, teacher.ask(asks, "distil"), strict=True):
        text = reply.text.strip()
        if reply.error is None and reply.finish_reason == "stop" and text and not smuggled_markers(tokenizer, text):
            found.append(_answered(example, text))
    if not found:
        raise DistilError("the teacher ended none of its answers; raise construct.teacher.max_tokens")
    return found


def _messages(example: Example, system: str) -> tuple[Message, ...]:
    rows = messages_of(example.system or system, example.prompt, example.history)
    return tuple(Message.model_validate(row) for row in rows)


def _answered(example: Example, text: str) -> Example:
    fields = {name: getattr(example, name) for name in ("input", "system", "history", "language", "origin", "category")}
    return make_example(instruction=example.instruction, output=text, source=(*example.source, DISTILLED), **fields)


def describe_student(params: Params, domain: Domain, student: Path, digest: str, data: dict[str, Path]) -> SftJob:
    """The job that trains a student on `data` (train, validation): sft's, with every weight open.

    It begins from the student, also where sft would go on from a champion, as a night does.
    """
    sft = params.sft.model_copy(update={"method": "full"})
    job = describe(params.model_copy(update={"sft": sft}), domain)
    afresh = job.settings.model_copy(update={"learning_rate": sft.learning_rate})
    settings = with_enough_steps(afresh, data["train"].read_bytes().count(b"\n"), job.processes)
    changes = {"stage": "distil", "base_model": student, "base_digest": digest, "data": data, "settings": settings}
    return job.model_copy(update={**changes, "keep_best": True, "plot": None, "start": None, "start_digest": None})
