"""Text files of any common encoding and line end are read; what is broken in them is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.records import BadLine
from tasks.corpus.reading.lines import bounded_lines, by_cause, encoding_of

SWEDISH = "Får man gå så här på bryggan?\nBåten på sjön får ställas här.\nVaktmästaren sköter nycklarna på ön.\n"
CHINESE = "年检标志在哪里可以办理？\n年检标志可以在一号窗口办理，每周一上午开放。\n停车规定里说的临时牌照呢？\n"
POLISH = "Gdzie można naładować łódź?\nŁódź ładuje się przy słupie numer trzy.\nKażdego dnia, także w święta.\n"
RUSSIAN = "Где можно зарядить лодку?\nЛодку заряжают у третьего столба.\nКаждый день, кроме субботы.\n"


@pytest.mark.parametrize(
    "text, encoding",
    [
        (SWEDISH, "cp1252"),
        (SWEDISH, "mac_roman"),
        (SWEDISH, "utf-16"),
        (SWEDISH, "utf-8-sig"),
        (CHINESE, "gb18030"),
        (POLISH, "cp1250"),
        (RUSSIAN, "cp1251"),
    ],
)
def test_a_text_is_decoded_from_the_encoding_it_is_in(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_text(text * 3, encoding=encoding)
    assert encoding_of(tmp_path / "a.txt") == encoding
    assert [line.text for line in bounded_lines(tmp_path / "a.txt")] == (text * 3).splitlines()


def test_utf8_with_broken_lines_stays_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(SWEDISH.encode() * 3 + b"\xff\n\xfe\n\xfd\n")
    assert encoding_of(tmp_path / "a.txt") == "utf-8-sig"
    assert [line.text for line in bounded_lines(tmp_path / "a.txt")][-3:] == ["\udcff", "\udcfe", "\udcfd"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_way(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"a{end}b c{end}{end}d".encode())
    assert [(line.number, line.text) for line in bounded_lines(tmp_path / "a.txt")] == [
        (1, "a"), (2, "b c"), (3, ""), (4, "d")
    ]  # fmt: skip


def test_bad_lines_are_counted_by_cause_with_the_first_of_each() -> None:
    bad = [BadLine(file="x/a.csv", line=n, cause=f"lines {n} to {n + 1}: not CSV", text=f"row {n}") for n in (3, 5)]
    bad.append(BadLine(file="x/a.csv", line=9, cause="empty", text=""))
    assert by_cause(bad) == [
        "2 rows not used: lines 3 to 4: not CSV (first: line 3: 'row 3')",
        "1 row not used: empty (first: line 9: '')",
    ]
