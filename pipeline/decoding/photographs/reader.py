"""Reads a photograph file of any supported format, or raises `Rejected` with a code that says why.

    photograph = read_photograph(path.read_bytes())

The format is told from the content, never from the name, and the size from the header before
anything is decoded. What tolerant decoders would fill in or guess is refused.

Codes: not_an_image, too_large, bad_count, truncated_pixel_data, corrupt_pixel_data.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pipeline.decoding.codestream import segments
from pipeline.decoding.frames import ImageLimits
from pipeline.decoding.photographs.exif import read_exif
from pipeline.decoding.photographs.jpeg import jpeg_exif, read_jpeg
from pipeline.decoding.photographs.photograph import FORMATS, Photograph
from pipeline.decoding.photographs.pillow_formats import read_with_pillow
from pipeline.decoding.photographs.png import read_png
from pipeline.decoding.photographs.tiff import read_tiff
from pipeline.errors import Rejected

Reader = Callable[[bytes, ImageLimits], Photograph]

_UNREAD: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "is a zip archive: unpack it first"),
    (0, b"\x1f\x8b", "is a gzip archive: unpack it first"),
    (0, b"7z\xbc\xaf", "is a 7z archive: unpack it first"),
    (0, b"Rar!", "is a RAR archive: unpack it first"),
    (257, b"ustar", "is a tar archive: unpack it first"),
    (0, b"%PDF", "is a PDF: export its pictures"),
    (4, b"ftyphei", "is a HEIC photograph: export it as JPEG or PNG"),
    (4, b"ftypmif1", "is a HEIF photograph: export it as JPEG or PNG"),
    (4, b"jP  ", "is a JPEG 2000 file: export it as TIFF or PNG"),
    (0, b"\xff\x4f\xff\x51", "is a JPEG 2000 codestream: export it as TIFF or PNG"),
    (0, b"\xff\x0a", "is a JPEG XL file: export it as JPEG or PNG"),
    (4, b"JXL ", "is a JPEG XL file: export it as JPEG or PNG"),
    (0, b"8BPS", "is a Photoshop file: export it as TIFF or PNG"),
)
"""Offset, magic number, and what to do: files that people mean as pictures."""


def read_photograph(content: bytes, limits: ImageLimits | None = None) -> Photograph:
    """Decode a JPEG, PNG, TIFF, BMP, GIF, WebP or AVIF file, upright.

    Raises Rejected, and nothing else, whatever the file holds; the message continues a sentence
    that begins with the file's name.
    """
    reader = _reader_of(content)
    try:
        return reader(content, limits or ImageLimits())
    except Rejected:
        raise
    # Decoders raise what they like on damaged bytes.
    except Exception as err:
        raise Rejected(
            f"is damaged and cannot be decoded ({type(err).__name__}): export it again",
            code="corrupt_pixel_data",
        ) from err


def date_taken(content: bytes) -> datetime | None:
    """When the camera says that it took the picture; None where the file does not say."""
    if content[:2] == b"\xff\xd8":
        return jpeg_exif(list(segments(content))).taken_at
    if content[:4] in (b"II*\0", b"MM\0*"):
        return read_exif(content).taken_at
    return None


def looks_like_image(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a picture, a DICOM file or an archive."""
    is_unread = any(head[at : at + len(magic)] == magic for at, magic, _ in _UNREAD)
    return head[128:132] == b"DICM" or _known_reader(head) is not None or is_unread


def _reader_of(content: bytes) -> Reader:
    if not content:
        raise Rejected("is empty: copy it again", code="not_an_image")
    reader = _known_reader(content)
    if reader is not None:
        return reader
    for offset, magic, advice in _UNREAD:
        if content[offset : offset + len(magic)] == magic:
            raise Rejected(advice, code="not_an_image")
    raise Rejected(f"is neither DICOM nor a photograph ({FORMATS})", code="not_an_image")


def _known_reader(content: bytes) -> Reader | None:
    if content[:3] == b"\xff\xd8\xff":
        return read_jpeg
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return read_png
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return read_tiff
    is_webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    is_avif = content[4:12] in (b"ftypavif", b"ftypavis")
    if content[:2] == b"BM" or content[:4] == b"GIF8" or is_webp or is_avif:
        return read_with_pillow
    return None
