"""Reads TIFF files strip by strip: each must give exactly the bytes of its pixels.

Uncompressed, LZW, Deflate, PackBits and JPEG; 8 or 16 bits; gray, palette, RGB, YCbCr and CIELab.
Tolerant readers fill missing strips with black, and know neither premultiplied colors nor a
fourth channel that is not opacity.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.decoding.codestream import end_of_image, read_codestream
from pipeline.decoding.color_space import ybr_to_rgb
from pipeline.decoding.frames import ImageLimits
from pipeline.decoding.jpeg_frame import decode_jpeg
from pipeline.decoding.photographs.exif import UPRIGHT
from pipeline.decoding.photographs.photograph import (
    Photograph,
    check_size,
    color_on_white,
    damaged,
    premultiplied_on_white,
    rgb_profile,
    several_pages,
    to_8_bit,
    truncated,
    unsupported,
    upright,
)
from pipeline.decoding.photographs.tiff_lzw import decode_lzw
from pipeline.domain import RGB
from pipeline.errors import Rejected

_SUBFILE, _COLUMNS, _ROWS, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP = 266, 273, 274, 277, 278
_STRIP_COUNTS, _PLANAR, _PREDICTOR, _COLOR_MAP, _TILE_COLUMNS = 279, 284, 317, 320, 322
_TILE_ROWS, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 323, 324, 325, 338, 339
_JPEG_TABLES, _SUBSAMPLING, _ICC_PROFILE = 347, 530, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR, _CIELAB = 0, 1, 2, 3, 6, 8
_COLOR_SAMPLES = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3, _CIELAB: 3}
_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_PREMULTIPLIED, _OPACITY = 1, 2
_REDUCED = 1
"""Bit 0 of NewSubfileType: a smaller copy of another page."""
_MOST_PAGES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How the pixels lie in the file."""

    rows: int
    columns: int
    samples: int
    dtype: np.dtype[Any]
    compression: int
    photometric: int
    is_planar: bool
    has_predictor: bool
    block_rows: int
    block_columns: int
    is_tiled: bool

    @property
    def samples_per_block(self) -> int:
        return 1 if self.is_planar else self.samples

    @property
    def blocks_across(self) -> int:
        return -(-self.columns // self.block_columns)

    @property
    def blocks_down(self) -> int:
        return -(-self.rows // self.block_rows)

    def rows_of(self, down: int) -> int:
        """Stored rows of a block; the last strip is shorter, a tile never is."""
        whole = self.block_rows
        return whole if self.is_tiled else min(whole, self.rows - down * whole)

    def bytes_of(self, rows: int) -> int:
        return rows * self.block_columns * self.samples_per_block * self.dtype.itemsize


def read_tiff(content: bytes, limits: ImageLimits) -> Photograph:
    """Decode a TIFF or BigTIFF of one page; a thumbnail page beside it is left out."""
    tags = _page(content)
    layout = _layout(tags, content[:2] == b"MM", limits)
    samples = _read_samples(content, tags, layout)
    orientation = int(tags.get(_ORIENTATION, UPRIGHT))
    is_gray = layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    return Photograph(
        pixels=upright(_rgb(samples, tags, layout), orientation),
        icc_profile=None if is_gray else rgb_profile(tags.get(_ICC_PROFILE)),
        is_gray=is_gray,
    )


def _page(content: bytes) -> Mapping[int, Any]:
    """The tags of the only page."""
    file = io.BytesIO(content)
    pages: list[dict[int, Any]] = []
    seen: set[int] = set()
    header = content[: 16 if content[2:4] in (b"+\0", b"\0+") else 8]
    position = ImageFileDirectory_v2(header).next
    while position and position not in seen and len(seen) < _MOST_PAGES:
        seen.add(position)
        file.seek(position)
        directory = ImageFileDirectory_v2(header)
        try:
            directory.load(file)
            tags = dict(directory)
        except (OSError, ValueError, SyntaxError) as err:
            raise truncated() from err
        if not int(tags.get(_SUBFILE, 0)) & _REDUCED:
            pages.append(tags)
        position = directory.next
    if len(pages) > 1:
        raise several_pages()
    if not pages:
        raise unsupported("has no page: copy or export it again")
    return pages[0]


def _layout(tags: Mapping[int, Any], is_big_endian: bool, limits: ImageLimits) -> _Layout:
    if _COLUMNS not in tags or _ROWS not in tags:
        raise unsupported("has no size: copy or export it again")
    rows, columns = int(tags[_ROWS]), int(tags[_COLUMNS])
    check_size(rows, columns, limits)
    samples = int(tags.get(_SAMPLES, 1))
    photometric = int(tags.get(_PHOTOMETRIC, -1))
    if photometric not in _COLOR_SAMPLES or not _COLOR_SAMPLES[photometric] <= samples <= 8:
        raise unsupported("has colors that are not read (CMYK, for example): export it as RGB")
    bits = set(tags.get(_BITS, (1,)))
    is_unsigned = set(tags.get(_SAMPLE_FORMAT, (1,))) == {1}
    if bits not in ({8}, {16}) or not is_unsigned:
        raise unsupported("has neither 8 nor 16 bits per sample: export it with 8")
    is_tiled = _TILE_OFFSETS in tags
    layout = _Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        dtype=np.dtype(f"{'>' if is_big_endian else '<'}u{bits.pop() // 8}"),
        compression=int(tags.get(_COMPRESSION, _NONE)),
        photometric=photometric,
        is_planar=int(tags.get(_PLANAR, 1)) == 2 and samples > 1,
        has_predictor=int(tags.get(_PREDICTOR, 1)) == 2,
        block_rows=int(tags[_TILE_ROWS]) if is_tiled else min(rows, _rows_per_strip(tags, rows)),
        block_columns=int(tags[_TILE_COLUMNS]) if is_tiled else columns,
        is_tiled=is_tiled,
    )
    if int(tags.get(_PREDICTOR, 1)) > 2 or int(tags.get(_FILL_ORDER, 1)) != 1:
        raise unsupported("is packed in a way that is not read: export it uncompressed")
    if layout.compression not in {*_UNPACK, _JPEG}:
        raise unsupported("has a compression that is not read: export it uncompressed or with LZW")
    if is_tiled:
        check_size(layout.block_rows, layout.block_columns, limits)
    return layout


def _rows_per_strip(tags: Mapping[int, Any], rows: int) -> int:
    stated = int(tags.get(_ROWS_PER_STRIP, rows))
    return stated if stated > 0 else rows


def _read_samples(content: bytes, tags: Mapping[int, Any], layout: _Layout) -> NDArray[Any]:
    """Rows × columns × samples, in the byte order of this machine."""
    samples = np.empty(
        (layout.rows, layout.columns, layout.samples), layout.dtype.newbyteorder("=")
    )
    for place, block in zip(_places(layout), _blocks(content, tags, layout), strict=False):
        down, across, plane = place
        rows = samples[down : down + layout.block_rows]
        target = rows[:, across : across + layout.block_columns]
        if layout.is_planar:
            target = target[:, :, plane : plane + 1]
        target[...] = _unpacked(block, tags, layout, down)[: target.shape[0], : target.shape[1]]
    return samples


def _places(layout: _Layout) -> Iterator[tuple[int, int, int]]:
    """First row, first column and plane of each block, in the order of the offsets."""
    for plane in range(layout.samples if layout.is_planar else 1):
        for down in range(layout.blocks_down):
            for across in range(layout.blocks_across):
                yield down * layout.block_rows, across * layout.block_columns, plane


def _blocks(content: bytes, tags: Mapping[int, Any], layout: _Layout) -> Sequence[bytes]:
    offsets = tags.get(_TILE_OFFSETS if layout.is_tiled else _STRIP_OFFSETS, ())
    counts = tags.get(_TILE_COUNTS if layout.is_tiled else _STRIP_COUNTS)
    needed = layout.blocks_across * layout.blocks_down * (layout.samples if layout.is_planar else 1)
    if counts is None and layout.compression == _NONE and len(offsets) == 1:
        counts = (layout.bytes_of(layout.rows),)
    if len(offsets) < needed or counts is None or len(counts) < needed:
        raise truncated()
    blocks = []
    for offset, count in zip(offsets[:needed], counts[:needed], strict=True):
        if not count or offset + count > len(content):
            raise truncated()
        blocks.append(content[offset : offset + count])
    return blocks


def _unpacked(
    block: bytes, tags: Mapping[int, Any], layout: _Layout, first_row: int
) -> NDArray[Any]:
    """One block as rows × columns × samples."""
    rows = layout.rows_of(first_row // layout.block_rows)
    if layout.compression == _JPEG:
        return _jpeg_block(block, tags.get(_JPEG_TABLES), layout, rows)
    raw = _UNPACK[layout.compression](block, layout.bytes_of(rows))
    shape = (rows, layout.block_columns, layout.samples_per_block)
    values = np.frombuffer(raw, layout.dtype).reshape(shape).astype(layout.dtype.newbyteorder("="))
    return values.cumsum(axis=1, dtype=values.dtype) if layout.has_predictor else values


def _plain(block: bytes, expected: int) -> bytes:
    if len(block) < expected:
        raise truncated()
    return block[:expected]


def _inflated(block: bytes, expected: int) -> bytes:
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(block, expected)
        # The checksum stands behind the last byte, so one more is asked for.
        more = inflate.decompress(inflate.unconsumed_tail, 1)
    except zlib.error as err:
        raise damaged("its compressed data is not valid") from err
    if len(raw) < expected and not inflate.eof:
        raise truncated()
    if len(raw) != expected or more or not inflate.eof:
        raise damaged(f"a strip does not give its {expected} bytes")
    return raw


def _unlzw(block: bytes, expected: int) -> bytes:
    return decode_lzw(block, expected=expected)


def _unpackbits(block: bytes, expected: int) -> bytes:
    """TIFF 6.0 section 9; a run that crosses the end, or is missing, is damage."""
    parts: list[bytes] = []
    length, at = 0, 0
    while length < expected and at < len(block):
        head = block[at]
        if head < 128:
            part = block[at + 1 : at + 2 + head]
            at += 2 + head
        elif head > 128:
            part = block[at + 1 : at + 2] * (257 - head)
            at += 2
        else:
            part = b""
            at += 1
        parts.append(part)
        length += len(part)
    if length != expected or at < len(block) - 1:
        raise damaged(f"a strip does not give its {expected} bytes")
    return b"".join(parts)


_UNPACK: Mapping[int, Callable[[bytes, int], bytes]] = {
    _NONE: _plain,
    _LZW: _unlzw,
    _DEFLATE: _inflated,
    _OLD_DEFLATE: _inflated,
    _PACKBITS: _unpackbits,
}


def _jpeg_block(block: bytes, tables: bytes | None, layout: _Layout, rows: int) -> NDArray[Any]:
    """A JPEG stream whose tables may lie in a tag of their own (TIFF Technical Note 2)."""
    frame = bytes(tables)[:-2] + block[2:] if tables else block
    found = read_codestream(frame)
    is_fitting = found is not None and (
        (found.rows, found.columns, found.components)
        == (rows, layout.block_columns, layout.samples_per_block)
    )
    if not is_fitting or layout.dtype.itemsize != 1 or layout.samples_per_block not in (1, 3):
        raise damaged("a JPEG strip is not of the size that its header says")
    end = end_of_image(frame)
    if end is None:
        raise truncated()
    label = {_RGB: "RGB", _YCBCR: "YBR_FULL"}.get(layout.photometric, "MONOCHROME2")
    try:
        pixels, _ = decode_jpeg(frame[:end], photometric=label)
    except Rejected as err:
        raise damaged("its compressed data does not decode cleanly") from err
    return pixels.reshape(rows, layout.block_columns, layout.samples_per_block)


def _rgb(samples: NDArray[Any], tags: Mapping[int, Any], layout: _Layout) -> RGB:
    """Colors as TIFF 6.0 sections 8 to 23 define them, over white where transparent."""
    colors = _COLOR_SAMPLES[layout.photometric]
    color = samples[:, :, 0] if colors == 1 else samples[:, :, :colors]
    if layout.photometric == _PALETTE:
        return _looked_up(color, tags)
    if layout.photometric == _CIELAB:
        color = _lab_to_rgb(color)
    if layout.photometric == _YCBCR and layout.compression != _JPEG:
        color = _ycbcr_to_rgb(color, tags)
    if layout.photometric == _WHITE_IS_ZERO:
        color = 255 - to_8_bit(color)
    extra = [*tags.get(_EXTRA_SAMPLES, ())]
    for kind, place in zip(extra, range(colors, layout.samples), strict=False):
        if kind == _OPACITY:
            return color_on_white(color, samples[:, :, place])
        if kind == _PREMULTIPLIED and color.ndim == 3:
            return premultiplied_on_white(color, samples[:, :, place])
    return color_on_white(color, None)


def _looked_up(indices: NDArray[Any], tags: Mapping[int, Any]) -> RGB:
    entries = np.asarray(tags.get(_COLOR_MAP, ()), np.uint16)
    if indices.dtype != np.uint8 or entries.size != 768:
        raise unsupported("has no color map of 256 entries: export it as RGB")
    # Old writers put 8-bit entries into a map of 16 bits.
    shown = entries >> 8 if entries.max() > 255 else entries
    return np.ascontiguousarray(shown.reshape(3, 256).T.astype(np.uint8)[indices])


def _lab_to_rgb(lab: NDArray[Any]) -> NDArray[Any]:
    """L* of 0 to 255 for 0 to 100, a* and b* signed (TIFF 6.0 section 23)."""
    if lab.dtype != np.uint8:
        raise unsupported("is CIELab of 16 bits: export it as RGB")
    shifted = np.bitwise_xor(lab, np.array([0, 128, 128], np.uint8), dtype=np.uint8)
    return np.asarray(cv2.cvtColor(shifted, cv2.COLOR_LAB2RGB))


def _ycbcr_to_rgb(ycbcr: NDArray[Any], tags: Mapping[int, Any]) -> NDArray[Any]:
    if tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1):
        raise unsupported("is YCbCr with fewer color samples: export it as RGB")
    return ybr_to_rgb(to_8_bit(ycbcr))
