"""What the headers of a JPEG promise (ITU-T T.81), and slips in them that change no pixel.

Telephones and cameras write values into headers that the standard fixes anyway. Decoders ignore
them with a warning, and a warning is taken for damage here, so they are put right beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.decoding.codestream import FRAME_HEADERS, SOS, all_segments, segments

APP0, APP14 = 0xE0, 0xEE
_NOTES = frozenset({*range(0xE1, 0xF0), 0xFE}) - {APP14}
_SOF0, _SOF1 = 0xC0, 0xC1
_COEFFICIENTS = 64
"""Of a block of 8 by 8 (T.81 A.3.3)."""
_WHOLE_BLOCK = bytes((0, _COEFFICIENTS - 1, 0))
"""Ss, Se, Ah and Al of a sequential scan (T.81 Table B.3)."""
_JFIF, _JFIF_MAJOR_AT = b"JFIF\0", 5
_ADOBE, _ADOBE_TRANSFORM_AT = b"Adobe", 11
_YCBCR = b"\1"


def has_every_scan(frame: bytes) -> bool:
    """Whether every coefficient of every component is given down to its last bit.

    A decoder shows what it has without a warning, so that a progressive file whose last scans are
    missing looks a little blurred (T.81 G.1.1).
    """
    missing: set[tuple[int, int]] = set()
    is_sequential = False
    for segment in all_segments(frame):
        body = segment.body.tolist()
        if segment.marker in FRAME_HEADERS:
            is_sequential = segment.marker in (_SOF0, _SOF1)
            missing = {(one, index) for one in body[6::3] for index in range(_COEFFICIENTS)}
        if segment.marker == SOS:
            for given in _given(body, is_sequential=is_sequential):
                missing.discard(given)
    return not missing


def _given(scan: Sequence[int], *, is_sequential: bool) -> Iterator[tuple[int, int]]:
    """Components and coefficients of which a scan leaves no bit for a later one."""
    count = scan[0]
    first, last, bits = _WHOLE_BLOCK if is_sequential else scan[1 + 2 * count : 4 + 2 * count]
    if bits & 15 == 0:
        for component in scan[1 : 1 + 2 * count : 2]:
            for index in range(first, last + 1):
                yield component, index


def with_plain_headers(frame: bytes) -> bytes:
    """The same frame with what decoders expect where they ignore what stands there."""
    changes = {at: wanted for at, wanted in _slips(frame) if frame[at : at + len(wanted)] != wanted}
    if not changes:
        return frame
    plain = bytearray(frame)
    for at, wanted in changes.items():
        plain[at : at + len(wanted)] = wanted
    return bytes(plain)


def without_notes(frame: bytes) -> bytes:
    """The frame without APP1 to APP13, APP15 and comments: places, owners, serial numbers.

    A profile among them that is not whole would be taken for damage of the pixels.
    """
    kept, position = [frame[:2]], 2
    for segment in segments(frame):
        is_note = segment.marker in _NOTES
        kept.append(b"" if is_note else frame[segment.at : segment.end])
        position = segment.end
    return b"".join([*kept, frame[position:]])


def _slips(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Places in the frame, and what has to stand there."""
    is_sequential = False
    for segment in all_segments(frame):
        start, body = segment.at + 4, bytes(segment.body)
        if segment.marker in FRAME_HEADERS:
            is_sequential = segment.marker in (_SOF0, _SOF1)
        if segment.marker == APP0 and body.startswith(_JFIF) and body[_JFIF_MAJOR_AT:]:
            yield start + _JFIF_MAJOR_AT, b"\1"
        transform = body[_ADOBE_TRANSFORM_AT : _ADOBE_TRANSFORM_AT + 1]
        if segment.marker == APP14 and body.startswith(_ADOBE) and transform > _YCBCR:
            yield start + _ADOBE_TRANSFORM_AT, _YCBCR
        if segment.marker == SOS and is_sequential and len(body) == 4 + 2 * body[0]:
            yield start + len(body) - len(_WHOLE_BLOCK), _WHOLE_BLOCK
