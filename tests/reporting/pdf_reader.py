"""Reads back what `pdf_report` writes, by pypdf: words, their places, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from pypdf import PdfReader


@dataclass(frozen=True, slots=True)
class PrintedWords:
    """Words in one place; y is counted up from the lower edge, as PDF does."""

    words: str
    page: int
    x: float
    y: float


def printed(pdf: bytes) -> list[PrintedWords]:
    found: list[PrintedWords] = []
    for number, page in enumerate(PdfReader(BytesIO(pdf)).pages, start=1):

        def visit(words, _cm, matrix, _font, _size, number=number):
            if words.strip():
                found.append(PrintedWords(words.strip(), number, matrix[4], matrix[5]))

        page.extract_text(visitor_text=visit)
    return found


def printed_text(pdf: bytes) -> str:
    """All words of all pages, single-spaced."""
    pages = PdfReader(BytesIO(pdf)).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def page_count(pdf: bytes) -> int:
    return len(PdfReader(BytesIO(pdf)).pages)


def picture_count(pdf: bytes) -> int:
    return sum(len(page.images) for page in PdfReader(BytesIO(pdf)).pages)
