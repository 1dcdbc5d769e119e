"""Decodes the LZW of TIFF 6.0 strictly; libtiff ignores codes that are left over or missing.

LZW has no checksum. Damage shows in codes that are not defined, and in a length that is not that
of the pixels; a code that was exchanged for another of the same length is not noticed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.decoding.photographs.photograph import damaged

_CLEAR, _END = 256, 257
_MOST_CODES = 4096
_WIDTHS: NDArray[np.int64] = np.repeat([9, 10, 11, 12], [254, 512, 1024, 2306])
"""Bits of each code after a Clear, as the table grows (TIFF 6.0 section 13)."""
_STARTS: NDArray[np.int64] = np.concatenate([[0], np.cumsum(_WIDTHS)])
_WINDOW_BYTES = int(_STARTS[-1]) // 8 + 4
_LITERALS = [bytes((value,)) for value in range(256)]


def decode_lzw(data: bytes, *, expected: int) -> bytes:
    """The decoded bytes, exactly `expected` of them; Rejected `corrupt_pixel_data` otherwise."""
    decoded: list[bytes] = []
    length, position = 0, 0
    while length < expected:
        codes = _codes_at(data, position)
        controls = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        run = int(controls[0]) if len(controls) else len(codes)
        length += _decode_run(codes[:run].tolist(), decoded)
        if run == len(codes) or codes[run] == _END:
            break
        position += int(_STARTS[run + 1])
    if length != expected:
        raise damaged(f"an LZW strip gives {length} of {expected} bytes")
    return b"".join(decoded)


def _codes_at(data: bytes, position: int) -> NDArray[np.int64]:
    """The codes from a bit position on, as if no Clear followed, as far as the data goes."""
    first = position >> 3
    window = np.frombuffer(data[first : first + _WINDOW_BYTES] + bytes(3), np.uint8)
    wide = window.astype(np.int64)
    triples = (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
    starts = _STARTS[:-1] + (position & 7)
    is_whole = starts + _WIDTHS <= (len(window) - 3) * 8
    starts, widths = starts[is_whole], _WIDTHS[is_whole]
    codes: NDArray[np.int64] = (triples[starts >> 3] >> (24 - (starts & 7) - widths)) & (
        (1 << widths) - 1
    )
    return codes


def _decode_run(codes: list[int], decoded: list[bytes]) -> int:
    """Decode the codes between two Clear codes; how many bytes they stand for."""
    table = [*_LITERALS, b"", b""]
    before, length = b"", 0
    for code in codes:
        if code < len(table):
            entry = table[code]
        elif code == len(table) and before:
            entry = before + before[:1]
        else:
            raise damaged("an LZW code is not defined")
        if before and len(table) < _MOST_CODES:
            table.append(before + entry[:1])
        decoded.append(entry)
        length += len(entry)
        before = entry
    return length
