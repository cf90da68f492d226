"""An engine for one evaluation, where evaluate.backend is `engine`: started for it, with the adapter to be evaluated.

It is the stage's own engine and not the platform's, so that a score depends on files and settings alone.
Limits: vLLM only, because likelihoods are needed; other items in a batch move a loss in its last digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.core.params import EvaluateParams, load_params
from tasks.core.processes import free_port
from tasks.engine.client import BASE, Engine
from tasks.engine.process import EngineProcess
from tasks.evaluate.run.opencompass_config import engine_model, local_model
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.run.score_cache import Conditions
from tasks.evaluate.scoring.subject import Subject


@contextmanager
def serving(
    subject: Subject, conditions: Conditions, settings: EvaluateParams, max_tokens: int, end_of_turn: int
) -> Iterator[dict[str, Any]]:
    """OpenCompass's configuration of the model: its own, or that of an engine which serves it within the block.

    Raises EvaluationError: the engine that params.yaml names tells no likelihoods; EngineError: it cannot be started or
    does not take the adapter.
    """
    if settings.backend != "engine":
        yield local_model(subject, conditions, max_tokens, end_of_turn)
        return
    engine = load_params().engine
    if engine.kind != "vllm":
        raise EvaluationError("evaluate.backend: engine needs engine.kind: vllm, which tells likelihoods")
    engine = engine.model_copy(update={"precision": settings.precision})
    name = (subject.adapter_digest or BASE)[:16]
    with EngineProcess(engine, subject.base, port=free_port(), name=f"engine-{subject.who}") as process:
        if subject.adapter is not None:
            with Engine(process.url) as client:
                client.load_adapter(name, subject.adapter)
        yield engine_model(subject, conditions, min(max_tokens, engine.max_model_tokens), process.url, name)
