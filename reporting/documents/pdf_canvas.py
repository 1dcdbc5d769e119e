"""Draws pages of PDF by fpdf2: text, boxes and pictures; the same pages give the same bytes.

Latin, Greek and Cyrillic letters come from DejaVu Sans, which lies in `fonts/`; every other script
from a font that the site names. What neither has is for the caller to say in words: a replaced
letter would name somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from unicodedata import bidirectional
from uuid import UUID

from fontTools.ttLib import TTLibError
from fpdf import FPDF
from fpdf.enums import TextDirection
from fpdf.errors import FPDFException
from fpdf.fonts import TTFFont
from fpdf.line_break import Fragment

from pipeline.errors import NeedsReview

WIDTH_PT, HEIGHT_PT = 595.28, 841.89
"""ISO A4."""

FONT_FOLDER = Path(__file__).parent / "fonts"
FONT, SITE_FONT = "dejavu", "site"

PAGE_COUNT = "{nb}"
"""fpdf2 puts the number of pages in its place."""

_ONE_RUN = frozenset({"L", "EN", "ES", "ET", "CS", "ON", "WS"})
"""Bidirectional classes that, without a letter of a script from the right, make a single run."""

Color = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""

BLACK: Color = (0, 0, 0)

BASE_LINE = 0.8
"""fpdf2 puts the base line of a cell this share of the letters' height below its upper edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Document information (ISO 32000-1, 14.3.3)."""

    title: str
    subject: str
    creator: str
    created: datetime
    document_id: UUID


class _Document(FPDF):
    """An A4 document in points under an identifier of its own."""

    def __init__(self, about: About) -> None:
        super().__init__(unit="pt", format="A4")
        self._id = about.document_id.hex
        self.set_auto_page_break(False)
        self.set_margin(0)
        self.c_margin = 0
        self.set_lang("en")
        self.set_title(about.title)
        self.set_subject(about.subject)
        self.set_creator(about.creator)
        self.set_producer("fpdf2")
        self.set_creation_date(about.created)

    def file_id(self) -> str:
        return f"<{self._id}><{self._id}>"

    def _preload_bidirectional_text(self, text: str, markdown: bool) -> Sequence[Fragment]:
        """As fpdf2's, which runs the whole bidirectional algorithm on each line; most need none."""
        if markdown or not self.text_shaping or not _is_left_to_right(text):
            return super()._preload_bidirectional_text(text, markdown)
        left_to_right = TextDirection.LTR
        self.text_shaping["paragraph_direction"] = self.text_shaping["direction"] or left_to_right
        self.text_shaping["fragment_direction"] = left_to_right
        return self._preload_font_styles(text, markdown)


def _is_left_to_right(text: str) -> bool:
    """Whether the algorithm leaves the text in one run from left to right (UAX 9)."""
    return bool(text) and _ONE_RUN.issuperset(map(bidirectional, text)) and PAGE_COUNT not in text


class Canvas:
    """Pages being drawn; lengths in points (1/72 inch), y counted down from the upper edge."""

    def __init__(self, about: About, *, site_font: Path | None = None) -> None:
        """Open a document without a page; raises NeedsReview when the site's font is unreadable."""
        self._document = _Document(about)
        self._document.add_font(FONT, "", FONT_FOLDER / "DejaVuSans.ttf")
        self._document.add_font(FONT, "B", FONT_FOLDER / "DejaVuSans-Bold.ttf")
        if site_font is not None:
            self._add_site_font(site_font)
        self._document.set_text_shaping(True)

    def _add_site_font(self, path: Path) -> None:
        try:
            self._document.add_font(SITE_FONT, "", path)
            self._document.add_font(SITE_FONT, "B", path)
        except (OSError, TTLibError, FPDFException) as err:
            raise NeedsReview(
                f"The font {path} cannot be read; name a TrueType or OpenType file in "
                "results.pdf_font, or leave it empty.",
                code="pdf_font_unreadable",
            ) from err
        self._document.set_fallback_fonts([SITE_FONT], exact_match=False)

    def add_page(self) -> None:
        """Start a new page; what is drawn afterwards stands on it."""
        self._document.add_page()

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float,
        bold: bool = False,
        color: Color = BLACK,
    ) -> None:
        """One line of words, x at its left end, y its base line."""
        self._set_font(size, bold=bold)
        self._document.set_text_color(*color)
        self._document.set_xy(x, y - BASE_LINE * size)
        self._document.cell(w=0, h=size, text=words)

    def box(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        """A filled rectangle; x, y is its upper left corner."""
        self._document.set_fill_color(*color)
        self._document.rect(x, y, width, height, style="F")

    def picture(self, jpeg: bytes, x: float, y: float, width: float, height: float) -> None:
        """A baseline JPEG; x, y is its upper left corner."""
        self._document.image(BytesIO(jpeg), x=x, y=y, w=width, h=height)

    def width(self, words: str, *, size: float, bold: bool = False) -> float:
        """Width of a line in points."""
        self._set_font(size, bold=bold)
        return float(self._document.get_string_width(words))

    def is_printable(self, words: str) -> bool:
        """Whether every letter has a glyph in our font or in the site's."""
        fonts = [font for font in self._document.fonts.values() if isinstance(font, TTFFont)]
        return words.isprintable() and all(
            any(ord(letter) in font.cmap for font in fonts) for letter in words
        )

    def wrapped(
        self, words: str, *, width: float, size: float, bold: bool = False
    ) -> Iterator[str]:
        """Lines of at most `width` points; a word that is longer is broken where it has to be."""
        line = ""
        for word in words.split():
            longer = f"{line} {word}".strip()
            if self.width(longer, size=size, bold=bold) <= width:
                line = longer
                continue
            for piece in self._pieces(word, width=width, size=size, bold=bold):
                longer = f"{line} {piece}".strip()
                if line and self.width(longer, size=size, bold=bold) > width:
                    yield line
                    line = piece
                else:
                    line = longer
        if line:
            yield line

    def shortened(self, words: str, *, width: float, size: float) -> str:
        """The words, or as many characters as fit and an ellipsis."""
        if self.width(words, size=size) <= width:
            return words
        kept = words
        while kept and self.width(f"{kept}\N{HORIZONTAL ELLIPSIS}", size=size) > width:
            kept = kept[:-1]
        return f"{kept}\N{HORIZONTAL ELLIPSIS}"

    def content(self) -> bytes:
        """The document as a whole file."""
        return bytes(self._document.output())

    def _pieces(self, word: str, *, width: float, size: float, bold: bool) -> Iterator[str]:
        if self.width(word, size=size, bold=bold) <= width:
            yield word
            return
        piece = ""
        for letter in word:
            if piece and self.width(piece + letter, size=size, bold=bold) > width:
                yield piece
                piece = ""
            piece += letter
        yield piece

    def _set_font(self, size: float, *, bold: bool) -> None:
        self._document.set_font(FONT, "B" if bold else "", size)
