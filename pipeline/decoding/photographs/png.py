"""Reads PNG files: every checksum is verified, and the compressed pixels must be complete."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.decoding.frames import ImageLimits
from pipeline.decoding.photographs.exif import UPRIGHT, read_exif
from pipeline.decoding.photographs.photograph import (
    MAX_PROFILE_BYTES,
    Photograph,
    check_size,
    color_on_white,
    damaged,
    rgb_profile,
    several_pages,
    truncated,
    unsupported,
    upright,
)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND"})
_PIXEL_CHUNKS = _GRAY_CHUNKS | {b"PLTE", b"tRNS"}
_CHUNK = Struct(">L4s")
_CRC = Struct(">L")
_IHDR = Struct(">LLBBBBB")
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each color type (PNG 11.2.2)."""
_PALETTE = 3
_DEPTHS = (1, 2, 4, 8, 16)
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column and row, column and row step of each pass (PNG 8.2)."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    kind: bytes
    body: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    columns: int
    rows: int
    depth: int
    color_type: int
    is_interlaced: bool

    @property
    def bits_per_pixel(self) -> int:
        return _SAMPLES[self.color_type] * self.depth

    @property
    def is_color(self) -> bool:
        return self.color_type in (2, _PALETTE, 6)

    @property
    def highest(self) -> int:
        """The largest sample of this depth."""
        return (1 << self.depth) - 1

    @property
    def raw_bytes(self) -> int:
        """Length of all rows with their filter bytes, before compression."""
        passes = _ADAM7 if self.is_interlaced else ((0, 0, 1, 1),)
        return sum(self._pass_bytes(*one) for one in passes)

    def _pass_bytes(self, left: int, top: int, across: int, down: int) -> int:
        columns = -(-max(self.columns - left, 0) // across)
        rows = -(-max(self.rows - top, 0) // down)
        return rows * (1 + -(-columns * self.bits_per_pixel // 8)) if columns else 0


def read_png(content: bytes, limits: ImageLimits) -> Photograph:
    """Decode a PNG of any color type and depth."""
    header = _header(content)
    check_size(header.rows, header.columns, limits)
    chunks = list(_chunks(content))
    _check_animation(chunks)
    _check_pixels(chunks, header.raw_bytes)
    return Photograph(
        pixels=upright(_rgb(chunks, header), _orientation(chunks)),
        icc_profile=rgb_profile(_icc_profile(chunks)) if header.is_color else None,
        is_gray=not header.is_color,
    )


def _header(content: bytes) -> _Header:
    start = len(_SIGNATURE) + _CHUNK.size
    is_header = content[len(_SIGNATURE) + 4 : start] == b"IHDR"
    if not is_header or len(content) < start + _IHDR.size:
        raise unsupported("has no PNG header: copy or export it again")
    columns, rows, depth, color, _, _, interlace = _IHDR.unpack_from(content, start)
    if color not in _SAMPLES or depth not in _DEPTHS:
        raise damaged("its PNG header names no known pixel format")
    return _Header(
        columns=columns,
        rows=rows,
        depth=depth,
        color_type=color,
        is_interlaced=interlace == 1,
    )


def _chunks(content: bytes) -> Iterator[_Chunk]:
    """Every chunk up to IEND, its checksum verified (PNG 5.3)."""
    view = memoryview(content)
    position = len(_SIGNATURE)
    while position + _CHUNK.size + _CRC.size <= len(view):
        length, kind = _CHUNK.unpack_from(view, position)
        end = position + _CHUNK.size + length
        if end + _CRC.size > len(view):
            raise truncated()
        (crc,) = _CRC.unpack_from(view, end)
        if zlib.crc32(view[position + 4 : end]) != crc:
            raise damaged("a PNG checksum does not match")
        yield _Chunk(kind=kind, body=view[position + _CHUNK.size : end])
        if kind == b"IEND":
            return
        position = end + _CRC.size
    raise truncated()


def _check_animation(chunks: Sequence[_Chunk]) -> None:
    for chunk in chunks:
        if chunk.kind == b"acTL" and int.from_bytes(chunk.body[:4], "big") > 1:
            raise several_pages()


def _check_pixels(chunks: Sequence[_Chunk], expected: int) -> None:
    """Inflate in pieces, so that a bomb is noticed before it fills the memory."""
    inflate = zlib.decompressobj()
    length = 0
    for chunk in chunks:
        if chunk.kind != b"IDAT":
            continue
        rest: bytes | memoryview = chunk.body
        while rest and not inflate.eof:
            try:
                length += len(inflate.decompress(rest, _PIECE_BYTES))
            except zlib.error as err:
                raise damaged("its compressed data is not valid") from err
            if length > expected:
                raise damaged("it holds more pixels than its header says")
            rest = inflate.unconsumed_tail
    if not inflate.eof:
        raise truncated()
    if length != expected:
        raise damaged("it holds fewer pixels than its header says")


def _rgb(chunks: Sequence[_Chunk], header: _Header) -> NDArray[np.uint8]:
    """Colors over white where they are transparent."""
    if header.color_type == _PALETTE:
        return _looked_up(_decoded(chunks, header, as_gray=True), chunks, header)
    decoded = _decoded(chunks, header)
    if decoded.ndim == 2:
        return color_on_white(decoded, _color_key(decoded, chunks, header))
    alpha = decoded[:, :, 3] if decoded.shape[2] == 4 else None
    return color_on_white(decoded[:, :, 2::-1], alpha)


def _decoded(chunks: Sequence[_Chunk], header: _Header, *, as_gray: bool = False) -> NDArray[Any]:
    """Gray, BGR or BGRA of 8 or 16 bits; gray of fewer bits is spread over 8."""
    decoded = cv2.imdecode(_without_notes(chunks, as_gray=as_gray), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape[:2] != (header.rows, header.columns):
        raise damaged("it cannot be decoded")
    return decoded


def _without_notes(chunks: Sequence[_Chunk], *, as_gray: bool) -> NDArray[np.uint8]:
    """The file with what its pixels need; libpng would inflate, and complain of, the rest."""
    parts: list[bytes | memoryview] = [_SIGNATURE]
    for chunk in chunks:
        if chunk.kind not in (_GRAY_CHUNKS if as_gray else _PIXEL_CHUNKS):
            continue
        body = _as_gray(chunk.body) if as_gray and chunk.kind == b"IHDR" else chunk.body
        crc = zlib.crc32(body, zlib.crc32(chunk.kind))
        parts += [_CHUNK.pack(len(body), chunk.kind), body, _CRC.pack(crc)]
    return np.frombuffer(b"".join(parts), np.uint8)


def _as_gray(header: memoryview) -> bytes:
    columns, rows, depth, _, *rest = _IHDR.unpack(header)
    return _IHDR.pack(columns, rows, depth, 0, *rest)


def _looked_up(
    spread: NDArray[Any], chunks: Sequence[_Chunk], header: _Header
) -> NDArray[np.uint8]:
    """Colors of a palette (PNG 11.2.3); decoders show a color that is not in it as black."""
    indices = spread.astype(np.uint16) * header.highest // 255
    palette = np.frombuffer(_body(chunks, b"PLTE"), np.uint8)
    palette = palette[: len(palette) // 3 * 3].reshape(-1, 3)
    if indices.max(initial=0) >= len(palette):
        raise damaged("its palette lacks colors that its pixels have")
    opacity = np.full(len(palette), 255, np.uint8)
    stated = np.frombuffer(_body(chunks, b"tRNS"), np.uint8)[: len(palette)]
    opacity[: len(stated)] = stated
    return color_on_white(palette[indices], opacity[indices])


def _color_key(
    decoded: NDArray[Any], chunks: Sequence[_Chunk], header: _Header
) -> NDArray[np.uint8] | None:
    """Opacity of gray samples of which one value is transparent (PNG 11.3.2.1).

    OpenCV shows such pixels; those of color pictures come as a fourth channel.
    """
    key = _body(chunks, b"tRNS")
    if header.color_type != 0 or len(key) != 2:
        return None
    shown = int.from_bytes(key, "big") * np.iinfo(decoded.dtype).max // header.highest
    return np.where(decoded == shown, 0, 255).astype(np.uint8)


def _body(chunks: Sequence[_Chunk], kind: bytes) -> bytes:
    """Of the first chunk of a kind; empty without one."""
    return next((bytes(chunk.body) for chunk in chunks if chunk.kind == kind), b"")


def _orientation(chunks: Sequence[_Chunk]) -> int:
    exif = _body(chunks, b"eXIf")
    return read_exif(exif).orientation if exif else UPRIGHT


def _icc_profile(chunks: Sequence[_Chunk]) -> bytes | None:
    """Name, zero, compression method, then the compressed profile (PNG 11.3.3.3)."""
    _, _, packed = _body(chunks, b"iCCP").partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_PROFILE_BYTES) if packed else None
    except zlib.error:
        return None
