"""A Word file's text says what Word shows: moved text, fields, equations, boxes and numbers; nothing that is struck."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from tasks.core.domain import Source
from tasks.corpus.ingest.documents import read_documents
from tasks.corpus.ingest.word import raised, written

SPACES = " ".join(
    f'xmlns:{prefix}="http://schemas.{address}"'
    for prefix, address in {
        "w": "openxmlformats.org/wordprocessingml/2006/main",
        "m": "openxmlformats.org/officeDocument/2006/math",
        "mc": "openxmlformats.org/markup-compatibility/2006",
        "wps": "microsoft.com/office/word/2010/wordprocessingShape",
    }.items()
)


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def math(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


def text_of(folder: Path, *paragraphs: str, numbering: str = "", styles: str = "") -> str:
    """What is read of a Word file with these paragraphs and definitions of lists and styles."""
    body = f"<w:body>{''.join(f'<w:p>{paragraph}</w:p>' for paragraph in paragraphs)}</w:body>"
    with ZipFile(folder / "rules.docx", "w") as archive:
        for name, content in (("document", body), ("numbering", numbering), ("styles", styles)):
            archive.writestr(f"word/{name}.xml", f"<w:{name} {SPACES}>{content}</w:{name}>")
    source, bad = Source(name="x", files=["*"], licence="x", attribution="x"), []
    [document] = read_documents(source, [folder / "rules.docx"], bad)
    assert bad == []
    return document.text


SQUARE = f"<m:sSup><m:e>{math('r')}</m:e><m:sup>{math('2')}</m:sup></m:sSup>"
BOX = f"<wps:txbx><w:txbxContent><w:p>{run('No dogs.')}</w:p></w:txbxContent></wps:txbx>"


@pytest.mark.parametrize(
    "content, text",
    [
        (f"<w:moveFrom>{run('gone')}</w:moveFrom><w:moveTo>{run('Moved')}</w:moveTo>", "Moved"),
        (f"{run('Fee ')}<w:fldSimple w:instr='REF x'>{run('70')}</w:fldSimple>", "Fee 70"),
        (f"<w:customXml>{run('In ')}<w:bdo>{run('all')}</w:bdo></w:customXml>", "In all"),
        (f"<w:r><w:ruby><w:rt>{run('ting')}</w:rt><w:rubyBase>{run('停')}</w:rubyBase></w:ruby></w:r>", "停"),
        (f"{run('500', '<w:strike/>')}{run('400', '<w:dstrike/>')}{run('300')}{run('9', '<w:vanish/>')}", "300"),
        (run("kept", '<w:strike w:val="0"/><w:vanish w:val="false"/>'), "kept"),
        (run("10") + run("6", '<w:vertAlign w:val="superscript"/>') + run(" N"), "10⁶ N"),
        (run("CO") + run("2", '<w:vertAlign w:val="subscript"/>'), "CO₂"),
        (run("snake_case, a*b"), "snake_case, a*b"),
        (f"<m:oMathPara><m:oMath>{math('A=7')}{SQUARE}</m:oMath></m:oMathPara>", "A=7r²"),
        (
            f"<m:oMath>{math('v=')}<m:f><m:num>{math('a+b')}</m:num><m:den>{math('2')}</m:den></m:f></m:oMath>",
            "v=(a+b)/2",
        ),
        (f"<m:oMath><m:rad><m:deg/><m:e>{SQUARE}</m:e></m:rad><m:d><m:e>{math('x')}</m:e></m:d></m:oMath>", "√(r²)(x)"),
        (
            f"<m:oMath><m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{math('i=1')}</m:sub>"
            f"<m:sup>{math('K')}</m:sup><m:e>{math('x')}</m:e></m:nary></m:oMath>",
            "∑ᵢ₌₁^Kx",
        ),
        (
            "<w:r><mc:AlternateContent><mc:Choice Requires='wps'>"
            f"<w:drawing>{BOX}</w:drawing></mc:Choice></mc:AlternateContent></w:r>",
            "No dogs.",
        ),
        (
            f"<w:r><w:rPr><w:vanish/></w:rPr><w:fldChar w:fldCharType='begin'/></w:r>{run('7')}"
            "<w:r><w:fldChar w:fldCharType='end'/></w:r>",
            "7",
        ),
    ],
)
def test_what_word_shows_is_read(tmp_path: Path, content: str, text: str) -> None:
    assert text_of(tmp_path, content) == text


def level(place: int, form: str, text: str, more: str = "") -> str:
    return f"<w:lvl w:ilvl='{place}'>{more}<w:numFmt w:val='{form}'/><w:lvlText w:val='{text}'/></w:lvl>"


def item(text: str, place: int = 0, number: int = 91) -> str:
    return f"<w:pPr><w:numPr><w:ilvl w:val='{place}'/><w:numId w:val='{number}'/></w:numPr></w:pPr>{run(text)}"


LISTS = (
    f"<w:abstractNum w:abstractNumId='91'>{level(0, 'decimal', '%1 §')}{level(1, 'lowerLetter', '%2)')}</w:abstractNum>"
    f"<w:abstractNum w:abstractNumId='92'>{level(0, 'bullet', '·')}</w:abstractNum>"
    "<w:num w:numId='91'><w:abstractNumId w:val='91'/></w:num><w:num w:numId='92'><w:abstractNumId w:val='92'/></w:num>"
    "<w:num w:numId='93'><w:abstractNumId w:val='91'/>"
    "<w:lvlOverride w:ilvl='0'><w:startOverride w:val='5'/></w:lvlOverride></w:num>"
)


def test_a_lists_numbers_are_written_as_word_writes_them_and_go_on_behind_a_paragraph(tmp_path: Path) -> None:
    paragraphs = [item("Members"), item("Juniors", 1), item("Youths", 1), run("Between."), item("Guests"), item("x", 1)]
    text = text_of(tmp_path, *paragraphs, item("Late", 0, 93), item("Later", 0, 93), numbering=LISTS)
    assert [line.strip() for line in text.split("\n") if line] == [
        "1 § Members",
        "a) Juniors",
        "b) Youths",
        "Between.",
        "2 § Guests",
        "a) x",
        "5 § Late",
        "6 § Later",
    ]
    assert text_of(tmp_path, item("One", 0, 92), item("Two", 0, 92), numbering=LISTS) == "* One\n* Two"


def test_headings_that_their_style_numbers_have_their_numbers(tmp_path: Path) -> None:
    numbering = (
        f"<w:abstractNum w:abstractNumId='94'>{level(0, 'chineseCounting', '第%1章')}"
        f"{level(1, 'decimal', '%1.%2', '<w:isLgl/>')}</w:abstractNum>"
        "<w:num w:numId='94'><w:abstractNumId w:val='94'/></w:num>"
    )
    styles = "".join(
        f"<w:style w:type='paragraph' w:styleId='H{n}'><w:name w:val='Heading {n}'/><w:pPr><w:numPr>"
        f"<w:ilvl w:val='{n - 1}'/><w:numId w:val='94'/></w:numPr></w:pPr></w:style>"
        for n in (1, 2)
    )
    headings = [f"<w:pPr><w:pStyle w:val='H{n}'/></w:pPr>{run(text)}" for n, text in ((1, "总则"), (2, "a"), (2, "b"))]
    text = text_of(tmp_path, *headings, numbering=numbering, styles=styles)
    assert text == "# 第一章 总则\n\n## 1.1 a\n\n## 1.2 b"


@pytest.mark.parametrize(
    "number, form, text",
    [
        (28, "lowerLetter", "bb"),
        (14, "upperRoman", "XIV"),
        (49, "lowerRoman", "xlix"),
        (7, "decimalZero", "07"),
        (10, "chineseCounting", "十"),
        (21, "chineseCountingThousand", "二十一"),
        (3, "hebrew1", "3"),
    ],
)
def test_numbers_of_lists_in_words_formats(number: int, form: str, text: str) -> None:
    assert written(number, form) == text


def test_raised_text_is_characters_or_behind_a_sign() -> None:
    assert [raised("-3", "sup"), raised("n+1", "sub"), raised("x", "sup"), raised("2x", "sub")] == [
        "⁻³",
        "ₙ₊₁",
        "^x",
        "_(2x)",
    ]
