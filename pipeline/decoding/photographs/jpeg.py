"""Reads JPEG files (JFIF, EXIF): strictly, and upright by their EXIF orientation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.decoding.codestream import (
    Segment,
    end_of_image,
    read_codestream,
    segments,
)
from pipeline.decoding.frames import ImageLimits
from pipeline.decoding.jpeg_frame import decode_jpeg
from pipeline.decoding.jpeg_headers import with_plain_headers, without_notes
from pipeline.decoding.photographs.exif import UPRIGHT, Exif, read_exif
from pipeline.decoding.photographs.photograph import (
    MAX_PROFILE_BYTES,
    Photograph,
    check_size,
    color_on_white,
    damaged,
    rgb_profile,
    truncated,
    unsupported,
    upright,
)
from pipeline.errors import Rejected

_SOF0, _SOF1, _SOF2, _HUFFMAN_TABLES = 0xC0, 0xC1, 0xC2, 0xC4
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_ICC_MARK = b"ICC_PROFILE\0"
_EXIF_MARK = b"Exif\0\0"


def read_jpeg(content: bytes, limits: ImageLimits) -> Photograph:
    """Decode the first image of a file; previews and depth maps that follow it are left out."""
    found = list(segments(content))
    header = next((one for one in found if one.marker in (_SOF0, _SOF1, _SOF2)), None)
    stream = read_codestream(content)
    if header is None or stream is None:
        raise unsupported("is no JPEG photograph that is read: export it as JPEG or PNG")
    check_size(stream.rows, stream.columns, limits)
    if stream.components not in (1, 3) or stream.bits != 8:
        raise unsupported("is neither RGB nor gray of 8 bits (CMYK, for example): export it as RGB")
    end = end_of_image(content)
    if end is None:
        raise truncated()
    frame = without_notes(with_plain_headers(content[:end]))
    try:
        pixels, _ = decode_jpeg(frame, photometric="YBR_FULL_422")
    except Rejected as err:
        if err.code == "truncated_pixel_data":
            raise truncated() from err
        raise damaged("its compressed data does not decode cleanly") from err
    orientation = jpeg_exif(found).orientation
    is_kept = (
        header.marker == _SOF0
        and orientation == UPRIGHT
        and _is_stated(stream.components, found)
        and any(one.marker == _HUFFMAN_TABLES for one in found)  # Motion JPEG leaves them out
    )
    return Photograph(
        pixels=upright(color_on_white(np.asarray(pixels, np.uint8), None), orientation),
        icc_profile=rgb_profile(_icc_profile(found)) if stream.components == 3 else None,
        baseline_jpeg=frame if is_kept else None,
        is_gray=stream.components == 1,
    )


def _is_stated(components: int, found: Sequence[Segment]) -> bool:
    """Gray, or YCbCr by a JFIF or EXIF segment; an Adobe segment may say otherwise."""
    is_ybr = any(one.marker in (_APP0, _APP1) for one in found)
    is_adobe = any(one.marker == _APP14 for one in found)
    return components == 1 or (is_ybr and not is_adobe)


def jpeg_exif(found: Sequence[Segment]) -> Exif:
    """What the first EXIF segment says."""
    for one in found:
        body = bytes(one.body)
        if one.marker == _APP1 and body.startswith(_EXIF_MARK):
            return read_exif(body)
    return Exif()


def _icc_profile(found: Sequence[Segment]) -> bytes | None:
    """Joined from its numbered parts (ICC.1:2010 annex B.4); None where one is missing."""
    parts = {}
    count = 0
    for one in found:
        body = bytes(one.body)
        if one.marker == _APP2 and body.startswith(_ICC_MARK) and len(body) > len(_ICC_MARK) + 2:
            number, count = body[len(_ICC_MARK)], body[len(_ICC_MARK) + 1]
            parts[number] = body[len(_ICC_MARK) + 2 :]
    if not count or set(parts) != set(range(1, count + 1)):
        return None
    joined = b"".join(parts[number] for number in sorted(parts))
    return joined if len(joined) <= MAX_PROFILE_BYTES else None
