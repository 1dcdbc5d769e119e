"""Which pictures the segmenter learns from and which only judge it: one rule for both.

The last sixth of the files of each source, and of each type where a source has one folder a type,
is held out; neighbouring files are often of one smear, so none is drawn by chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

HELD_OUT = 6
"""One in so many."""
BY_TYPE = ("pbc", "lmu")
"""Sources of single cells, whose file names begin with the type."""


class Pictured(Protocol):
    """What the rule asks of a picture; rows of a pack and labelled pictures have it."""

    @property
    def file(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def cell_type(self) -> str: ...


Picture = TypeVar("Picture", bound=Pictured)


def parted(pictures: Iterable[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Pictures to learn from, and pictures held out; every one is in exactly one of the two.

    Give all pictures of a source at once: the rule counts them.
    """
    groups: dict[tuple[str, str], list[Picture]] = {}
    for picture in sorted(pictures, key=lambda one: one.file):
        kind = picture.cell_type if picture.source in BY_TYPE else ""
        groups.setdefault((picture.source, kind), []).append(picture)
    learned: list[Picture] = []
    held_out: list[Picture] = []
    for group in groups.values():
        kept = len(group) - len(group) // HELD_OUT
        learned += group[:kept]
        held_out += group[kept:]
    return learned, held_out
