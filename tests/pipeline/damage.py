"""Damage to compressed frames, as disks and networks do it; the end of a frame stays whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.domain import RGB

Harm = Callable[[bytearray, int, np.random.Generator], None]

_SECTOR = 512
_AT_THE_END = 600
"""Bytes that are left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """What was done to a frame."""

    kind: str
    frame: bytes


def _flip_a_bit(frame: bytearray, at: int, random: np.random.Generator) -> None:
    frame[at] ^= 1 << int(random.integers(8))


def _garble_16_bytes(frame: bytearray, at: int, random: np.random.Generator) -> None:
    frame[at : at + 16] = random.bytes(16)


def _lose_16_bytes(frame: bytearray, at: int, _: np.random.Generator) -> None:
    del frame[at : at + 16]


def _wipe_a_sector(frame: bytearray, at: int, _: np.random.Generator) -> None:
    frame[at : at + _SECTOR] = bytes(_SECTOR)


def _garble_a_sector(frame: bytearray, at: int, random: np.random.Generator) -> None:
    frame[at : at + _SECTOR] = random.bytes(_SECTOR)


def _lose_a_sector(frame: bytearray, at: int, _: np.random.Generator) -> None:
    del frame[at : at + _SECTOR]


SMALL: Mapping[str, Harm] = {
    "a bit flipped": _flip_a_bit,
    "16 bytes garbled": _garble_16_bytes,
    "16 bytes lost": _lose_16_bytes,
}
LARGE: Mapping[str, Harm] = {
    "a sector wiped": _wipe_a_sector,
    "a sector garbled": _garble_a_sector,
    "a sector lost": _lose_a_sector,
}


def damaged(frame: bytes, kinds: Mapping[str, Harm], *, first: int, times: int) -> list[Damaged]:
    """The frame with each kind of damage in `times` places behind its first bytes, seeded."""
    random = np.random.default_rng(len(frame))
    made = []
    for kind, harm in kinds.items():
        for _ in range(times):
            changed = bytearray(frame)
            harm(changed, int(random.integers(first, len(frame) - _AT_THE_END)), random)
            made.append(Damaged(kind=kind, frame=bytes(changed)))
    return [one for one in made if one.frame != frame]


def is_harmful(pixels: RGB, whole: RGB) -> bool:
    """Whether more than 2 % of the pixels are off by more than 10 of 255: cells look otherwise."""
    apart = np.abs(pixels.astype(np.int16) - whole).max(axis=2)
    return bool((apart > 10).mean() > 0.02)
