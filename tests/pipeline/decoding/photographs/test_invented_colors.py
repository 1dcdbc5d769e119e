"""Photographs as cameras, scanners and editors write them, devised from public bug reports.

Each shows the colors that were put in, upright, or is refused with advice.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from pipeline.decoding.photographs.photograph import Photograph
from pipeline.decoding.photographs.reader import read_photograph
from pipeline.errors import Rejected
from tests.pipeline.decoding.photographs.files import (
    HEIGHT,
    ICC_PROFILE,
    PIXELS,
    WIDTH,
    oriented,
    pillow,
    png,
    png_16,
    png_chunk,
    tiff,
)

GRAY = PIXELS[:, :, 1]
GRAY_SHOWN = np.repeat(GRAY[:, :, np.newaxis], 3, axis=2)
RAMP = np.stack([np.arange(256), np.arange(255, -1, -1), np.full(256, 7)], axis=1).astype(np.uint8)
STRIPES = np.full((HEIGHT, WIDTH), 255, np.uint8)
STRIPES[:, ::2] = 0
WITH_ALPHA = np.dstack([PIXELS, STRIPES])
OVER_WHITE = np.where(STRIPES[:, :, np.newaxis] > 0, PIXELS, 255)
GRAY_OVER_WHITE = np.where(STRIPES[:, :, np.newaxis] > 0, GRAY_SHOWN, 255)
PURPLE = (90, 40, 140)
WITHOUT_PURPLE = np.where((PIXELS == PURPLE).all(axis=2)[:, :, np.newaxis], 255, PIXELS)
DEEP = PIXELS.astype(np.uint16) * 257
JPEG = pillow("JPEG", quality=95)
EXACT, ROUNDED, LOSSY = 0.0, 1.0, 6.0


# --- PNG


def rows(samples: NDArray[Any]) -> bytes:
    big_endian = samples.astype(samples.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in big_endian)


def packed_rows(samples: NDArray[np.uint8], depth: int) -> bytes:
    bits = np.unpackbits(samples[:, :, np.newaxis], axis=2)[:, :, 8 - depth :]
    return rows(np.packbits(bits.reshape(len(samples), -1), axis=1))


def shallow(depth: int) -> NDArray[np.uint8]:
    return (GRAY >> (8 - depth)).astype(np.uint8)


def spread(depth: int) -> NDArray[Any]:
    """Gray of 1, 2 or 4 bits as shown."""
    wide = shallow(depth).astype(int) * 255 // ((1 << depth) - 1)
    return np.repeat(wide[:, :, np.newaxis], 3, axis=2)


def gray_png(depth: int) -> bytes:
    return png(packed_rows(shallow(depth), depth), depth=depth, color=0)


def palette(entries: NDArray[np.uint8], opacity: bytes = b"") -> bytes:
    chunk = png_chunk(b"PLTE", entries.tobytes())
    return chunk + (png_chunk(b"tRNS", opacity) if opacity else b"")


def key(*samples: int) -> bytes:
    return png_chunk(b"tRNS", struct.pack(f">{len(samples)}H", *samples))


def interlaced(samples: NDArray[np.uint8], **options: Any) -> bytes:
    """Adam7 (PNG 8.2)."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    parts = [
        samples[top::down, left::across] for left, top, across, down in (*passes, (0, 1, 1, 2))
    ]
    content = bytearray(png(b"".join(rows(part) for part in parts), **options))
    content[28] = 1
    content[29:33] = struct.pack(">L", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def profile_chunk(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"camera\0\0" + zlib.compress(profile))


GAMMA = png_chunk(b"gAMA", struct.pack(">L", 45455))
SEVERAL_BITS = png_chunk(b"sBIT", bytes((12, 12, 12)))
ONE_FRAME = png_chunk(b"acTL", struct.pack(">LL", 1, 0))
PNG_CASES: Mapping[str, tuple[Callable[[], bytes], Any, float]] = {
    "png-gray-1": (lambda: gray_png(1), spread(1), EXACT),
    "png-gray-2": (lambda: gray_png(2), spread(2), EXACT),
    "png-gray-4": (lambda: gray_png(4), spread(4), EXACT),
    "png-gray-4-one-transparent": (
        lambda: png(packed_rows(shallow(4), 4), depth=4, color=0, chunks=key(2)),
        np.where(spread(4) == 34, 255, spread(4)),
        EXACT,
    ),
    "png-gray-8-one-transparent": (
        lambda: png(rows(GRAY), color=0, chunks=key(40)),
        np.where(GRAY_SHOWN == 40, 255, GRAY_SHOWN),
        EXACT,
    ),
    "png-gray-16-one-transparent": (
        lambda: png(rows(DEEP[..., 1]), depth=16, color=0, chunks=key(40 * 257)),
        np.where(GRAY_SHOWN == 40, 255, GRAY_SHOWN),
        EXACT,
    ),
    "png-palette-1": (
        lambda: png(packed_rows(shallow(1), 1), depth=1, color=3, chunks=palette(RAMP[[10, 200]])),
        RAMP[[10, 200]][shallow(1)],
        EXACT,
    ),
    "png-palette-4": (
        lambda: png(packed_rows(shallow(4), 4), depth=4, color=3, chunks=palette(RAMP[:16])),
        RAMP[shallow(4)],
        EXACT,
    ),
    "png-palette-half-transparent": (
        lambda: png(rows(GRAY), color=3, chunks=palette(RAMP, bytes(128))),
        np.where(GRAY_SHOWN < 128, 255, RAMP[GRAY]),
        EXACT,
    ),
    "png-palette-short-transparency": (
        lambda: png(rows(GRAY), color=3, chunks=palette(RAMP, b"\xff")),
        RAMP[GRAY],
        EXACT,
    ),
    "png-rgb-one-transparent": (
        lambda: png(rows(PIXELS), chunks=key(*PURPLE)),
        WITHOUT_PURPLE,
        EXACT,
    ),
    "png-rgb-16-one-transparent": (
        lambda: png(rows(DEEP), depth=16, chunks=key(*(257 * one for one in PURPLE))),
        WITHOUT_PURPLE,
        EXACT,
    ),
    "png-gray-with-alpha": (
        lambda: png(rows(np.dstack([GRAY, STRIPES])), color=4),
        GRAY_OVER_WHITE,
        EXACT,
    ),
    "png-gray-with-alpha-16": (
        lambda: png(rows(np.dstack([GRAY, STRIPES]).astype(np.uint16) * 257), depth=16, color=4),
        GRAY_OVER_WHITE,
        EXACT,
    ),
    "png-rgba-16": (
        lambda: png(rows(WITH_ALPHA.astype(np.uint16) * 257), depth=16, color=6),
        OVER_WHITE,
        EXACT,
    ),
    "png-16-with-gamma-and-profile": (
        lambda: png(rows(DEEP), depth=16, chunks=GAMMA + profile_chunk(ICC_PROFILE)),
        PIXELS,
        EXACT,
    ),
    "png-significant-bits-left-aligned": (
        lambda: png(rows(DEEP & 0xFFF0), depth=16, chunks=SEVERAL_BITS),
        PIXELS,
        ROUNDED,
    ),
    "png-interlaced": (lambda: interlaced(PIXELS), PIXELS, EXACT),
    "png-interlaced-with-alpha": (lambda: interlaced(WITH_ALPHA, color=6), OVER_WHITE, EXACT),
    "png-interlaced-palette": (
        lambda: interlaced(GRAY, color=3, chunks=palette(RAMP)),
        RAMP[GRAY],
        EXACT,
    ),
    "png-animation-of-one-frame": (lambda: png(rows(PIXELS), chunks=ONE_FRAME), PIXELS, EXACT),
    "png-exif-that-is-junk": (
        lambda: png(rows(PIXELS), chunks=png_chunk(b"eXIf", b"MM\0*junk")),
        PIXELS,
        EXACT,
    ),
    "png-with-bytes-behind-its-end": (lambda: pillow("PNG") + b"appended", PIXELS, EXACT),
    "png-14-bits": (lambda: png_16((DEEP >> 2).astype(np.uint16)), PIXELS, ROUNDED),
}


# --- JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def after_start(content: bytes, inserted: bytes) -> bytes:
    return content[:2] + inserted + content[2:]


def header_parts(content: bytes) -> tuple[list[bytes], bytes]:
    """The segments before the scan, and the rest."""
    at, parts = 2, []
    while content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        parts.append(content[at:end])
        at = end
    return parts, content[at:]


def refitted(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    parts, rest = header_parts(content)
    return content[:2] + b"".join(map(change, parts)) + rest


def without(marker: int) -> Callable[[bytes], bytes]:
    return lambda part: b"" if part[1] == marker else part


def scan_says(first: int, last: int, bits: int) -> bytes:
    """The spectral selection of a sequential scan, which no decoder uses."""
    content = bytearray(JPEG)
    at = content.index(b"\xff\xda")
    at += 5 + 2 * content[at + 4]
    content[at : at + 3] = bytes((first, last, bits))
    return bytes(content)


def component_names(*names: int) -> bytes:
    content = bytearray(JPEG)
    frame, scan = content.index(b"\xff\xc0") + 10, content.index(b"\xff\xda") + 5
    for number, name in enumerate(names):
        content[frame + 3 * number] = content[scan + 2 * number] = name
    return bytes(content)


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))


def profile_parts(numbers: tuple[int, ...], count: int) -> bytes:
    third = -(-len(ICC_PROFILE) // 3)
    parts = [ICC_PROFILE[at : at + third] for at in range(0, len(ICC_PROFILE), third)]
    marked = (
        segment(0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + parts[number - 1])
        for number in numbers
    )
    return after_start(JPEG, b"".join(marked))


def sampled(factor: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return cv2.imencode(".jpg", PIXELS[..., ::-1], options)[1].tobytes()


WITHOUT_JFIF = refitted(JPEG, without(0xE0))
RGB_JPEG = pillow("JPEG", quality=95, keep_rgb=True, subsampling=0)
JPEG_CASES: Mapping[str, tuple[Callable[[], bytes], Any, float]] = {
    "jpeg-scan-says-to-0": (lambda: scan_says(0, 0, 0), PIXELS, LOSSY),
    "jpeg-scan-says-to-5": (lambda: scan_says(0, 5, 0), PIXELS, LOSSY),
    "jpeg-scan-says-bits-1-1": (lambda: scan_says(0, 63, 0x11), PIXELS, LOSSY),
    "jpeg-fill-bytes-before-segments": (
        lambda: refitted(JPEG, lambda part: b"\xff\xff" + part),
        PIXELS,
        LOSSY,
    ),
    "jpeg-fill-bytes-before-end": (
        lambda: JPEG[:-2] + b"\xff\xff\xff" + JPEG[-2:],
        PIXELS,
        LOSSY,
    ),
    "jpeg-jfif-version-2": (lambda: JPEG.replace(b"JFIF\0\1", b"JFIF\0\2"), PIXELS, LOSSY),
    "jpeg-jfif-twice": (lambda: after_start(JPEG, header_parts(JPEG)[0][0]), PIXELS, LOSSY),
    "jpeg-without-huffman-tables": (lambda: refitted(JPEG, without(0xC4)), PIXELS, LOSSY),
    "jpeg-without-jfif": (lambda: WITHOUT_JFIF, PIXELS, LOSSY),
    "jpeg-components-0-1-2": (lambda: component_names(0, 1, 2), PIXELS, LOSSY),
    "jpeg-adobe-rgb": (lambda: RGB_JPEG, PIXELS, ROUNDED),
    "jpeg-adobe-ycbcr": (lambda: after_start(WITHOUT_JFIF, adobe(1)), PIXELS, LOSSY),
    "jpeg-adobe-unknown-transform": (lambda: after_start(WITHOUT_JFIF, adobe(2)), PIXELS, LOSSY),
    "jpeg-comment-with-end-marker": (
        lambda: after_start(JPEG, segment(0xFE, b"\xff\xd9 taken with lens 100")),
        PIXELS,
        LOSSY,
    ),
    "jpeg-empty-segment": (lambda: after_start(JPEG, segment(0xE5, b"")), PIXELS, LOSSY),
    "jpeg-restart-interval-0": (lambda: after_start(JPEG, segment(0xDD, b"\0\0")), PIXELS, LOSSY),
    "jpeg-extended-sequential": (lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc1", 1), PIXELS, LOSSY),
    "jpeg-line-end-behind-it": (lambda: JPEG + b"\r\n", PIXELS, LOSSY),
    "jpeg-4-1-1": (lambda: sampled(0x411111), PIXELS, 10),
    "jpeg-4-4-0": (lambda: sampled(0x121111), PIXELS, 10),
    "jpeg-gray": (lambda: pillow("JPEG", GRAY, quality=95), GRAY_SHOWN, LOSSY),
    "jpeg-gray-progressive": (
        lambda: pillow("JPEG", GRAY, quality=95, progressive=True),
        GRAY_SHOWN,
        LOSSY,
    ),
}


# --- TIFF


def tiled(across: int, down: int, *, planar: bool = False, predictor: bool = False) -> bytes:
    rest = ((0, -HEIGHT % down), (0, -WIDTH % across), (0, 0))
    padded = np.pad(PIXELS, rest)
    planes = [padded[:, :, one : one + 1] for one in range(3)] if planar else [padded]
    blocks = []
    for plane in planes:
        for top in range(0, padded.shape[0], down):
            for left in range(0, padded.shape[1], across):
                block = plane[top : top + down, left : left + across]
                if predictor:
                    block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
                blocks.append(zlib.compress(np.ascontiguousarray(block).tobytes()))
    starts = np.cumsum([8, *(len(block) for block in blocks[:-1])])
    tags: dict[str, Any] = {
        "t322": across,
        "t323": down,
        "t324": tuple(int(one) for one in starts),
        "t325": tuple(len(block) for block in blocks),
        "t284": 2 if planar else 1,
        "t317": 2 if predictor else 1,
    }
    return tiff(strips=[b"".join(blocks)], compression=8, **tags)


def bigtiff() -> bytes:
    """64-bit offsets, with entries of type LONG8 (16)."""
    values: dict[int, tuple[int, ...]] = {
        256: (WIDTH,),
        257: (HEIGHT,),
        258: (8, 8, 8),
        259: (1,),
        262: (2,),
        273: (16,),
        277: (3,),
        278: (HEIGHT,),
        279: (PIXELS.size,),
        284: (1,),
    }
    directory = struct.pack("<Q", len(values))
    for tag, numbers in sorted(values.items()):
        kind, form = (3, "H") if len(numbers) > 1 else (16, "Q")
        packed = struct.pack(f"<{len(numbers)}{form}", *numbers).ljust(8, b"\0")
        directory += struct.pack("<HHQ", tag, kind, len(numbers)) + packed
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16 + PIXELS.size)
    return head + PIXELS.tobytes() + directory + bytes(8)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


QUANTIZED = Image.fromarray(PIXELS).quantize(64)
TIFF_CASES: Mapping[str, tuple[Callable[[], bytes], Any, float]] = {
    "tiff-tiles-that-fit": (lambda: tiled(64, 48), PIXELS, EXACT),
    "tiff-tiles-over-the-edge": (lambda: tiled(48, 80), PIXELS, EXACT),
    "tiff-tiles-in-planes-with-predictor": (
        lambda: tiled(64, 32, planar=True, predictor=True),
        PIXELS,
        EXACT,
    ),
    "bigtiff": (bigtiff, PIXELS, EXACT),
    "tiff-lzw-of-opencv": (
        lambda: cv2.imencode(".tif", PIXELS[..., ::-1])[1].tobytes(),
        PIXELS,
        EXACT,
    ),
    "tiff-lzw-with-alpha": (
        lambda: pillow("TIFF", WITH_ALPHA, compression="tiff_lzw"),
        OVER_WHITE,
        EXACT,
    ),
    "tiff-gray-with-alpha": (
        lambda: pillow("TIFF", np.dstack([GRAY, STRIPES])),
        GRAY_OVER_WHITE,
        EXACT,
    ),
    "tiff-gray-16": (lambda: pillow("TIFF", DEEP[..., 1]), GRAY_SHOWN, EXACT),
    "tiff-palette-of-64": (
        lambda: saved(QUANTIZED, "TIFF"),
        np.asarray(QUANTIZED.convert("RGB")),
        EXACT,
    ),
    "tiff-jpeg-ycbcr": (
        lambda: saved(
            Image.fromarray(PIXELS).convert("YCbCr"), "TIFF", compression="jpeg", quality=95
        ),
        PIXELS,
        LOSSY,
    ),
    "tiff-jpeg-gray": (
        lambda: pillow("TIFF", GRAY, compression="jpeg", quality=95),
        GRAY_SHOWN,
        LOSSY,
    ),
    "tiff-one-strip-of-unlimited-rows": (lambda: tiff(t278=0xFFFFFFFF), PIXELS, EXACT),
}


# --- BMP, GIF, WebP, AVIF


def bmp(
    bits: int, body: bytes, *, rows: int = HEIGHT, compression: int = 0, extra: bytes = b""
) -> bytes:
    """BITMAPINFOHEADER, then masks or a palette, then the body."""
    colors = 0 if bits > 8 else len(extra) // 4
    header = struct.pack(
        "<LllHHLLllLL", 40, WIDTH, rows, 1, bits, compression, len(body), 0, 0, colors, 0
    )
    start = 14 + len(header) + len(extra)
    return b"BM" + struct.pack("<LHHL", start + len(body), 0, 0, start) + header + extra + body


def bmp_palette(entries: NDArray[np.uint8]) -> bytes:
    return b"".join(bytes((*entry[::-1].tolist(), 0)) for entry in entries)


def words(red: int, green: int, blue: int) -> bytes:
    """Pixels of 16 bits, bottom row first."""
    channels = PIXELS.astype(np.uint16)
    word = channels[..., 0] >> (8 - red)
    for channel, depth in ((1, green), (2, blue)):
        word = word << depth | channels[..., channel] >> (8 - depth)
    return word[::-1].astype("<u2").tobytes()


def run_lengths() -> bytes:
    """8 bits with literal runs and end-of-line marks."""
    lines = (bytes((0, WIDTH)) + row.tobytes() + b"\0\0" for row in GRAY[::-1])
    return b"".join(lines) + b"\0\1"


def core_header() -> bytes:
    """The 12-byte header of OS/2."""
    head = b"BM" + struct.pack("<LHHL", 26 + PIXELS.size, 0, 0, 26)
    return head + struct.pack("<LHHHH", 12, WIDTH, HEIGHT, 1, 24) + PIXELS[::-1, :, ::-1].tobytes()


def gif_on_larger_screen() -> bytes:
    content = bytearray(pillow("GIF"))
    struct.pack_into("<HH", content, 6, WIDTH + 40, HEIGHT + 20)
    return bytes(content)


ON_LARGER_SCREEN = np.pad(PIXELS, ((0, 20), (0, 40), (0, 0)), constant_values=255)
GRAY_ENTRIES = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 3, axis=1)
BITS = np.packbits(shallow(1)[::-1], axis=1).tobytes()
OTHER_CASES: Mapping[str, tuple[Callable[[], bytes], Any, float]] = {
    "bmp-565": (
        lambda: bmp(
            16, words(5, 6, 5), compression=3, extra=struct.pack("<LLL", 0xF800, 0x7E0, 31)
        ),
        PIXELS,
        LOSSY,
    ),
    "bmp-555": (lambda: bmp(16, words(5, 5, 5)), PIXELS, LOSSY),
    "bmp-top-row-first": (
        lambda: bmp(24, PIXELS[:, :, ::-1].tobytes(), rows=-HEIGHT),
        PIXELS,
        EXACT,
    ),
    "bmp-gray-palette": (
        lambda: bmp(8, GRAY[::-1].tobytes(), extra=bmp_palette(GRAY_ENTRIES)),
        GRAY_SHOWN,
        EXACT,
    ),
    "bmp-palette": (
        lambda: bmp(8, GRAY[::-1].tobytes(), extra=bmp_palette(RAMP)),
        RAMP[GRAY],
        EXACT,
    ),
    "bmp-run-lengths": (
        lambda: bmp(8, run_lengths(), compression=1, extra=bmp_palette(RAMP)),
        RAMP[GRAY],
        EXACT,
    ),
    "bmp-1-bit-white-first": (
        lambda: bmp(1, BITS, extra=bmp_palette(GRAY_ENTRIES[[255, 0]])),
        255 - spread(1),
        EXACT,
    ),
    "bmp-of-os2": (core_header, PIXELS, EXACT),
    "bmp-32-without-alpha": (
        lambda: bmp(32, np.dstack([PIXELS[..., ::-1], GRAY * 0])[::-1].tobytes()),
        PIXELS,
        EXACT,
    ),
    "gif-transparent": (lambda: pillow("GIF", WITH_ALPHA), OVER_WHITE, 8),
    "gif-interlaced": (lambda: pillow("GIF", interlace=1), PIXELS, 8),
    "gif-on-a-larger-screen": (gif_on_larger_screen, ON_LARGER_SCREEN, 8),
    "webp-lossy": (lambda: pillow("WEBP", quality=95), PIXELS, 8),
    "webp-lossy-with-alpha": (lambda: pillow("WEBP", WITH_ALPHA, quality=95), OVER_WHITE, 8),
    "avif-with-alpha": (lambda: pillow("AVIF", WITH_ALPHA, quality=95), OVER_WHITE, 8),
}

CASES = {**PNG_CASES, **JPEG_CASES, **TIFF_CASES, **OTHER_CASES}


def mean_error(photograph: Photograph, wanted: NDArray[Any]) -> float:
    assert photograph.pixels.shape == wanted.shape
    return float(np.abs(photograph.pixels.astype(int) - wanted).mean())


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize("name", CASES)
def test_colors_are_the_true_ones(name: str) -> None:
    build, wanted, most = CASES[name]

    assert mean_error(read_photograph(build()), wanted) <= most


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {"compress_level": 1}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95}),
    ],
    ids=["jpeg-progressive", "png", "webp", "avif"],
)
def test_each_orientation_of_each_format(
    form: str, options: dict[str, Any], orientation: int
) -> None:
    turned = ImageOps.exif_transpose(
        Image.open(io.BytesIO(pillow("PNG", exif=oriented(orientation))))
    )
    content = pillow(form, exif=oriented(orientation), **options)

    assert mean_error(read_photograph(content), np.asarray(turned)) <= LOSSY


ADVICE: Mapping[str, Callable[[], bytes]] = {
    "jpeg-cmyk": lambda: saved(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "jpeg-arithmetic": lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "jpeg-lossless": lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1),
    "jpeg-hierarchical": lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc5", 1),
    "jpeg-12-bits": lambda: JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1),
    "tiff-1-bit": lambda: saved(Image.fromarray(GRAY).convert("1"), "TIFF"),
    "tiff-fax": lambda: saved(Image.fromarray(GRAY).convert("1"), "TIFF", compression="group4"),
    "tiff-bits-reversed": lambda: tiff(t266=2),
    "tiff-old-jpeg": lambda: tiff(compression=6),
    "tiff-float-predictor": lambda: tiff(t317=3),
    "gif-animation": lambda: saved(
        QUANTIZED, "GIF", save_all=True, append_images=[QUANTIZED.rotate(180)]
    ),
    "png-animation": lambda: png(rows(PIXELS), chunks=png_chunk(b"acTL", struct.pack(">LL", 3, 0))),
    "png-palette-too-short": lambda: png(rows(GRAY), color=3, chunks=palette(RAMP[:100])),
    "png-palette-missing": lambda: png(rows(GRAY), color=3),
}


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize("name", ADVICE)
def test_what_is_not_read_says_what_to_do(name: str) -> None:
    with pytest.raises(Rejected, match=r": (copy or )?export") as caught:
        read_photograph(ADVICE[name]())

    assert caught.value.code in {"not_an_image", "bad_count", "corrupt_pixel_data"}


LAB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
PROFILES: Mapping[str, tuple[Callable[[], bytes], bytes | None]] = {
    "jpeg-parts-in-reverse": (lambda: profile_parts((3, 2, 1), 3), ICC_PROFILE),
    "jpeg-a-part-missing": (lambda: profile_parts((1, 3), 3), None),
    "jpeg-a-part-twice": (lambda: profile_parts((1, 2, 2, 3), 3), ICC_PROFILE),
    "jpeg-more-parts-than-counted": (lambda: profile_parts((1, 2, 3), 2), None),
    "png-profile-and-gamma": (
        lambda: png(rows(PIXELS), chunks=GAMMA + profile_chunk(ICC_PROFILE)),
        ICC_PROFILE,
    ),
    "png-profile-of-lab": (lambda: png(rows(PIXELS), chunks=profile_chunk(LAB_PROFILE)), None),
    "png-profile-that-breaks-off": (
        lambda: png(rows(PIXELS), chunks=profile_chunk(ICC_PROFILE[:200])),
        None,
    ),
    "webp": (lambda: pillow("WEBP", lossless=True, icc_profile=ICC_PROFILE), ICC_PROFILE),
    "avif": (lambda: pillow("AVIF", quality=95, icc_profile=ICC_PROFILE), ICC_PROFILE),
    "tiff-lzw": (
        lambda: pillow("TIFF", compression="tiff_lzw", icc_profile=ICC_PROFILE),
        ICC_PROFILE,
    ),
    "jpeg-turned": (
        lambda: pillow("JPEG", exif=oriented(8), icc_profile=ICC_PROFILE),
        ICC_PROFILE,
    ),
}


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_kept_whole_or_left_out(name: str) -> None:
    build, wanted = PROFILES[name]

    assert read_photograph(build()).icc_profile == wanted


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize(
    ("content", "is_kept"),
    [
        (JPEG, True),
        (scan_says(0, 0, 0), True),
        (refitted(JPEG, lambda part: b"\xff" + part), True),
        (refitted(JPEG, without(0xC4)), False),
        (WITHOUT_JFIF, False),
        (after_start(WITHOUT_JFIF, adobe(2)), False),
    ],
    ids=["plain", "scan-put-right", "fill-bytes", "no-tables", "no-jfif", "adobe"],
)
def test_only_what_every_reader_takes_is_stored_as_it_is(content: bytes, is_kept: bool) -> None:
    kept = read_photograph(content).baseline_jpeg

    assert (kept is not None) == is_kept
    if kept is not None:
        assert mean_error(read_photograph(kept), PIXELS) <= LOSSY
