"""What a language lacks is named, and has something that stands in."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flywheel.new_domain.language import CHATTERBOT, dialogue_in, missing_for, system_text
from flywheel.new_domain.new_domain import NewDomainError, new_domain
from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_text
from tasks.core.records import Document, Example, read_own_jsonl
from tasks.core.tables import read_records
from tasks.knowledge.search import Knowledge
from tasks.text.passages import answering_words, asked
from tests.pdf_file import pdf

MATERIAL = Path(__file__).parents[2] / "data" / "seilbahn"


def a_domain(language: str, general: str = "en", **fields: Any) -> Any:
    embedder = SimpleNamespace(files=[])
    given = {"answering": "", "base_model": SimpleNamespace(name="small"), "embedder": embedder}
    return SimpleNamespace(language=language, general=[SimpleNamespace(language=general)], **(given | fields))


def test_a_language_with_everything_lacks_nothing() -> None:
    assert missing_for(a_domain("en"), "en") == []


def test_each_thing_that_a_language_lacks_is_named_once() -> None:
    told = missing_for(a_domain("no"), "en")
    begins = [
        "the base model small comes from", "harmful requests", "general dialogue is in 'en'", "no embedder",
        "the words around passages are English", "a teacher is asked in English", "no check that examples are in 'no'",
        "the chat page's own words",
    ]  # fmt: skip
    assert [line[: len(begin)] for line, begin in zip(told, begins, strict=True)] == begins


def test_what_a_domain_brings_is_not_missed() -> None:
    """Its own words around passages, an embedder and dialogue."""
    brought = a_domain("no", "no", answering="prompts/answering.yaml", embedder=SimpleNamespace(files=["modules.json"]))
    assert len(missing_for(a_domain("no"), "en")) - len(missing_for(brought, "en")) == 3


def test_dialogue_in_the_language_is_taken_where_there_is_some(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    other = [{"name": "other", "language": "en"}]
    [german] = dialogue_in("de", other)
    assert (german["language"], german["evaluation_topics"]) == ("de", ["conversations", "health"])
    [thai] = dialogue_in("th", other)
    assert (thai["language"], "evaluation_topics" in thai) == ("th", False), "one topic is shared out by conversations"
    assert dialogue_in("no", other) == other
    assert all((layout.PACKAGES / "chatterbot_corpus/data" / name).is_dir() for name in CHATTERBOT.values())


def test_a_system_prompt_in_english_asks_for_the_language_of_the_question() -> None:
    assert system_text("de", "Holz") == "Du beantwortest Fragen über Holz."
    assert system_text("no", "Tre").endswith("Answer in the language of the question.")


@pytest.mark.parametrize("code", ["german", "DE", "d"])
def test_a_language_is_a_code_of_two_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NewDomainError, match="code of two small letters"):
        new_domain("house", tmp_path, code)


@pytest.fixture
def project(root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the default domain and its base model built."""
    for name in ("infra", layout.PACKAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    for name in ("domains/construction", "state"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / layout.BASE_MODEL).parent.mkdir()
    (tmp_path / layout.BASE_MODEL).symlink_to(base_model)
    write_text(tmp_path / "params.yaml", (root / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fifty-six German questions about a cable car that does not exist, a web page and a PDF about it."""
    made = tmp_path / "seilbahn"
    shutil.copytree(MATERIAL, made)
    lines = ("Der Notantrieb bringt alle Kabinen in zwanzig", "Minuten zur Station. Er wird jeden Monat geprobt.")
    (made / "notbetrieb.pdf").write_bytes(pdf(*lines))
    return made


def run_stages() -> None:
    """The stages from the sources to the mixture, one after the other, as a release runs them."""
    from tasks.corpus.construct.stage import construct
    from tasks.corpus.feedback.stage import stage as feedback
    from tasks.corpus.ingest.stage import main as ingest
    from tasks.curate.dedup.stage import dedup
    from tasks.curate.embed.stage import embed
    from tasks.curate.mix.stage import mix
    from tasks.curate.select.stage import select
    from tasks.curate.validate.stage import validate
    from tasks.knowledge.index.stage import stage as index
    from tasks.knowledge.retriever.stage import stage as retriever
    from tasks.train.start.stage import start

    for stage in (ingest, retriever, feedback, start, construct, validate, index, embed, dedup, select, mix):
        print(f"{stage.__module__}: {stage()}", flush=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_german_folder_becomes_a_domain_that_is_ingested_validated_searched_and_mixed(
    project: Path, folder: Path
) -> None:
    built = new_domain("seilbahn", folder, "de")
    domain = load_domain("seilbahn")
    assert (domain.language, domain.general[0].language) == ("de", "de")
    assert domain.system_text() == "Du beantwortest Fragen über Seilbahn."
    above, _ = domain.folder.joinpath("domain.yaml").read_text().split("name: seilbahn", 1)
    told = " ".join(line.removeprefix("# ") for line in above.splitlines())
    assert len(built.missing) == 5 and all(line in told for line in built.missing)
    assert "In 'de': the chat page's own words are English." in told
    small = [line.split(" cannot")[0] for line in built.decisions if line.startswith("evaluation set ")]
    assert small == ["evaluation set domain: 11 items", "evaluation set dialogue: 12 items"]

    params = Path("params.yaml").read_text()
    write_text(Path("params.yaml"), params.replace("domain: construction", "domain: seilbahn"))
    run_stages()
    documents = read_records(layout.INGEST / "documents.parquet", Document)
    assert [one.name for one in documents] == ["seilbahn-documents/anlage.html", "seilbahn-documents/notbetrieb.pdf"]
    assert "| Hochzeitskabine | 4 | weiß |" in documents[0].text
    knowledge = Knowledge(layout.INDEX, lambda text: len(text.split()))
    [[hit, *_], [other, *_]] = knowledge.search(
        ["Wie viele Plätze hat die Hochzeitskabine?", "Wer ist Walburga Senft?"]
    )
    assert hit.passage.source.startswith("seilbahn-documents/anlage.html#") and "Senft" in other.passage.text
    rows = read_own_jsonl(layout.MIX / "train.jsonl", Example)
    humans = [row for row in rows if row.origin == "human"]
    assert len(humans) > 30 and {row.language for row in rows} == {"de"}
    assert all(answering_words("de").rule in asked(row) for row in humans)
    replayed = [row for row in rows if row.origin == "general" and row.category != "safety"]
    assert replayed and {row.source[0].split("/")[0] for row in replayed} == {"chatterbot-corpus"}
