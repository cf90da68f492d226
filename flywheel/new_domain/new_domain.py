"""A working domain from a folder of PDFs, Word files and a table of questions and answers, with nothing asked.

The base model, benchmarks and general data are those of a domain that is here: one in the same language, else the
default one. The first stages of a release are tried. Limits: at least 5 × MIN_EVALUATED different questions are needed;
triples are not looked for, since they need worded templates (docs/domains.md).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flywheel.new_domain.folder import Found, Use, language_of, look, texts_of
from flywheel.new_domain.freeze import candidates, draw_spread, freeze
from flywheel.new_domain.language import dialogue_in, missing_for, system_text
from tasks.core import layout
from tasks.core.domain import Columns, Domain, load_domain, own_files
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json, write_manifest, write_text
from tasks.core.params import Params, load_params
from tasks.core.records import EvaluationItem, Example
from tasks.core.tables import read_records
from tasks.corpus.ingest.stage import Pools, human_examples, ingest, item_of, read_frozen
from tasks.curate.validate.stage import EXAMPLES, validate
from tasks.evaluate.gate.scores import ids_of
from tasks.evaluate.gate.sizes import too_small
from tasks.evaluate.scoring.questions import read_items
from tasks.similarity.near import duplicate_groups

MIN_EVALUATED, MAX_EVALUATED, EVALUATED_SHARE = 10, 100, 5  # one of five questions is evaluated on
MAX_DIALOGUE, MAX_SAFETY = 120, 100
PROMPT = "prompts/system.txt"
SEEDS = "sources/seeds.jsonl"
MAX_SEEDS, MAX_SEED_CHARACTERS = 120, 800
MAX_SHOWN = 200  # characters of a question in a refusal


class NewDomainError(FlywheelError):
    """No domain can be built from this folder."""


@dataclass
class Built:
    """A new domain, what was decided on the way (sentences), each file's use, and what to do next (lines).

    `missing` is what its language lacks, in sentences.
    """

    name: str
    language: str
    title: str
    decisions: list[str]
    files: list[dict[str, Any]]
    missing: list[str]
    next: list[str]


def new_domain(name: str, folder: Path, language: str = "") -> Built:
    """Build domains/NAME from `folder`; the working directory is the repository root. Nothing is left on failure.

    `language` is its ISO 639-1 code; without one it is told from the texts.

    Raises:
        NewDomainError: the name is taken or no name, or the folder holds too little.
        TrialError: a release of the domain would stop.
    """
    target = layout.DOMAINS / name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise NewDomainError(f"{name!r}: a domain's name has small letters, digits and _, and begins with a letter")
    if target.exists():
        raise NewDomainError(f"{target} exists already; choose another name or remove it")
    if not folder.is_dir():
        raise NewDomainError(f"{folder} is not a folder")
    if not re.fullmatch(r"([a-z]{2})?", language):
        raise NewDomainError(f"{language!r}: a language is a code of two small letters (ISO 639-1), such as de")
    found = look(folder)
    if not found.tables:
        causes = "".join(f"\n  {line}" for line in _uses(found, folder))
        raise NewDomainError(f"{folder}: no table of questions and answers (CSV, XLSX, JSON) can be read{causes}")
    try:
        return _build(name, folder, found, load_params(), language)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _build(name: str, folder: Path, found: Found, params: Params, language: str) -> Built:
    target = layout.DOMAINS / name
    title, language = _title(name, folder), language or language_of(texts_of(found))
    model = _model_domain(language, params.domain)
    raw: dict[str, Any] = {"name": name, "title": title, "language": language, "system_prompt": PROMPT}
    defaults = _defaults(model, language, target)
    raw |= _sources(name, title, found, _copy(found, folder, target)) | defaults
    write_text(target / PROMPT, system_text(language, title) + "\n")
    domain = _written(target, raw)
    pools, missing = candidates(domain), missing_for(domain, _raw(model)["language"])
    raw["evaluation"] = _sizes(pools, params, _uses(found, folder))
    domain = _written(target, raw, missing)
    write_json(domain.frozen, freeze(domain, pools, params.mix.leak_threshold, params.dedup.shingle))
    if seeds := _seeds(domain):
        write_text(target / SEEDS, "".join(json.dumps(seed, ensure_ascii=False) + "\n" for seed in seeds))
        raw["seeds"] = [_source(f"{name}-seeds", title, [SEEDS])]
        domain = _written(target, raw, missing)
    decisions = _decisions(domain, found, folder, len(seeds)) + tried(name)
    return Built(name, language, title, decisions, _files(found, folder), missing, _next(domain, params))


def _copy(found: Found, folder: Path, target: Path) -> dict[Path, str]:
    """Copy what is used under names that are no patterns; original → name relative to the domain's folder."""
    (target / "sources").mkdir(parents=True, exist_ok=True)
    copies: dict[Path, str] = {}
    for path in [*found.documents, *found.tables]:
        name = re.sub(r"[^\w.-]", "_", "_".join(path.relative_to(folder).parts))
        while (target / "sources" / name).exists():
            name = f"_{name}"
        shutil.copyfile(path, target / "sources" / name)
        copies[path] = f"sources/{name}"
    return copies


def _title(name: str, folder: Path) -> str:
    """The first heading of a README in the folder that is UTF-8, as documents are; or the domain's name in words."""
    for path in sorted(folder.glob("[Rr][Ee][Aa][Dd][Mm][Ee]*")):
        with contextlib.suppress(UnicodeDecodeError, IsADirectoryError):
            if heading := re.search(r"^#\s+(.+)$", path.read_text(encoding="utf-8-sig"), re.MULTILINE):
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
    """The sections that do not come from the folder, every file they name copied along."""
    raw = _raw(model)
    chosen: dict[str, Any] = {
        key: raw[key] for key in ("base_model", "embedder", "general", "mmlu", "safety") if key in raw
    }
    if place := chosen["base_model"].get("path"):  # below the folder of the domain it comes from
        chosen["base_model"] = {**chosen["base_model"], "path": str((layout.DOMAINS / model / place).resolve())}
    if raw["language"] != language:
        chosen["embedder"] = {"name": "characters"}
        chosen["general"] = dialogue_in(language, raw["general"])
    for path in own_files(chosen, layout.DOMAINS / model):
        copy = target / path.relative_to(layout.DOMAINS / model)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    chosen["knowledge"] = {"evaluation_answers": True}
    chosen["evaluation"] = {"domain": 1, "dialogue": 1, **({"safety": 1} if "safety" in chosen else {})}
    return chosen


def _sources(name: str, title: str, found: Found, copies: dict[Path, str]) -> dict[str, Any]:
    human = [
        _source(f"{name}-{place}", title, [copies[path]]) | _mapped(use.columns)
        for place, (path, use) in enumerate(found.tables.items(), start=1)
    ]
    documents = [copies[path] for path in found.documents]
    return {"human": human, "documents": [_source(f"{name}-documents", title, documents)] if documents else []}


def _mapped(columns: Columns | None) -> dict[str, Any]:
    return {"columns": columns.model_dump(exclude_defaults=True)} if columns else {}


def _source(name: str, title: str, files: list[str]) -> dict[str, Any]:
    return {"name": name, "files": files, "licence": "not stated", "attribution": title}


def _written(target: Path, raw: dict[str, Any], missing: Sequence[str] = ()) -> Domain:
    """domain.yaml written, read again and checked; what its language lacks stands above."""
    head = "# Written by `flywheel new-domain`; every line may be changed. docs/domains.md explains them.\n"
    told = (line for one in missing for line in textwrap.wrap(f"In {raw['language']!r}: {one}.", 110))
    head += "".join(f"# {line}\n" for line in told)
    body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=110)
    write_text(target / "domain.yaml", head + body)
    return load_domain(target.name)


def _sizes(pools: Pools, params: Params, uses: list[str]) -> dict[str, int]:
    """How large the evaluation sets can be; `uses` says of each file what was used, for the refusal."""
    asked = [item.prompt for item in pools["domain"]]
    groups = duplicate_groups(asked, params.mix.leak_threshold, params.dedup.shingle)
    apart = [*Counter(groups).values()].count(1)
    size = min(MAX_EVALUATED, apart // EVALUATED_SHARE)
    if size < MIN_EVALUATED:
        near, needed = "", f"{MIN_EVALUATED * EVALUATED_SHARE}"
        if twin := next((place for place, first in enumerate(groups) if place != first), 0):
            pair = " and ".join(repr(asked[place][:MAX_SHOWN]) for place in (groups[twin], twin))
            near = f", {apart} of them near no other ({pair} are near one another: add some about other things)"
            needed += " such"
        raise NewDomainError(
            f"the tables hold {len({*asked})} different questions{near}; {needed} are needed, so that "
            f"one in {EVALUATED_SHARE} can be kept for the evaluation" + "".join(f"\n  {line}" for line in uses)
        )
    dialogue, safety = len(pools["dialogue"]), len(pools["safety"])
    sizes = {"domain": size, "dialogue": min(MAX_DIALOGUE, dialogue)}
    return sizes | ({"safety": min(MAX_SAFETY, safety // 2)} if safety else {})


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
    return [
        f"language: {domain.language}",
        f"title: {domain.title}",
        f"general dialogue: {domain.general[0].language}, {domain.evaluation.dialogue} exchanges to evaluate on; "
        "safety and MMLU as in the domain they come from",
        f"base model: {domain.base_model.name} ({domain.base_model.licence}); embedder: {domain.embedder.name}",
        *_uses(found, folder),
        f"{sum(use.rows for use in found.tables.values())} questions; "
        f"{domain.evaluation.domain} frozen for the evaluation",
        f"{seeds} seeds drawn from the others into sources/seeds.jsonl: check them by hand"
        if seeds
        else "no seeds: every question is long, or stands in a conversation or under a system text",
        "answers to the frozen questions may be found by the model, as a help desk's may; for an exam write "
        "knowledge: {evaluation_answers: false} into domain.yaml",
        "licence: not stated; write it into domain.yaml before anything is published",
    ]


def _files(found: Found, folder: Path) -> list[dict[str, Any]]:
    """Every file of the folder: what it is used as, and what of it is not used, with counts and causes."""
    used = [("questions", path, use) for path, use in found.tables.items()]
    used += [("documents", path, use) for path, use in found.documents.items()]
    used += [("", path, Use(0, causes=[cause])) for path, cause in found.unused.items()]
    return [
        {
            "file": path.relative_to(folder).as_posix(),
            "used_as": kind,
            "rows": use.rows,
            "columns": _mapped(use.columns).get("columns", {}),
            "encoding": use.encoding or "UTF-8",
            "unused_columns": dict(use.unused),
            "not_used": use.causes,
        }
        for kind, path, use in used
    ]


def _uses(found: Found, folder: Path) -> list[str]:
    """The same for people, as lines."""
    lines = []
    for file in _files(found, folder):
        if not file["used_as"]:
            lines.append(f"not used: {file['file']}: {file['not_used'][0]}")
            continue
        columns = ", ".join(f"{key} in {name!r}" for key, name in file["columns"].items())
        how = f" ({columns or 'Alpaca or conversations'})" if file["used_as"] == "questions" else ""
        lines.append(f"{file['used_as']}: {file['file']}: {file['rows']}{how}")
        if file["encoding"] != "UTF-8":
            lines.append(f"  it is no UTF-8 and was read as {file['encoding']}: see that its letters are right")
        lines += [f"  not read: {name!r} ({rows} rows)" for name, rows in file["unused_columns"].items()]
        lines += [f"  {cause}" for cause in file["not_used"]]
    return lines


def _next(domain: Domain, params: Params) -> list[str]:
    """What to do before the first release: commands, and remarks behind #."""
    source = domain.base_model
    lines = [f"sed -i 's/^domain:.*/domain: {domain.name}/' params.yaml"]
    if source.terms and source.terms not in params.accepted_terms:
        places = (source.terms_file and str(layout.PACKAGES / source.terms_file), source.licence_url)
        terms = " or ".join(filter(None, places))
        accepted = ", ".join([*params.accepted_terms, source.terms])
        lines += [f"# {source.name} has terms of its own: {terms}. To accept them:",
                  f"sed -i 's/^accepted_terms:.*/accepted_terms: [{accepted}]/' params.yaml"]  # fmt: skip
    return [*lines, "make run"]


class TrialError(FlywheelError):
    """A stage would refuse the domain."""


def tried(name: str) -> list[str]:
    """Run ingest and validate on domains/NAME; nothing of the checkout is changed.

    Returns:
        What happened, as sentences.

    Raises:
        TrialError: a stage refuses the domain; the words are the stage's.
    """
    root = Path.cwd()
    settings = re.sub(r"^domain:.*$", f"domain: {name}", Path("params.yaml").read_text(encoding="utf-8"), flags=re.M)
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for path in (layout.DOMAINS, layout.PACKAGES, Path("infra")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(root / path)
        write_text(Path("params.yaml"), settings)
        try:
            tried = [f"tried: ingest: {ingest(load_domain(name))}"]
            tried += too_small(ids_of(read_items()), load_params().gate)
            EXAMPLES.parent.mkdir(parents=True)
            EXAMPLES.symlink_to(Path.cwd() / layout.INGEST / "examples.parquet")
            write_text(layout.FEEDBACK / "preferences.jsonl", "")  # nobody has chosen yet
            return [*tried, _validated(load_domain(name), root)]
        except FlywheelError as error:
            hint = "what validate refuses hangs on the bounds under `validate` in params.yaml"
            raise TrialError(f"a release of this domain would stop: {error}\n({hint})") from error


def _validated(domain: Domain, root: Path) -> str:
    params = load_params()
    if domain.base_model.terms in ("", *params.accepted_terms):
        _tokenizer(domain, root / layout.BASE_MODEL)
        return f"tried: validate: {validate()}"
    rows, least = len(read_records(EXAMPLES, Example)), params.validate_.min_rows
    if rows < least:
        raise TrialError(f"{rows} rows are left, fewer than validate.min_rows = {least}")
    return (
        f"not tried: validate, whose bounds are in tokens of {domain.base_model.name}: its terms are not accepted; "
        f"{rows} rows are left, and validate.min_rows = {least}"
    )


def _tokenizer(domain: Domain, built: Path) -> None:
    """Put the base model's tokenizer where validate looks for it."""
    from tasks.train.base_model.settle import own_template
    from tasks.train.base_model.stage import assembled, checked_files, load_tokenizer
    from tasks.train.base_model.take import entry_digest, made_for, take

    source = domain.base_model
    if not source.files:
        if made_for(built) == entry_digest(source):
            layout.BASE_MODEL.symlink_to(built)
        else:
            take(domain, layout.BASE_MODEL)
        return
    with contextlib.suppress(FileNotFoundError):
        if source.sha256 in (built / "NOTICE.txt").read_text(encoding="utf-8"):
            layout.BASE_MODEL.symlink_to(built)
            return
    with assembled(checked_files(domain)) as file:
        tokenizer = load_tokenizer(file)
    own_template(tokenizer, domain)
    tokenizer.save_pretrained(layout.BASE_MODEL)
    write_manifest(layout.BASE_MODEL)
