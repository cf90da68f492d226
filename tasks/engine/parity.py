"""Is what is served what was evaluated? A version's own evaluation, held against what an engine makes of it.

Per probe: the prompt's tokens must be equal (template and special tokens), and the reference answer's loss must agree
within a tolerance (weights, adapter, arithmetic). An engine that tells neither is judged by its greedy answers alone,
which differ a little from one arithmetic to another; the report says so. No model is loaded here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from tasks.core.records import Record
from tasks.engine.client import Engine, EngineError

# Answers of the evaluation may be longer; their beginning tells as much.
ANSWER_TOKENS = 48


class ParityProbe(Record):
    """One evaluated question: `nll` is the reference's loss in nats per token, end of turn included."""

    messages: list[dict[str, str]]
    prompt: str
    prompt_ids: list[int]
    reference: str
    nll: float
    answer: str


class ProbeResult(Record):
    """What came of one probe; None where the engine cannot say. Agreement is a share of characters, 0 to 1."""

    ids_equal: bool | None
    nll_difference: float | None
    agreement: float | None


class ParityReport(Record):
    """Whether an engine answers as was evaluated, and the reason in words."""

    ok: bool
    reason: str
    probes: list[ProbeResult]


def check(
    engine: Engine,
    model: str,
    probes: Sequence[ParityProbe],
    tolerance: float,
    min_agreement: float = 0.5,
    decoding: Mapping[str, float] | None = None,
) -> ParityReport:
    """Put the probes to a model of the engine, its answers drawn by `decoding`.

    `tolerance` bounds a loss's difference, in nats a token; `min_agreement` is the least share of characters alike, in
    the mean, where the engine tells neither tokens nor losses.
    Raises EngineError: the engine failed or refused a probe, or there are no probes.
    """
    if not probes:
        raise EngineError("there is nothing to compare the engine's answers with: no probes")
    results = [_ask(engine, model, probe, decoding) for probe in probes]
    problem, compared = _judge(results, tolerance, min_agreement)
    return ParityReport(ok=not problem, reason=problem or compared, probes=results)


def _ask(engine: Engine, model: str, probe: ParityProbe, decoding: Mapping[str, float] | None) -> ProbeResult:
    """Tokens first: with other tokens the loss says nothing; and a greedy answer only where the loss is not told."""
    ids = engine.prompt_ids(model, probe.messages)
    equal = None if ids is None else ids == probe.prompt_ids
    loss = engine.answer_nll(model, probe.prompt, probe.reference)
    difference = None if loss is None else abs(loss - probe.nll)
    told = equal is not None and difference is not None
    agreement = None
    if not told:
        agreement = agreement_of(engine.chat(model, probe.messages, ANSWER_TOKENS, decoding), probe.answer)
    return ProbeResult(ids_equal=equal, nll_difference=difference, agreement=agreement)


def agreement_of(served: str, evaluated: str) -> float:
    """Share of characters that two answers have in common, in order, up to the shorter's length; 1 if both empty."""
    shorter = min(len(served), len(evaluated))
    if shorter == 0:
        return float(served == evaluated)
    return difflib.SequenceMatcher(None, served[:shorter], evaluated[:shorter], autojunk=False).ratio()


def _judge(results: list[ProbeResult], tolerance: float, min_agreement: float) -> tuple[str, str]:
    """(what is wrong, or nothing; what was compared)."""
    count = len(results)
    if wrong := sum(result.ids_equal is False for result in results):
        return f"{wrong} of {count} prompts become other tokens than in the evaluation (template or tokenizer)", ""
    differences = [result.nll_difference for result in results if result.nll_difference is not None]
    largest = max(differences, default=0.0)
    if not largest <= tolerance:
        return (
            f"an answer's loss differs by {largest:.3f} nats a token from the evaluation's, more than {tolerance}",
            "",
        )
    agreements = [result.agreement for result in results if result.agreement is not None]
    if not agreements:
        return "", f"{count} prompts have equal tokens, losses differ by {largest:.3f} nats a token at most"
    mean = sum(agreements) / len(agreements)
    if mean < min_agreement:
        return f"greedy answers agree in {mean:.0%} of their characters only, {min_agreement:.0%} wanted", ""
    return "", f"the engine tells no tokens or losses; greedy answers agree in {mean:.0%} of their characters"
