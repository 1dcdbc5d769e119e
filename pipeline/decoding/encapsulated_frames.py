"""Splits encapsulated Pixel Data into its frames by what the fragments hold (PS3.5 A.4).

Number of Frames and offset tables may be missing or wrong; a fragment that begins with a new
codestream, after one that has ended, begins a new frame, and so does one with an RLE header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct

from pipeline.decoding.codestream import begins_image, end_of_image
from pipeline.decoding.rle_check import begins_rle
from pipeline.errors import Rejected

_ITEM_HEADER = Struct("<HHL")
_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_HEAD_BYTES = 64


def split_frames(pixel_data: bytes, *, is_rle: bool) -> list[bytes]:
    """The compressed frames, each joined from its fragments; padding fragments are left out.

    Raises Rejected `decode_failed` when the data is not a sequence of items, and
    `truncated_pixel_data` when a fragment is shorter than it says.
    """
    begins = begins_rle if is_rle else begins_image
    fragments = [one for one in _fragments(pixel_data, begins) if bytes(one).strip(b"\0")]
    groups = _groups(fragments, begins, _always if is_rle else _has_ended)
    if is_rle:
        return [b"".join(group) for group in groups]
    return [frame for group in groups for frame in _images(b"".join(group))]


def _fragments(pixel_data: bytes, begins: Callable[[bytes], bool]) -> Iterator[memoryview]:
    """The items behind the Basic Offset Table; some writers leave that item out."""
    view = memoryview(pixel_data)
    position, is_first = 0, True
    while position + _ITEM_HEADER.size <= len(view):
        group, element, length = _ITEM_HEADER.unpack_from(view, position)
        if (group, element) == _DELIMITER:
            return
        if (group, element) != _ITEM:
            raise Rejected("Pixel Data is not encapsulated (PS3.5 A.4)", code="decode_failed")
        position += _ITEM_HEADER.size
        if position + length > len(view):
            raise Rejected("A fragment of Pixel Data breaks off", code="truncated_pixel_data")
        fragment = view[position : position + length]
        if not is_first or begins(bytes(fragment[:_HEAD_BYTES])):
            yield fragment
        is_first = False
        position += length


def _groups(
    fragments: Sequence[memoryview],
    begins: Callable[[bytes], bool],
    has_ended: Callable[[Sequence[memoryview]], bool],
) -> Iterator[list[memoryview]]:
    """Fragments of one frame each."""
    group: list[memoryview] = []
    for fragment in fragments:
        if group and begins(bytes(fragment[:_HEAD_BYTES])) and has_ended(group):
            yield group
            group = []
        group.append(fragment)
    if group:
        yield group


def _always(_: Sequence[memoryview]) -> bool:
    """An RLE frame does not say where it ends."""
    return True


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
