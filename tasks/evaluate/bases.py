"""Which base model to begin from: candidates asked the domain's own questions before anything is trained.

Losses a token cannot be compared between tokenizers: a reference's loss is taken over its characters instead (the
bits-per-character convention; Gao et al. 2020, arXiv 2101.00027, section 3.1).
Limits: it says which model answers best before tuning; tuning can reorder models that are close.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from tasks.core import layout
from tasks.core.base_model import BaseModelSource, name_of, shipped_template
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import ManifestError, digest_of, verify_manifest
from tasks.core.intervals import Interval, paired_interval
from tasks.core.params import Params
from tasks.core.records import EvaluationItem, Score
from tasks.core.settings import Section, SettingsError
from tasks.evaluate.run.stage import load_tokenizer, responses_to
from tasks.evaluate.scoring.questions import questions_of, scores_of
from tasks.evaluate.scoring.subject import Subject
from tasks.text.passages import domain_words
from tasks.train.base_model import stage as base_model
from tasks.train.base_model.take import entry_digest, made_for

BASES = Path("infra/bases.yaml")
FOLDER = layout.HOME / "bases"
SUPPORT = "domain"  # the set that a recommendation goes by


class BasesError(FlywheelError):
    """A base model is not known here, or nothing can be recommended."""


class KnownBase(Section):
    """An entry of infra/bases.yaml."""

    domain: str = ""
    source: BaseModelSource | None = None
    languages: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A base model that was asked. `losses`: nats a character of each reference, by item id; `context` in tokens."""

    name: str
    parameters: int
    licence: str
    languages: tuple[str, ...]
    means: Mapping[str, float]
    losses: Mapping[str, float]
    estimate: Mapping[str, Any]
    context: int = 0

    @property
    def loss(self) -> float:
        """Mean nats a character over the domain's references."""
        return math.fsum(self.losses.values()) / len(self.losses)


def known_bases(root: Path = Path()) -> dict[str, KnownBase]:
    """Base models by name: those of infra/bases.yaml, and those that the domains here name themselves."""
    path = root / BASES
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {name: KnownBase.model_validate(entry) for name, entry in (entries or {}).items()}
    for file in sorted((root / layout.DOMAINS).glob("*/domain.yaml")):
        name = name_of(yaml.safe_load(file.read_text(encoding="utf-8"))["base_model"])
        found.setdefault(name, KnownBase(domain=file.parent.name))
    return found


def domain_of(name: str, known: Mapping[str, KnownBase], here: Domain) -> Domain:
    """A domain that has this base model, else the present one with it. Raises BasesError: it is not known."""
    if name not in known:
        raise BasesError(f"no base model {name!r} is described in {BASES} or a domain; known: {', '.join(known)}")
    entry = known[name]
    if entry.source is not None:
        return here.model_copy(update={"base_model": entry.source})
    try:
        return load_domain(entry.domain)
    except SettingsError as error:
        raise BasesError(f"{name}: {error}") from None


def prepare(name: str, owner: Domain, here: Domain, accepted: Sequence[str]) -> Path:
    """The folder with the base model in safetensors, converted on first use; data/base_model where it is that one.

    Raises BaseModelError: its licence's terms are not accepted in params.yaml, or its files are not those pinned.
    """
    base_model.check_terms(owner, accepted)
    source = owner.base_model
    if source == here.base_model and converted_from(owner, layout.BASE_MODEL):
        return layout.BASE_MODEL
    folder = FOLDER / f"{name}-{digest_of(source.model_dump(mode='json'))[:12]}"
    if not converted_from(owner, folder):
        base_model.convert(owner, folder, accepted)
    return folder


def converted_from(owner: Domain, folder: Path) -> bool:
    """Whether a folder is whole and its notice and chat template are those of the domain's base model of now."""
    source, files = owner.base_model, owner.paths(owner.base_model)
    wanted = {"NOTICE.txt": base_model.notice(source, files[0])} if files else {}
    try:
        verify_manifest(folder)
        if source.chat_template and not shipped_template(source.chat_template):
            wanted["chat_template.jinja"] = (owner.folder / source.chat_template).read_text(encoding="utf-8")
        if not source.files and made_for(folder) != entry_digest(source):
            return False
        here = bool(files) or not source.files
        return here and all((folder / name).read_text("utf-8") == text for name, text in wanted.items())
    except (ManifestError, OSError):
        return False


def ask_base(name: str, folder: Path, items: list[EvaluationItem], params: Params, system: str) -> list[Score]:
    """The scores of one base model on these items, by the run that releases are judged by; known ones are kept."""
    digest = verify_manifest(folder)
    subject = Subject(f"base-{name}", None, digest, folder, digest)
    words = domain_words(load_domain(params.domain))
    questions = questions_of(items, load_tokenizer(folder), system, words)
    responses, _ = responses_to(questions, subject, params.evaluate)
    return [score for pair in zip(questions, responses, strict=True) for score in scores_of(*pair)]


def losses_of(name: str, scores: Sequence[Score], items: Sequence[EvaluationItem]) -> dict[str, float]:
    """Item id → loss of its reference, in nats a character. Raises BasesError: there is none."""
    characters = {item.id: len(item.reference) for item in items if item.set == SUPPORT}
    losses = {
        score.id: score.value * (score.tokens or 1) / characters[score.id]
        for score in scores
        if score.set == SUPPORT and score.metric == "nll" and characters.get(score.id)
    }
    if not losses:
        raise BasesError(f"{name} has no losses on the domain's references; nothing can be compared")
    return losses


def against(best: Candidate, other: Candidate, params: Params) -> Interval:
    """How much less the best loses a character than another, item by item; above 0 it is better."""
    ids = [item for item in best.losses if item in other.losses]
    theirs, own = ([candidate.losses[item] for item in ids] for candidate in (other, best))
    return paired_interval(theirs, own, level=params.gate.level, resamples=params.gate.resamples, seed=params.seed)


def recommend(candidates: Sequence[Candidate], language: str, params: Params) -> tuple[str, list[str]]:
    """The base model to take, and why, in sentences.

    The best on the domain's references among those whose training fits here, or a smaller one that is not shown to be
    worse (the interval of the difference reaches 0). Raises BasesError: none fits here.
    """
    fitting = [candidate for candidate in candidates if candidate.estimate["fits"]]
    if not fitting:
        raise BasesError("none of these base models can be trained here: " + _why_not(candidates))
    best = min(fitting, key=lambda candidate: candidate.loss)
    reasons = [f"{best.name} predicts the domain's references best: {best.loss:.3f} nats a character"]
    chosen = best
    for other in sorted(fitting, key=lambda candidate: candidate.parameters):
        if other is best or other.parameters >= chosen.parameters:
            continue
        gap = against(best, other, params)
        if gap.low <= 0:
            chosen = other
            reasons.append(f"{other.name} is smaller and not shown to be worse ({_interval(gap)})")
    for other in fitting:
        if other is not chosen and other.parameters != chosen.parameters:
            reasons.append(f"against {other.name}: {_interval(against(chosen, other, params))} nats a character less")
    reasons.append(f"it may be used under {chosen.licence}")
    if chosen.languages and language not in chosen.languages:
        reasons.append(f"its publisher does not name the domain's language {language!r}: read its answers yourself")
    left = [candidate for candidate in candidates if not candidate.estimate["fits"]]
    return chosen.name, reasons + ([f"left out: {_why_not(left)}"] if left else [])


def _interval(gap: Interval) -> str:
    return f"{gap.estimate:.3f} ({gap.low:.3f} to {gap.high:.3f})"


def _why_not(candidates: Sequence[Candidate]) -> str:
    return "; ".join(f"{candidate.name}: {', '.join(candidate.estimate['reasons'])}" for candidate in candidates)
