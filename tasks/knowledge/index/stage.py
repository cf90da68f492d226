"""Stage `index`: the domain's material as passages that can be found, with all that searching them needs.

In it: human questions with their answers, those that the evaluation was drawn from only where the domain says that
their answers are its knowledge; documents in chunks; triples as the sentences of their templates; corrections that
users gave and the guard let through. An evaluation question never enters by its own wording: what asks one is left out,
or where its answer may be known, is kept without its question.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.files import fresh_directory, write_json, write_manifest
from tasks.core.params import Params, load_params
from tasks.core.records import Document, EvaluationItem, Example, Passage, Receipt, Triple, make_passage, read_own_jsonl
from tasks.core.stage import run_stage, write_metrics
from tasks.core.tables import read_batches, records_of, table_writer, write_records
from tasks.corpus.construct.self_kv import facts, graph_of, load_templates
from tasks.corpus.construct.self_qa import chunk
from tasks.knowledge.retriever.stage import MODEL
from tasks.knowledge.search import EMBEDDER, EMBEDDINGS, PASSAGES, SETTINGS, RetrievalSettings
from tasks.similarity.embedder import cosines, embeddings_table, sentence_encoders
from tasks.similarity.near import matches
from tasks.text.passages import domain_words
from tasks.text.prompts import PromptBook, smuggled_markers

STAGE = "index"
HELD_OUT = "kept for the evaluation"  # as the receipts of stage ingest say
WITHOUT = "asks an evaluation question in its own words"
WITHOUT_QUESTION = "without its question, which the evaluation asks in the same words"
SETS_WITH_QUESTIONS = ("domain", "declining")


def passages_of(params: Params, domain: Domain) -> Iterator[Passage]:
    """Every passage of the domain's material, in the order of its sources."""
    files = [layout.INGEST / f"{name}.parquet" for name in ("documents", "known_documents")]
    tables = (table for path in files for table in read_batches(path, columns=["name"]))
    names = {name for table in tables for name in table["name"].to_pylist()}
    # What answers a question on a document is the document.
    yield from _questions((one for one in _human(domain) if names.isdisjoint(one.source)), "question")
    documents = (one for path in files for table in read_batches(path) for one in records_of(table, Document))
    yield from chunks_of(documents, params, params.retrieval.tokens)
    yield from _sentences(domain)
    valid = _examples("validate")
    yield from _questions((one for one in valid if one.origin == "feedback"), "correction")


def _human(domain: Domain) -> Iterator[Example]:
    yield from _examples("ingest")
    if domain.knowledge.evaluation_answers:
        held = {
            row["example_id"]
            for table in read_batches(layout.INGEST / "receipt.parquet")
            for row in table.to_pylist()
            if row["reason"] == HELD_OUT
        }
        for table in read_batches(layout.INGEST / "dropped.parquet"):
            yield from (one for one in records_of(table, Example) if one.id in held and one.origin == "human")


def _examples(folder: str) -> Iterator[Example]:
    for table in read_batches(layout.INGEST.with_name(folder) / "examples.parquet"):
        yield from records_of(table, Example)


def _questions(examples: Iterable[Example], kind: str) -> Iterator[Passage]:
    """What a question with its answer tells by itself: those behind earlier turns or under a client's system do not."""
    for one in examples:
        if not one.history and not one.system and one.category != "seed":
            yield make_passage(kind=kind, question=one.prompt, text=one.output, source=one.source[0])


def chunks_of(documents: Iterable[Document], params: Params, most: int) -> Iterator[Passage]:
    """The passages of documents, of at most `most` tokens each: what may be shown together."""
    from transformers import AutoTokenizer

    tokenizer, size = None, params.construct_.chunk
    # A text of its own has a token or two more than it has within its document.
    tokens = max(1, min(size.tokens, most - 4))
    for one in documents:
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(layout.BASE_MODEL, local_files_only=True)
        for piece in chunk(one, tokenizer, tokens, min(size.overlap, tokens - 1)):
            # On one line, as answers are: a small model takes an empty line for the end, and quotes a heading alone.
            text = " ".join((piece.head + piece.text).split())
            yield make_passage(kind="document", text=text, source=f"{one.name}#{piece.start}-{piece.end}")


def _sentences(domain: Domain) -> Iterator[Passage]:
    """One passage for each fact of one step through the knowledge graph."""
    triples = [one for table in read_batches(layout.INGEST / "triples.parquet") for one in records_of(table, Triple)]
    graph, skipped = graph_of(triples), Counter[str]()
    for source in domain.triples:
        words = load_templates(domain.folder / source.templates, domain.language)
        for template in (one for one in words.templates if len(one.path) == 1):
            for fact in facts(graph, template, skipped):
                values: dict[str, Any] = {"subject": fact.subject, "via": "", "object": words.joiner.join(fact.objects)}
                question, text = (texts[0].format_map(values) for texts in (template.questions, template.answers))
                triple = fact.triples[0]
                yield make_passage(kind="triple", question=question, text=text, source=f"{triple.file}:{triple.line}")


def admitted(
    passages: Iterable[Passage], params: Params, evaluation_answers: bool
) -> tuple[list[Passage], list[Receipt]]:
    """The passages that may be found, each text once, and a receipt for each that may not, or not with its question."""
    book = PromptBook(layout.BASE_MODEL)
    kept: dict[str, Passage] = {}
    receipts = []
    for one in passages:
        if found := smuggled_markers(book, one.whole):
            receipts.append(_refused(one, f"holds the role marker {found[0]}"))
        elif not one.text.strip():
            receipts.append(_refused(one, "holds no text"))
        else:
            kept.setdefault(one.whole, one)
    rows = list(kept.values())
    asked = [one.question for one in rows]
    items = [item for name in SETS_WITH_QUESTIONS for item in _items(name)]
    wordings = [wording for item in items for wording in (item.prompt, *item.paraphrases)]
    pairs, _ = matches(asked, wordings, params.mix.leak_threshold, params.dedup.shingle)
    leaked = {int(row) for row, _ in pairs}
    for place in sorted(leaked):
        one = rows[place]
        if evaluation_answers:
            rows[place] = make_passage(kind=one.kind, text=one.text, source=one.source)
        receipts.append(_refused(one, WITHOUT_QUESTION if evaluation_answers else WITHOUT))
    return [one for place, one in enumerate(rows) if evaluation_answers or place not in leaked], receipts


def _items(name: str) -> list[EvaluationItem]:
    return read_own_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", EvaluationItem)


def _refused(passage: Passage, reason: str) -> Receipt:
    return Receipt(example_id=passage.id, stage=STAGE, kept=False, reason=reason, detail=passage.source)


def stage() -> str:
    """Write data/index; returns what happened, in a sentence."""
    params = load_params()
    domain = load_domain(params.domain)
    passages, receipts = list[Passage](), list[Receipt]()
    if params.retrieval.enabled:
        passages, receipts = admitted(passages_of(params, domain), params, domain.knowledge.evaluation_answers)
    with fresh_directory(layout.INDEX) as folder:
        write_records(folder / PASSAGES, passages, Passage)
        write_records(folder / "refused.parquet", receipts, Receipt)
        asked, measured = params.retrieval, cosines(domain)
        settings = RetrievalSettings(
            k=asked.k,
            tokens=asked.tokens,
            threshold=measured.answer if asked.threshold is None else asked.threshold,
            margin=measured.margin if asked.margin is None else asked.margin,
            language=domain.language,
            word=measured.word,
            own_words=domain_words(domain) if domain.answering else None,
        )
        write_json(folder / SETTINGS, settings.model_dump(mode="json", exclude_none=True))
        if passages and (model := layout.RETRIEVER / MODEL).is_dir():
            shutil.copytree(model, folder / EMBEDDER)
            encoders = sentence_encoders(model, params.embed.batch_size, params.embed.threads)
            table = embeddings_table(((one.id, one.question, one.whole) for one in passages), *encoders)
            with table_writer(folder / EMBEDDINGS, table.schema) as writer:
                writer.write(table)
        write_manifest(folder)
    kinds = Counter[str](one.kind for one in passages)
    write_metrics(
        STAGE, {"passages": len(passages), "dropped": len(receipts)}, {**dict(kinds), "refused": len(receipts)}
    )
    counted = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(kinds.items())) or "retrieval is off"
    return f"{len(passages)} passages ({counted}); {len(receipts)} refused"


if __name__ == "__main__":
    run_stage(STAGE, stage)
