"""Law articles: documents and triples of a law collection, with what the evaluation asks held out everywhere."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from domains.traffic_law import make_articles as law
from domains.traffic_law.make_articles import LawError

LAWS = """
CREATE TABLE laws (law_id TEXT, law_name TEXT, doc_type TEXT, issuing_body TEXT, publish_date TEXT,
                   effective_date TEXT, status TEXT, law_department TEXT);
CREATE TABLE articles (id INTEGER, law_id TEXT, chapter TEXT, section TEXT, article_no TEXT,
                       article_no_arabic INTEGER, article_text TEXT);
INSERT INTO laws VALUES
  ('a', '中华人民共和国公路法', '法律', '全国人大常委会', '2017-11-04', '1998-01-01', '现行有效', '经济法'),
  ('o', '中华人民共和国公路法', '法律', '全国人大常委会', '1999-01-01', '1998-01-01', '历史版本', '经济法'),
  ('b', '中华人民共和国刑法', '法律', '全国人大常委会', '2020-12-26', '1980-01-01', '已被修改', '刑法');
INSERT INTO articles VALUES
  (1, 'a', '第一章 总则', NULL, '第一条', 1, '为了加强公路的建设，制定本法。'),
  (2, 'a', '第一章 总则', '第一节 一般', '第二条', 2, '依照本法第一条、 第三条办理。'),
  (3, 'a', '第一章 总则', NULL, '第三条', 3, '依照本法第一条和本法第四条办理。'),
  (4, 'a', '第一章 总则', NULL, '第四条', 4, '依照本法第二条至第三条办理。'),
  (5, 'a', '第二章 附则', NULL, '第五条', 5, '本法自1998年1月1日起施行。
附：
| 税目 |'),
  (6, 'b', NULL, NULL, '第一百三十三条', 133, '本法自1997年10月1日起施行。');
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "laws.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(LAWS)
    connection.close()
    return path


ROAD = "《中华人民共和国公路法》"


def test_a_document_is_an_article_in_force_that_says_what_it_is(database: Path) -> None:
    found = list(law.documents(law.read_laws(database, ["公路法"])))
    assert [row["id"] for row in found] == [f"{ROAD}第{n}条" for n in "一二三四五"]
    assert found[1]["text"] == f"{ROAD}第二条\n依照本法第一条、第三条办理。"  # the stray space is gone
    assert found[4]["text"].endswith("起施行。")  # and so is the table


def test_triples_say_what_the_collection_says_and_no_more(database: Path) -> None:
    found = set(law.triples(law.read_laws(database, ["公路法", "刑法"])))
    name = "中华人民共和国公路法"
    assert {t for t in found if t[0] == name} == {
        (name, "制定机关", "全国人大常委会"),
        (name, "现行版本公布日期", "2017年11月4日"),
        (name, "施行日期", "1998年1月1日"),
        (name, "法律部门", "经济法"),
    }
    # The collection's date and body of an amended law are an amendment's, and its day in force is not the law's own.
    assert {t[1:] for t in found if t[0] == "中华人民共和国刑法"} == {("法律部门", "刑法")}
    assert (f"{ROAD}第二条", "所在节", "第一节 一般") in found
    # Articles 2 and 4 cite ranges and lists, of which not all can be told.
    cited = {t for t in found if t[1] == "引用条文"}
    assert cited == {(f"{ROAD}第三条", "引用条文", f"{ROAD}第{n}条") for n in "一四"}


def test_a_held_out_article_stands_only_where_it_may_be_found(database: Path) -> None:
    held_out = frozenset({f"{ROAD}第四条"})
    documents, known, table = law.sources(law.read_laws(database, ["公路法"]), held_out)
    assert "第四条" not in "".join(json.loads(line)["id"] for line in documents.splitlines())
    assert [json.loads(line)["id"] for line in known.splitlines()] == [f"{ROAD}第四条"]
    assert "第四条" not in table
    assert "引用条文" not in table  # half of article 3's citations would be a wrong answer


def test_what_is_not_there_is_an_error(database: Path, tmp_path: Path) -> None:
    with pytest.raises(LawError, match="no law in force called 中华人民共和国海商法"):
        law.read_laws(database, ["海商法"])
    with pytest.raises(LawError, match=r"none\.db is missing"):
        law.read_laws(tmp_path / "none.db")
    with pytest.raises(LawError, match="held out, but no article of the domain: 《民法典》第九条"):
        law.sources(law.read_laws(database, ["公路法"]), frozenset({"《民法典》第九条"}))


def test_the_committed_sources_are_what_the_package_gives(root: Path) -> None:
    held_out = law.read_held_out(root / law.HELD_OUT)
    documents, known, table = law.sources(law.read_laws(root / law.DATABASE), held_out)
    assert (root / law.DOCUMENTS).read_text(encoding="utf-8") == documents
    assert (root / law.KNOWN).read_text(encoding="utf-8") == known
    assert (root / law.METADATA).read_text(encoding="utf-8") == table
