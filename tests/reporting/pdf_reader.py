"""Reads back the one page that `pdf_canvas` writes: its lines, pictures and cross table."""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(
    rb"BT /(F[12]) ([0-9.]+) Tf ([0-9.\-]+) ([0-9.\-]+) Td \(((?:\\.|[^\\)])*)\) Tj ET"
)
PICTURE = re.compile(rb"q ([0-9.\-]+) 0 0 ([0-9.\-]+) ([0-9.\-]+) ([0-9.\-]+) cm /Im1 Do Q")
ESCAPE = re.compile(rb"\\(\d{3}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """One line of text; y is counted up from the lower edge, as PDF does."""

    words: str
    x: float
    y: float
    size: float
    is_bold: bool


def printed_lines(pdf: bytes) -> list[PrintedLine]:
    return [
        PrintedLine(
            words=ESCAPE.sub(_character, m[5]).decode("cp1252"),
            x=float(m[3]),
            y=float(m[4]),
            size=float(m[2]),
            is_bold=m[1] == b"F2",
        )
        for m in LINE.finditer(pdf)
    ]


def printed_words(pdf: bytes) -> str:
    return "\n".join(line.words for line in printed_lines(pdf))


def picture_box(pdf: bytes) -> tuple[float, float, float, float] | None:
    """Left, bottom, width and height of the picture."""
    found = PICTURE.search(pdf)
    return (float(found[3]), float(found[4]), float(found[1]), float(found[2])) if found else None


def dangling_offsets(pdf: bytes) -> list[int]:
    """Entries of the cross-reference table at which no object begins (ISO 32000-1, 7.5.4)."""
    start = int(pdf.rsplit(b"startxref\n", 1)[1].split(b"\n", 1)[0])
    assert pdf[start:].startswith(b"xref\n")
    offsets = [int(o) for o in re.findall(rb"(\d{10}) 00000 n ", pdf[start:])]
    return [
        offset
        for number, offset in enumerate(offsets, start=1)
        if not pdf[offset:].startswith(b"%d 0 obj\n" % number)
    ]


def _character(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8)]) if len(code) == 3 else code
