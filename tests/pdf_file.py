"""PDF files written by hand, and bound together."""

from __future__ import annotations

import io


def pdf(*lines: str) -> bytes:
    """A PDF of one page, written by hand (ISO 32000-1, 7.5): objects, their table, the trailer."""
    stream = "BT /F1 12 Tf 20 250 Td 14 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Title(On roofs)>>",
    ]
    text, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(text))
        text += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n{len(text)}\n%%EOF\n"
    return f"{text}xref\n0 7\n0000000000 65535 f \n{table}{end}".encode()


def bound(*pages: bytes, lock: str = "") -> bytes:
    """One PDF of the pages of several."""
    from pypdf import PdfReader, PdfWriter

    writer, content = PdfWriter(), io.BytesIO()
    for page in pages:
        writer.append(PdfReader(io.BytesIO(page)))
    if lock:
        writer.encrypt(lock, algorithm="AES-256")
    writer.write(content)
    return content.getvalue()
