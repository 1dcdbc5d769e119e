"""Splits encapsulated Pixel Data into its frames by what the fragments hold (PS3.5 A.4).

Number of Frames and offset tables may be missing or wrong; a fragment that begins with a new
codestream, after one that has ended, begins a new frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from pipeline.decoding.codestream import begins_image, end_of_image
from pipeline.errors import Rejected

_ITEM_HEADER = Struct("<HHL")
_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_HEAD_BYTES = 12


def split_frames(pixel_data: bytes, *, is_rle: bool) -> list[bytes]:
    """The compressed frames, each joined from its fragments; padding fragments are left out.

    Raises Rejected `decode_failed` when the data is not a sequence of items, and
    `truncated_pixel_data` when a fragment is shorter than it says.
    """
    fragments = [one for one in _fragments(pixel_data) if bytes(one).strip(b"\0")]
    if is_rle:  # one fragment per frame (PS3.5 A.4.2)
        return [bytes(one) for one in fragments]
    return [frame for group in _groups(fragments) for frame in _images(b"".join(group))]


def _fragments(pixel_data: bytes) -> Iterator[memoryview]:
    """The items behind the Basic Offset Table."""
    view = memoryview(pixel_data)
    position, is_table = 0, True
    while position + _ITEM_HEADER.size <= len(view):
        group, element, length = _ITEM_HEADER.unpack_from(view, position)
        if (group, element) == _DELIMITER:
            return
        if (group, element) != _ITEM:
            raise Rejected("Pixel Data is not encapsulated (PS3.5 A.4)", code="decode_failed")
        position += _ITEM_HEADER.size
        if position + length > len(view):
            raise Rejected("A fragment of Pixel Data breaks off", code="truncated_pixel_data")
        if not is_table:
            yield view[position : position + length]
        is_table = False
        position += length


def _groups(fragments: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """Fragments of one frame each."""
    group: list[memoryview] = []
    for fragment in fragments:
        if group and begins_image(bytes(fragment[:_HEAD_BYTES])) and _has_ended(group):
            yield group
            group = []
        group.append(fragment)
    if group:
        yield group


def _has_ended(group: Sequence[memoryview]) -> bool:
    return end_of_image(b"".join(group)) is not None


def _images(joined: bytes) -> Iterator[bytes]:
    """The codestreams that follow one another in the same fragment; usually one."""
    while (end := end_of_image(joined)) is not None:
        rest = joined[end:].lstrip(b"\0")
        if not begins_image(rest):
            break
        yield joined[:end]
        joined = rest
    yield joined
