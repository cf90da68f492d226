"""The model card of a package: what it is, from what, how; Hugging Face's front matter on top. No scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.base_model import told
from tasks.core.domain import Domain
from tasks.core.package import Kind
from tasks.core.params import Params
from tasks.core.training_params import TrainingParams

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
STAGES = {"pretrain": "Continued pretraining", "sft": "Supervised fine-tuning, loss on the answers only"}
KINDS = {
    "adapter": "A LoRA adapter over {base}",
    "weights": "Whole weights made from {base}",
    "nothing": "Virtual tokens over {base}, which no engine of this project serves,",
}


def counted(stage: str) -> dict[str, Any]:
    """What a training stage counted; empty where it did not run."""
    path = layout.DETAILS / f"{stage}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if found.get("steps") else {}


def attributions(domain: Domain) -> list[str]:
    """One line for each source of data; one that gives documents and triples stands here once."""
    kinds = (
        domain.human,
        domain.seeds,
        domain.documents,
        domain.triples,
        domain.general,
        [domain.safety] if domain.safety else [],
    )
    sources = [item for kind in kinds for item in kind]
    lines = [f"- {s.attribution} (licence {s.licence}{', ' + s.url if s.url else ''})" for s in sources]
    return list(dict.fromkeys(lines))


def how(params: Params, stage: str, training: dict[str, Any]) -> str:
    """One stage's method as a sentence; empty where it did not run."""
    if not training:
        return ""
    settings: TrainingParams = getattr(params, stage)
    name = STAGES.get(stage) or f"Alignment by {params.align.alignment}"
    section = params.methods.of(settings.method).model_dump()
    listed = {key: "/".join(map(str, value)) if isinstance(value, list) else value for key, value in section.items()}
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in listed.items())
    return (
        f"{name}. Method {settings.method} ({words}): {training.get('trainable_parameters', 0):,} of "
        f"{training.get('parameters', 0):,} parameters. AdamW, learning rate {settings.learning_rate} with cosine "
        f"decay, {training['steps']} steps, {settings.precision}, seed {params.seed}."
    )


def model_card(params: Params, domain: Domain, kind: Kind) -> str:
    """The card's text in Markdown."""
    from jinja2 import Environment

    source = told(domain.base_model)
    none = dict.fromkeys(("examples", "tokens", "epochs", "answer_tokens"), 0)
    methods = [how(params, stage, counted(stage)) for stage in ("pretrain", "sft", "align")]
    template = Environment(trim_blocks=True, keep_trailing_newline=True).from_string(  # noqa: S701 - Markdown
        TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(
        domain=domain,
        source=source,
        kind=kind,
        what=KINDS[kind.served_as].format(base=source.name),
        sft=none | counted("sft"),
        attributions=attributions(domain),
        methods=[text for text in methods if text],
    )
