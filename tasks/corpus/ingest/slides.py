"""PowerPoint: what each slide says, as HTML, in the order in which it is read, with its notes behind it.

Hidden slides, dates, footers and slide numbers are left out. Limits: charts, SmartArt, equations and pictures are not
read; a slide of these alone is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from tasks.corpus.reading.lines import archive_problem


class Slides(NamedTuple):
    """The slides as HTML, and the numbers of those that are pictures or charts without text."""

    html: list[str]
    pictures: tuple[int, ...]


def read_slides(path: Path) -> Slides:
    """Read a presentation. Raises ValueError: it cannot be opened."""
    if problem := archive_problem(path):
        raise ValueError(problem)
    from pptx import Presentation

    slides, pictures = [], []
    for number, slide in enumerate(Presentation(str(path)).slides, start=1):
        if slide.element.get("show") in ("0", "false"):
            continue
        title = slide.shapes.title
        heading = " ".join(map(_words, title.text_frame.paragraphs)).strip() if title is not None else ""
        parts = [f"<h2>{heading}</h2>"] if heading else []
        parts += _parts(shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            parts += _paragraphs(slide.notes_slide.notes_text_frame)
        slides.append("\n".join(parts))
        if not parts and list(slide.element.iter("{*}blip", "{*}graphicFrame")):
            pictures.append(number)
    return Slides(slides, tuple(pictures))


def _parts(shapes: Iterable[Any]) -> Iterator[str]:
    """What shapes say, from the top down and from left to right; those of a group together."""
    for shape in sorted(shapes, key=lambda one: (one.top or 0, one.left or 0)):
        if shape.is_placeholder and shape.placeholder_format.type.name in ("DATE", "FOOTER", "SLIDE_NUMBER"):
            continue
        if hasattr(shape, "shapes"):
            yield from _parts(shape.shapes)
        elif shape.has_table:
            yield _table(shape.table)
        elif shape.has_text_frame:
            yield from _paragraphs(shape.text_frame)


def _paragraphs(frame: Any) -> Iterator[str]:
    """A lone paragraph as one; several as a list, those of a deeper level in the item before them."""
    texts = [(paragraph.level, text) for paragraph in frame.paragraphs if (text := _words(paragraph))]
    if len(texts) == 1:
        yield f"<p>{texts[0][1]}</p>"
    elif texts:
        html, depth = "", -1
        for level, text in texts:
            html += "<ul>" * (level - depth) if level > depth else "</li>" + "</ul></li>" * (depth - level)
            html, depth = f"{html}<li>{text}", level
        yield html + "</li></ul>" * (depth + 1)


def _table(table: Any) -> str:
    rows = ""
    for row in table.rows:
        cells = ""
        for cell in row.cells:
            if not cell.is_spanned:
                spans = f'rowspan="{cell.span_height}" colspan="{cell.span_width}"' if cell.is_merge_origin else ""
                cells += f"<td {spans}>{'<br>'.join(map(_words, cell.text_frame.paragraphs))}</td>"
        rows += f"<tr>{cells}</tr>"
    return f"<table>{rows}</table>"


def _words(paragraph: Any) -> str:
    """A paragraph without what is struck, and with what is raised or lowered marked as such."""
    text = ""
    for run in paragraph._p.iterchildren("{*}r", "{*}fld", "{*}br"):
        said = escape("".join(part.text or "" for part in run.iterchildren("{*}t")))
        form = run.find("{*}rPr")
        style = dict(form.attrib) if form is not None else {}
        if run.tag.endswith("}br"):
            text += "<br>"
        elif style.get("strike", "noStrike") == "noStrike":
            height = style.get("baseline", "0").rstrip("%")  # in thousandths of the size; below the line if negative
            tag = "sub" if height.startswith("-") else "sup"
            text += said if height == "0" else f"<{tag}>{said}</{tag}>"
    return text.strip()
