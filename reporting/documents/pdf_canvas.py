"""One page of PDF 1.4 (ISO 32000-1): text, lines, boxes and one picture, nothing more.

Written by hand so that no library has to come along for a single page, and so that the same
page gives the same bytes. Fonts are Helvetica and Helvetica-Bold, which every reader brings;
characters are those of Windows-1252.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

WIDTH_PT, HEIGHT_PT = 595, 842
"""ISO A4."""

ENCODING = "cp1252"

Colour = tuple[float, float, float]
"""Red, green, blue, each 0 to 1."""

BLACK: Colour = (0.0, 0.0, 0.0)

# Advance widths of Helvetica in thousandths of the size, space to tilde (Adobe font metrics).
_WIDTHS = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278),
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556),
    *(1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778),
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556),
    *(333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556),
    *(556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
)
_WIDEST_BEYOND = 1000
"""Taken for every character after the tilde, so that a line never comes out too long."""

BOLD_IS_WIDER = 1.08
"""Helvetica-Bold against Helvetica over English text; lines in bold are kept that much shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A baseline JPEG in RGB and the size of its pixel array."""

    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Document information (ISO 32000-1, 14.3.3)."""

    title: str
    subject: str
    creator: str
    created: datetime
    document_id: UUID


class Page:
    """A page being drawn; lengths in points (1/72 inch), y counted down from the upper edge."""

    def __init__(self) -> None:
        self._operators: list[str] = []
        self._picture: Picture | None = None

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 9.0,
        bold: bool = False,
        colour: Colour = BLACK,
    ) -> None:
        """One line; `y` is its baseline."""
        font = "F2" if bold else "F1"
        self._operators.append(
            f"{_rgb(colour)} rg BT /{font} {_n(size)} Tf "
            f"{_n(x)} {_n(HEIGHT_PT - y)} Td {_string(words)} Tj ET"
        )

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A filled rectangle; x, y is its upper left corner."""
        bottom = HEIGHT_PT - y - height
        self._operators.append(
            f"{_rgb(colour)} rg {_n(x)} {_n(bottom)} {_n(width)} {_n(height)} re f"
        )

    def picture(self, picture: Picture, x: float, y: float, width: float, height: float) -> None:
        """The page's one picture; x, y is its upper left corner."""
        self._picture = picture
        bottom = HEIGHT_PT - y - height
        self._operators.append(f"q {_n(width)} 0 0 {_n(height)} {_n(x)} {_n(bottom)} cm /Im1 Do Q")

    def document(self, about: About) -> bytes:
        """The page as a whole file."""
        objects = list(self._objects(about))
        head = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
        body, offsets, at = [head], [], len(head)
        for number, content in enumerate(objects, start=1):
            offsets.append(at)
            body.append(b"%d 0 obj\n%b\nendobj\n" % (number, content))
            at += len(body[-1])
        return b"".join(body) + _cross_reference(offsets, at, about)

    def _objects(self, about: About) -> Iterator[bytes]:
        """Numbered from 1 in this order; references name these numbers."""
        pictures = " /XObject << /Im1 8 0 R >>" if self._picture else ""
        yield (
            b"<< /Type /Catalog /Pages 2 0 R /Lang (en) "
            b"/ViewerPreferences << /DisplayDocTitle true >> >>"
        )
        yield b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
        yield (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {WIDTH_PT} {HEIGHT_PT}] "
            f"/Contents 4 0 R /Resources << /Font << /F1 5 0 R /F2 6 0 R >>{pictures} >> >>"
        ).encode()
        yield _stream("", "\n".join(self._operators).encode("ascii"))
        for name in ("Helvetica", "Helvetica-Bold"):
            yield (
                f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"
            ).encode()
        yield _information(about)
        if self._picture:
            yield _stream(
                f"/Type /XObject /Subtype /Image /Width {self._picture.width} "
                f"/Height {self._picture.height} /ColorSpace /DeviceRGB /BitsPerComponent 8 "
                "/Filter /DCTDecode ",
                self._picture.jpeg,
            )


def is_printable(words: str) -> bool:
    """Whether every character can stand on a page."""
    try:
        words.encode(ENCODING)
    except UnicodeEncodeError:
        return False
    return words.isprintable()


def text_width(words: str, *, size: float, bold: bool = False) -> float:
    """Width of a line in points; never less than what a reader draws."""
    units = sum(_WIDTHS[ord(c) - 32] if " " <= c <= "~" else _WIDEST_BEYOND for c in words)
    return units * size / 1000 * (BOLD_IS_WIDER if bold else 1.0)


def wrapped(words: str, *, width: float, size: float, bold: bool = False) -> Iterator[str]:
    """Lines of at most `width` points; a word that is longer is broken where it has to be."""
    line = ""
    for word in words.split():
        for piece in _pieces(word, width=width, size=size, bold=bold):
            longer = f"{line} {piece}".strip()
            if line and text_width(longer, size=size, bold=bold) > width:
                yield line
                line = piece
            else:
                line = longer
    if line:
        yield line


def _pieces(word: str, *, width: float, size: float, bold: bool) -> Iterator[str]:
    piece = ""
    for letter in word:
        if piece and text_width(piece + letter, size=size, bold=bold) > width:
            yield piece
            piece = ""
        piece += letter
    yield piece


def shortened(words: str, *, width: float, size: float) -> str:
    """The words, or as many characters as fit and an ellipsis."""
    if text_width(words, size=size) <= width:
        return words
    kept = words
    while kept and text_width(f"{kept}\N{HORIZONTAL ELLIPSIS}", size=size) > width:
        kept = kept[:-1]
    return f"{kept}\N{HORIZONTAL ELLIPSIS}"


def _information(about: About) -> bytes:
    entries: Mapping[str, str] = {
        "Title": about.title,
        "Subject": about.subject,
        "Creator": about.creator,
        "CreationDate": f"D:{about.created:%Y%m%d%H%M%S}{_offset(about.created)}",
    }
    inner = " ".join(f"/{name} {_string(value)}" for name, value in entries.items())
    return f"<< {inner} >>".encode("ascii")


def _offset(moment: datetime) -> str:
    """The offset from UTC as +HH'mm' (ISO 32000-1, 7.9.4)."""
    offset = f"{moment:%z}"
    return f"{offset[:3]}'{offset[3:5]}'"


def _stream(entries: str, content: bytes) -> bytes:
    return b"<< %b/Length %d >>\nstream\n%b\nendstream" % (
        entries.encode("ascii"),
        len(content),
        content,
    )


def _cross_reference(offsets: list[int], start: int, about: About) -> bytes:
    """Table and trailer (ISO 32000-1, 7.5.4 and 7.5.5); each line of the table has 20 bytes."""
    lines = ["0000000000 65535 f ", *(f"{offset:010d} 00000 n " for offset in offsets)]
    identity = f"<{about.document_id.hex}>"
    return (
        f"xref\n0 {len(lines)}\n"
        + "\n".join(lines)
        + f"\ntrailer\n<< /Size {len(lines)} /Root 1 0 R /Info 7 0 R "
        + f"/ID [{identity} {identity}] >>\nstartxref\n{start}\n%%EOF\n"
    ).encode("ascii")


def _string(words: str) -> str:
    """A literal string (ISO 32000-1, 7.3.4.2): ASCII as it is, the rest as octal."""
    return "(" + "".join(map(_character, words.encode(ENCODING, "replace"))) + ")"


def _character(code: int) -> str:
    if chr(code) in "\\()":
        return f"\\{chr(code)}"
    return chr(code) if 32 <= code < 127 else f"\\{code:03o}"


def _rgb(colour: Colour) -> str:
    return " ".join(map(_n, colour))


def _n(number: float) -> str:
    """A PDF number: no exponent, no trailing noise."""
    return f"{number:.3f}".rstrip("0").rstrip(".")
