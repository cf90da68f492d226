"""Deduplication and leak guard on planted rows: what each pass finds, what it drops wrongly, and what leaks pass.

Run by `make bench`. The rows are tests/planted.py's. Each language goes with the embedder that a domain in it has.
"""

from __future__ import annotations

from itertools import starmap

from tasks.core.domain import Domain, EmbedderSource, load_domain
from tasks.core.params import Params, load_params
from tasks.core.records import Example, make_item
from tasks.core.tables import table_of
from tasks.curate.dedup.stage import deduplicate
from tasks.similarity.embedder import Embeddings, cosines, embed_texts, question_text, whole_text
from tasks.similarity.leaks import LeakGuard, LeakThresholds
from tests.bench.table import show
from tests.planted import Found, Kind, Planted, among, measure, read_planted

CHARACTERS = EmbedderSource(name="characters")
# Each language with the embedder that a domain in it has; Chinese also with what needs no package.
ROWS = [("en", "construction", None), ("zh", "construction", CHARACTERS), ("zh", "traffic_law", None)]
KINDS: tuple[Kind, ...] = ("exact", "near", "paraphrase")


def embeddings_of(examples: list[Example], domain: Domain, params: Params) -> Embeddings:
    """The examples' embeddings, questions and wholes encoded together."""
    count = len(examples)
    texts = [question_text(e) for e in examples] + [whole_text(e) for e in examples]
    vectors = embed_texts(texts, domain, params.embed)
    return Embeddings([example.id for example in examples], vectors[:count], vectors[count:])


def passed_leaks(
    rows: list[Planted], embeddings: Embeddings, domain: Domain, params: Params
) -> tuple[int, int, int, int]:
    """With the base rows as items: leaks planted, passed, other rows and how many of these are kept out."""
    bases = {row.of: row for row in rows if row.kind == "base"}
    items = [make_item(set="domain", prompt=row.question, reference=row.answer) for row in bases.values()]
    question, whole = embeddings.rows([row.example().id for row in bases.values()])
    guard = LeakGuard(
        items,
        Embeddings([item.id for item in items], question, whole),
        LeakThresholds(params.mix.leak_threshold, cosines(domain).leak, params.dedup.shingle),
    )
    tried = [row for row in rows if row.kind != "base"]
    found = guard.check([row.example() for row in tried], embeddings)
    copies = [leak for row, leak in zip(tried, found, strict=True) if row.of in bases]
    others = [leak for row, leak in zip(tried, found, strict=True) if row.of not in bases]
    return len(copies), copies.count(None), len(others), len(others) - others.count(None)


def measure_kind(planted: list[Planted], kind: Kind, embeddings: Embeddings, domain: Domain, params: Params) -> Found:
    """How one kind of copies fares."""
    chosen = among(planted, kind)
    examples = [row.example() for row in chosen]
    rows = [table_of(examples, Example)]
    _, verdicts = deduplicate(lambda: rows, embeddings, cosines(domain).same, params.dedup)
    return measure(chosen, verdicts.keeper.tolist(), kind)


def row_of(language: str, name: str, embedder: EmbedderSource | None) -> tuple[str, ...]:
    """One row of the table: rows in a language, with a domain's embedder or another one."""
    params, domain = load_params(), load_domain(name)
    domain = domain.model_copy(update={"embedder": embedder or domain.embedder})
    rows = [row for row in read_planted() if row.language == language]
    embeddings = embeddings_of([row.example() for row in rows], domain, params)
    found = [measure_kind(rows, kind, embeddings, domain, params) for kind in KINDS]
    leaks, passed, others, kept_out = passed_leaks(rows, embeddings, domain, params)
    cells = [f"{kind.found} of {kind.planted}" for kind in found]
    false = sum(kind.false for kind in found)
    return language, domain.embedder.name, *cells, str(false), f"{passed} of {leaks}", f"{kept_out} of {others}"


def main() -> None:
    """Print the table."""
    columns = "language | embedder | exact | near | paraphrased | false drops | leaks passed | false leaks"
    show("Planted duplicates and leaks", columns, starmap(row_of, ROWS))


if __name__ == "__main__":
    main()
