"""A working domain from a folder of PDFs, Word files and a table of questions and answers, with nothing asked.

The folder is looked through (tasks/corpus/folder.py), its files are copied into domains/NAME/sources, evaluation
items are drawn and frozen, seeds are drawn from the other questions, and domain.yaml is written with the base model,
benchmarks and general data of a domain that is already here: one in the same language, else the default one. Every
decision is returned, so that a person can change it.

Limits: a table with at least 5 × MIN_EVALUATED different questions is needed, or nothing could be judged; triples are
not looked for, since they need worded templates (docs/domains.md).
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks import layout
from tasks.corpus.folder import Found, language_of, look, texts_of
from tasks.corpus.freeze import alone, candidates, draw_spread, freeze
from tasks.corpus.ingest import Pools, human_examples, item_of, read_frozen
from tasks.domain import Columns, Domain, load_domain
from tasks.errors import FlywheelError
from tasks.files import write_json, write_text
from tasks.params import Params, load_params
from tasks.records import BadLine, EvaluationItem, Example

MIN_EVALUATED, MAX_EVALUATED, EVALUATED_SHARE = 10, 100, 5  # one of five questions is evaluated on
MAX_DIALOGUE, MAX_SAFETY = 120, 60
PROMPT = "prompts/system.txt"
SEEDS = "sources/seeds.jsonl"
MAX_SEEDS, MAX_SEED_CHARACTERS = 120, 800
SYSTEM = {
    "en": "You answer questions about {title}.",
    "zh": "你回答有关{title}的问题。",
    "sv": "Du svarar på frågor om {title}.",
    "de": "Du beantwortest Fragen über {title}.",
    "fr": "Tu réponds à des questions sur {title}.",
    "es": "Respondes preguntas sobre {title}.",
}
CHATTERBOT = {
    "de": "german", "fr": "french", "es": "spanish", "sv": "swedish", "it": "italian", "pt": "portuguese",
    "nl": "dutch", "ru": "russian", "ja": "japanese", "ko": "korean", "zh": "chinese", "en": "english",
}  # fmt: skip


class NewDomainError(FlywheelError):
    """No domain can be built from this folder."""


@dataclass
class Built:
    """A new domain, and what was decided on the way, as sentences."""

    name: str
    language: str
    title: str
    decisions: list[str] = field(default_factory=list)


def new_domain(name: str, folder: Path) -> Built:
    """Build domains/NAME from `folder`; the working directory is the repository root. Nothing is left on failure.

    Raises:
        NewDomainError: the name is taken or no name, or the folder holds too little.
    """
    target = layout.DOMAINS / name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise NewDomainError(f"{name!r}: a domain's name has small letters, digits and _, and begins with a letter")
    if target.exists():
        raise NewDomainError(f"{target} exists already; choose another name or remove it")
    if not folder.is_dir():
        raise NewDomainError(f"{folder} is not a folder")
    found = look(folder)
    if not found.tables:
        causes = "".join(f"\n  {path.name}: {cause}" for path, cause in found.unused.items())
        raise NewDomainError(f"{folder}: no table of questions and answers (CSV, XLSX, JSON) can be read{causes}")
    try:
        return _build(name, folder, found, load_params())
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _build(name: str, folder: Path, found: Found, params: Params) -> Built:
    target = layout.DOMAINS / name
    title, language = _title(name, folder), language_of(texts_of(found))
    copies = _copy(found, folder, target / "sources")
    raw: dict[str, Any] = {"name": name, "title": title, "language": language, "system_prompt": PROMPT}
    raw |= _sources(name, title, found, copies) | _defaults(_model_domain(language, params.domain), language, target)
    system = SYSTEM.get(language, SYSTEM["en"] + " Answer in the language of the question.")
    write_text(target / PROMPT, system.format(title=title) + "\n")
    pools = candidates(_written(target, raw))
    raw["evaluation"] = _sizes(pools, params)
    domain = _written(target, raw)
    write_json(domain.frozen, freeze(domain, pools, params.mix.leak_threshold, params.dedup.shingle))
    seeds = _seeds(domain)
    write_text(target / SEEDS, "".join(json.dumps(seed, ensure_ascii=False) + "\n" for seed in seeds))
    raw["seeds"] = [_source(f"{name}-seeds", title, [SEEDS])]
    return Built(name, language, title, _decisions(_written(target, raw), found, folder, len(seeds)))


def _copy(found: Found, folder: Path, target: Path) -> dict[Path, str]:
    """Copy what is used under names that are no patterns; original → name relative to the domain's folder."""
    target.mkdir(parents=True)
    copies: dict[Path, str] = {}
    for path in [*found.documents, *found.tables]:
        name = re.sub(r"[^\w.-]", "_", "_".join(path.relative_to(folder).parts))
        while f"sources/{name}" in copies.values():
            name = f"_{name}"
        shutil.copyfile(path, target / name)
        copies[path] = f"sources/{name}"
    return copies


def _title(name: str, folder: Path) -> str:
    """The first heading of a README in the folder, or the domain's name in words."""
    for path in sorted(folder.glob("[Rr][Ee][Aa][Dd][Mm][Ee]*")):
        heading = re.search(r"^#\s+(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if heading:
            return heading.group(1).strip()
    return name.replace("_", " ").capitalize()


def _model_domain(language: str, default: str) -> str:
    """The domain whose base model, benchmarks and general data are taken: one of this language, or the default."""
    others = [path.parent.name for path in sorted(layout.DOMAINS.glob("*/domain.yaml"))]
    return next((name for name in [default, *others] if _raw(name).get("language") == language), default)


def _raw(name: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((layout.DOMAINS / name / "domain.yaml").read_text(encoding="utf-8"))
    return value


def _defaults(model: str, language: str, target: Path) -> dict[str, Any]:
    """The sections that do not come from the folder."""
    raw = _raw(model)
    chosen: dict[str, Any] = {key: raw[key] for key in ("base_model", "embedder", "general", "mmlu", "safety")}
    if template := chosen["base_model"].get("chat_template"):
        (target / template).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(layout.DOMAINS / model / template, target / template)
    if raw["language"] != language:
        chosen["embedder"] = {"name": "characters"}
        topics = layout.PACKAGES / "chatterbot_corpus" / "data" / CHATTERBOT.get(language, "")
        if language in CHATTERBOT and topics.is_dir():
            stems = sorted(path.stem for path in topics.glob("*.yml"))
            chosen["general"] = [{**chosen["general"][0], "language": language, "evaluation_topics": stems[::3],
                                  "files": [f"chatterbot_corpus/data/{CHATTERBOT[language]}/*.yml"]}]  # fmt: skip
    chosen["evaluation"] = {"domain": 1, "dialogue": 1, "safety": 1}
    return chosen


def _sources(name: str, title: str, found: Found, copies: dict[Path, str]) -> dict[str, Any]:
    human = [_human(f"{name}-{place}", title, copies[path], columns)
             for place, (path, columns) in enumerate(found.tables.items(), start=1)]  # fmt: skip
    documents = [copies[path] for path in found.documents]
    return {"human": human, "documents": [_source(f"{name}-documents", title, documents)] if documents else []}


def _human(name: str, title: str, file: str, columns: Columns | None) -> dict[str, Any]:
    mapped = {"columns": columns.model_dump(exclude_defaults=True)} if columns else {}
    return {**_source(name, title, [file]), **mapped}


def _source(name: str, title: str, files: list[str]) -> dict[str, Any]:
    return {"name": name, "files": files, "licence": "not stated", "attribution": title}


def _written(target: Path, raw: dict[str, Any]) -> Domain:
    """domain.yaml written, read again and checked."""
    head = "# Written by `flywheel new-domain`; every line may be changed. docs/domains.md explains them.\n"
    body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=110)
    write_text(target / "domain.yaml", head + body)
    return load_domain(target.name)


def _sizes(pools: Pools, params: Params) -> dict[str, int]:
    """How large the evaluation sets can be."""
    questions = len(alone(pools["domain"], params.mix.leak_threshold, params.dedup.shingle))
    size = min(MAX_EVALUATED, questions // EVALUATED_SHARE)
    if size < MIN_EVALUATED:
        raise NewDomainError(
            f"the tables hold {questions} different questions; {MIN_EVALUATED * EVALUATED_SHARE} are needed, so that "
            f"one in {EVALUATED_SHARE} can be kept for the evaluation"
        )
    dialogue, safety = len(pools["dialogue"]), len(pools["safety"])
    return {"domain": size, "dialogue": min(MAX_DIALOGUE, dialogue), "safety": min(MAX_SAFETY, safety // 2)}


def _seeds(domain: Domain) -> list[dict[str, str]]:
    """Questions that are not evaluated on, spread over their categories."""
    frozen = set(read_frozen(domain)["domain"])
    pool: dict[str, tuple[EvaluationItem, Example]] = {}
    for example, receipt in human_examples(domain, []):
        item = item_of("domain", example)
        short = len(example.prompt) + len(example.output) <= MAX_SEED_CHARACTERS
        if receipt.kept and short and item.id not in frozen and not (example.history or example.system):
            pool.setdefault(item.id, (item, example))
    drawn = draw_spread([item for item, _ in pool.values()], min(MAX_SEEDS, len(pool)))
    chosen = [pool[item.id][1] for item in drawn]
    return [{"instruction": e.instruction, "input": e.input, "output": e.output} for e in chosen]


def _decisions(domain: Domain, found: Found, folder: Path, seeds: int) -> list[str]:
    bad: list[BadLine] = []
    rows = sum(1 for _ in human_examples(domain, bad))
    said = [
        f"language: {domain.language}",
        f"title: {domain.title}",
        f"general dialogue: {domain.general[0].language}, {domain.evaluation.dialogue} exchanges to evaluate on; "
        "safety and MMLU as in the domain they come from",
        f"base model: {domain.base_model.name} ({domain.base_model.licence}); embedder: {domain.embedder.name}",
    ]
    for path, columns in found.tables.items():
        mapped = f"question in {columns.question!r}, answer in {columns.answer!r}" if columns else "Alpaca or ShareGPT"
        said.append(f"questions: {path.relative_to(folder)} ({mapped})")
    said += [f"document: {path.relative_to(folder)}" for path in found.documents]
    said += [f"not used: {path.relative_to(folder)}: {cause}" for path, cause in found.unused.items()]
    said += [f"{rows} questions, {len(bad)} rows unreadable; {domain.evaluation.domain} frozen for the evaluation",
             f"{seeds} seeds drawn from the others into sources/seeds.jsonl: check them by hand",
             "licence: not stated; write it into domain.yaml before anything is published"]  # fmt: skip
    return said
