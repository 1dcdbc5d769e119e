"""Milliseconds a megapixel of finding cells, on one thread.

Run it with `python -m tests.benchmarks.bench_segment`.

Fields of the phantom; one JSON line a size. Processor time, so that other work does not count.
"""

from __future__ import annotations

import json
import statistics
import time

import cv2

from listener.demo.phantom import Recipe, draw_field
from pipeline.domain import SourceImage
from pipeline.segmentation.find_cells import find_cells
from tests.pipeline.smears import image_of

SIZES = ((640, 480, 0.09), (1280, 960, 0.1), (2592, 1944, 0.08))
"""Width, height and µm a pixel."""
ROUNDS = 5


def main() -> None:
    cv2.setNumThreads(1)
    for width, height, um in SIZES:
        image = image_of(draw_field(1, Recipe(width=width, height=height, um_per_px=um)).pixels)
        find_cells(image)
        spent = [_milliseconds(image) / (width * height / 1e6) for _ in range(ROUNDS)]
        figures = {"median": statistics.median(spent), "least": min(spent), "most": max(spent)}
        rounded = {name: round(value, 1) for name, value in figures.items()}
        print(json.dumps({"width": width, "height": height, "ms_per_megapixel": rounded}))


def _milliseconds(image: SourceImage) -> float:
    began = time.thread_time()
    find_cells(image)
    return (time.thread_time() - began) * 1000


if __name__ == "__main__":
    main()
