"""Damage that disks, networks and programs do to photographs, devised from public bug reports.

Each is refused: what a tolerant decoder makes up must never be counted (PS3.5 has no pixel that
means "unknown").
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np
import pytest

from pipeline.decoding.photographs.reader import read_photograph
from pipeline.errors import Rejected
from tests.pipeline.decoding.photographs.files import (
    HEIGHT,
    PIXELS,
    WIDTH,
    pillow,
    png,
    png_chunk,
    tiff,
)

ROWS = [b"\0" + row.tobytes() for row in PIXELS]


def as_text(content: bytes) -> bytes:
    """What FTP in ASCII mode makes of a file: every line feed becomes two characters."""
    return content.replace(b"\n", b"\r\n")


def restarting(interval: int = 2) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    return cv2.imencode(".jpg", PIXELS[..., ::-1], options)[1].tobytes()


def restart_intervals(content: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Header, entropy-coded segments between restart markers, end marker (ITU-T T.81 E.1.4)."""
    start = content.index(b"\xff\xda")
    start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    segments, before = [], start
    for at in range(start, len(content) - 1):
        if content[at] == 0xFF and 0xD0 <= content[at + 1] <= 0xD7:
            segments.append(content[before:at])
            before = at + 2
    return content[:start], [*segments, content[before:-2]], content[-2:]


def joined(head: bytes, segments: list[bytes], tail: bytes) -> bytes:
    marked = b"".join(
        segment + bytes((0xFF, 0xD0 + number % 8)) for number, segment in enumerate(segments[:-1])
    )
    return head + marked + segments[-1] + tail


def out_of_order() -> bytes:
    """Two restart intervals exchanged together with their markers."""
    content = restarting()
    first, second, third = (content.index(bytes((0xFF, 0xD0 + number))) for number in range(3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def with_segments(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    head, segments, tail = restart_intervals(restarting())
    return joined(head, change(segments), tail)


def jpeg_rows(rows: int) -> bytes:
    content = bytearray(pillow("JPEG", quality=95))
    at = content.index(b"\xff\xc0")
    struct.pack_into(">H", content, at + 5, rows)
    return bytes(content)


def scans(content: bytes) -> list[int]:
    return [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]


def without_last_scans(count: int) -> bytes:
    """A progressive file whose last passes are missing, ended properly."""
    content = pillow("JPEG", quality=95, progressive=True)
    at = scans(content)[-count]
    head = content[:at]
    # Huffman tables may precede the scan
    while (table := head.rfind(b"\xff\xc4")) > 0 and table + 2 + int.from_bytes(
        head[table + 2 : table + 4], "big"
    ) == len(head):
        head = head[:table]
    return head + b"\xff\xd9"


def without_first_ac_scan() -> bytes:
    content = pillow("JPEG", quality=95, progressive=True)
    first, second, *_ = scans(content)[1:]
    return content[:first] + content[second:]


def without_segment(marker: int) -> bytes:
    content = pillow("JPEG", quality=95)
    at = content.index(bytes((0xFF, marker)))
    return content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]


def png_parts(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in parts)


def png_in_pieces(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    packed = zlib.compress(b"".join(ROWS))
    pieces = [packed[at : at + 500] for at in range(0, len(packed), 500)]
    head = next(png_parts(png(b"".join(ROWS))))
    return png_of([head, *((b"IDAT", piece) for piece in change(pieces)), (b"IEND", b"")])


def deflated_strips(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    strips = [zlib.compress(PIXELS[at : at + 16].tobytes()) for at in range(0, HEIGHT, 16)]
    return tiff(strips=change(strips), compression=8, rows_per_strip=16)


def jpeg_strips(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    strips = [
        pillow("JPEG", PIXELS[at : at + 16], quality=95, keep_rgb=True)
        for at in range(0, HEIGHT, 16)
    ]
    return tiff(strips=change(strips), compression=7, rows_per_strip=16)


def tiles(missing: int | None = None, short: int | None = None) -> bytes:
    """Four tiles of 64 x 64; one has no bytes, as sparse files have, or half of its bytes."""
    blocks = [
        np.ascontiguousarray(
            np.pad(PIXELS, ((0, 32), (0, 0), (0, 0)))[down : down + 64, across : across + 64]
        ).tobytes()
        for down in (0, 64)
        for across in (0, 64)
    ]
    offsets, counts = [], []
    body = b""
    for number, block in enumerate(blocks):
        kept = block[: len(block) // 2] if number == short else block
        offsets.append(0 if number == missing else 8 + len(body))
        counts.append(0 if number == missing else len(kept))
        body += kept
    return tiff(strips=[body], t322=64, t323=64, t324=tuple(offsets), t325=tuple(counts))


def bmp_rle8() -> bytes:
    """8 bits run-length encoded, broken off after half of its rows, with its end marker."""
    rows = b"".join(bytes((WIDTH, row % 256)) + b"\0\0" for row in range(HEIGHT // 2)) + b"\0\1"
    palette = b"".join(bytes((shade, shade, shade, 0)) for shade in range(256))
    header = struct.pack("<LllHHLLllLL", 40, WIDTH, HEIGHT, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<LHHL", start + len(rows), 0, 0, start) + header + palette + rows


def swapped(parts: list[bytes]) -> list[bytes]:
    return [*parts[:2], parts[3], parts[2], *parts[4:]]


def without_one(parts: list[bytes]) -> list[bytes]:
    return [*parts[:2], *parts[3:]]


def one_twice(parts: list[bytes]) -> list[bytes]:
    return [*parts[:2], parts[2], *parts[2:]]


def one_halved(parts: list[bytes]) -> list[bytes]:
    return [*parts[:2], parts[2][: len(parts[2]) // 2], *parts[3:]]


def wrong_filter() -> bytes:
    return png(b"".join([*ROWS[:40], b"\x07" + ROWS[40][1:], *ROWS[41:]]))


def gif_blocks(content: bytes) -> bytes:
    """A GIF whose picture data ends after half of its sub-blocks, with terminator and trailer."""
    data = content[: len(content) // 2]
    at = content.index(b"\x2c") + 10
    flags = content[at - 1]
    if flags & 0x80:
        at += 3 << ((flags & 7) + 1)
    at += 1
    while at + content[at] + 1 < len(data):
        at += content[at] + 1
    return content[:at] + b"\0\x3b"


def webp_claiming(change: int) -> bytes:
    content = bytearray(pillow("WEBP", lossless=True))
    (size,) = struct.unpack_from("<L", content, 4)
    struct.pack_into("<L", content, 4, size + change)
    (chunk,) = struct.unpack_from("<L", content, 16)
    struct.pack_into("<L", content, 16, chunk + change)
    return bytes(content)


JPEG = pillow("JPEG", quality=95)
DAMAGED: Mapping[str, Callable[[], bytes]] = {
    "jpeg-through-ascii-ftp": lambda: as_text(JPEG),
    "png-through-ascii-ftp": lambda: as_text(pillow("PNG")),
    "gif-through-ascii-ftp": lambda: as_text(pillow("GIF")),
    "tiff-lzw-through-ascii-ftp": lambda: as_text(pillow("TIFF", compression="tiff_lzw")),
    "jpeg-restart-interval-lost": lambda: with_segments(without_one),
    "jpeg-restart-interval-twice": lambda: with_segments(one_twice),
    "jpeg-restart-intervals-swapped": out_of_order,
    "jpeg-restart-interval-halved": lambda: with_segments(one_halved),
    "jpeg-more-rows-than-coded": lambda: jpeg_rows(HEIGHT + 64),
    "jpeg-fewer-rows-than-coded": lambda: jpeg_rows(HEIGHT - 32),
    "jpeg-no-rows": lambda: jpeg_rows(0),
    "jpeg-progressive-without-last-scan": lambda: without_last_scans(1),
    "jpeg-progressive-without-last-scans": lambda: without_last_scans(4),
    "jpeg-progressive-only-dc": lambda: without_last_scans(9),
    "jpeg-progressive-without-a-scan-between": without_first_ac_scan,
    "jpeg-without-quantization": lambda: without_segment(0xDB),
    "jpeg-without-scan-header": lambda: without_segment(0xDA),
    "jpeg-sectors-of-zeros": lambda: JPEG[:1536] + bytes(512) + JPEG[2048:],
    "jpeg-a-sector-twice": lambda: JPEG[:2048] + JPEG[1536:],
    "png-chunk-of-pixels-lost": lambda: png_in_pieces(without_one),
    "png-chunk-of-pixels-twice": lambda: png_in_pieces(one_twice),
    "png-chunks-of-pixels-swapped": lambda: png_in_pieces(swapped),
    "png-chunk-of-pixels-halved": lambda: png_in_pieces(one_halved),
    "png-without-end": lambda: pillow("PNG")[:-12],
    "png-without-pixels": lambda: png_of([next(png_parts(pillow("PNG"))), (b"IEND", b"")]),
    "png-unknown-row-filter": wrong_filter,
    "png-of-a-telephone-without-zlib-header": lambda: png(
        b"", packed=zlib.compress(b"".join(ROWS))[2:-4], chunks=png_chunk(b"CgBI", bytes(4))
    ),
    "tiff-deflate-strip-lost": lambda: deflated_strips(without_one),
    "tiff-deflate-strip-halved": lambda: deflated_strips(one_halved),
    "tiff-deflate-strip-empty": lambda: deflated_strips(
        lambda strips: [*strips[:2], b"", *strips[3:]]
    ),
    "tiff-deflate-wrong-checksum": lambda: deflated_strips(
        lambda strips: [*strips[:2], strips[2][:-4] + b"abcd", *strips[3:]]
    ),
    "tiff-jpeg-strip-halved": lambda: jpeg_strips(one_halved),
    "tiff-jpeg-strip-halved-and-ended": lambda: jpeg_strips(
        lambda strips: [
            *strips[:2],
            strips[2][: len(strips[2]) * 3 // 4] + b"\xff\xd9",
            *strips[3:],
        ]
    ),
    "tiff-jpeg-strip-of-another-size": lambda: jpeg_strips(
        lambda strips: [*strips[:2], pillow("JPEG", PIXELS[:8], keep_rgb=True), *strips[3:]]
    ),
    "tiff-tile-missing": lambda: tiles(missing=2),
    "tiff-tile-short": lambda: tiles(short=1),
    "bmp-run-lengths-end-early": bmp_rle8,
    "bmp-pixels-behind-the-end": lambda: (
        pillow("BMP")[:10] + struct.pack("<L", 30_000) + pillow("BMP")[14:]
    ),
    "gif-ends-early-with-trailer": lambda: gif_blocks(pillow("GIF")),
    "webp-claims-more-than-it-has": lambda: webp_claiming(200),
    "webp-claims-less-than-it-has": lambda: webp_claiming(-200),
    "avif-through-ascii-ftp": lambda: as_text(pillow("AVIF", quality=95)),
}


@pytest.mark.invented(kind=7)
@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_photograph(DAMAGED[name]())

    assert caught.value.code in {"truncated_pixel_data", "corrupt_pixel_data", "not_an_image"}
