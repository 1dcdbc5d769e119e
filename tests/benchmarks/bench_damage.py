"""What becomes of damaged pixel data, by transfer syntax and kind of damage.

Run it with `python -W ignore -m tests.benchmarks.bench_damage`.

A field of the phantom, damaged in seeded places while its ends stay whole; one JSON line each.
`harmful` were let through although more than 2 % of their pixels are off by more than 10 of 255.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator

from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from listener.demo.phantom import Recipe, draw_field
from pipeline.decoding.frames import read_frames
from pipeline.domain import RGB
from pipeline.errors import Rejected
from tests.builders import build_image
from tests.pipeline.damage import LARGE, SMALL, damaged, is_harmful

SYNTAXES = (
    *(JPEGBaseline8Bit, RLELossless, JPEGLSLossless, JPEGLSNearLossless),
    *(JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2K),
)
TIMES = 50
SPARED = 700
"""Bytes of headers at the beginning; HTJ2K frames are too small to spare as many."""
_SECTOR_AND_MORE = 2000


def main() -> None:
    logging.disable()
    pixels = draw_field(3, Recipe(width=640, height=480)).pixels
    for syntax in SYNTAXES:
        image = build_image(transfer_syntax=syntax, pixels=pixels)
        for kind, fates in _fates(image):
            print(json.dumps({"syntax": syntax.name, "damage": kind, **fates}), flush=True)


def _fates(image: FileDataset) -> Iterator[tuple[str, Counter[str]]]:
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    whole = _pixels(image, frame)
    first = SPARED if len(frame) > _SECTOR_AND_MORE else SPARED // 4
    for kind, harm in {**SMALL, **LARGE}.items():
        frames = damaged(frame, {kind: harm}, first=first, times=TIMES)
        yield kind, Counter(_fate(image, one.frame, whole) for one in frames)


def _fate(image: FileDataset, frame: bytes, whole: RGB) -> str:
    try:
        return "harmful" if is_harmful(_pixels(image, frame), whole) else "harmless"
    except Rejected:
        return "refused"


def _pixels(image: FileDataset, frame: bytes) -> RGB:
    image.PixelData = encapsulate([frame])
    (source,) = read_frames(image)
    return source.pixels


if __name__ == "__main__":
    main()
