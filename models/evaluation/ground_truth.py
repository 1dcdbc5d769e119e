"""What a pack knows about its pictures: boxes, centroids and masks of white cells."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Rejected

LEUKOCYTE = 1
"""Category id of `boxes.json`."""
NUCLEUS_LEVEL, CYTOPLASM_LEVEL = 255, 128
"""Grey levels of a mask; a little apart from them is still them."""

Boxes = NDArray[np.float64]
"""N × 4: x, y, width, height in pixels."""
Points = NDArray[np.float64]
"""N × 2: x, y in pixels."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroundTruth:
    """Boxes by file, blast centroids by file; a file that is missing was not annotated."""

    root: Path
    boxes: Mapping[str, Boxes] = field(default_factory=dict)
    centroids: Mapping[str, Points] = field(default_factory=dict)

    def masks(self, file: str) -> tuple[Mask, Mask] | None:
        """Nucleus and whole cell of a picture, height × width; None where nobody drew them."""
        path = mask_path(self.root, file)
        if not path.is_file():
            return None
        drawn = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
        if drawn is None:
            raise Rejected(
                f"The mask of {file} is no picture. Complete the pack, or remove the mask.",
                code="pack_mask",
            )
        nucleus = drawn > (NUCLEUS_LEVEL + CYTOPLASM_LEVEL) // 2
        return np.asarray(nucleus), np.asarray(drawn > CYTOPLASM_LEVEL // 2)


def mask_path(root: Path, file: str) -> Path:
    """`<source>/masks/<stem>.png` of `<source>/images/<stem>.jpg`."""
    picture = root / file
    return picture.parent.parent / "masks" / f"{picture.stem}.png"


def read_ground_truth(root: Path) -> GroundTruth:
    """Everything that the pack in `root` knows; raises Rejected (pack_boxes, pack_centroids)."""
    boxes: dict[str, Boxes] = {}
    centroids: dict[str, Points] = {}
    for source in sorted(path for path in root.iterdir() if path.is_dir()):
        if (source / "boxes.json").is_file():
            boxes |= _read_boxes(source / "boxes.json")
        if (source / "centroids.csv").is_file():
            centroids |= _read_centroids(source / "centroids.csv")
    return GroundTruth(root=root, boxes=boxes, centroids=centroids)


def _read_boxes(path: Path) -> dict[str, Boxes]:
    """Leukocytes of each picture; a picture without any has an empty array."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in told["images"]}
        found: dict[str, list[list[float]]] = {name: [] for name in names.values()}
        for drawn in told["annotations"]:
            if drawn["category_id"] == LEUKOCYTE:
                found[names[drawn["image_id"]]].append([float(side) for side in drawn["bbox"]])
    except (ValueError, KeyError, TypeError) as err:
        raise Rejected(
            f"{path.parent.name}/boxes.json is not COCO. Write images, annotations and bbox.",
            code="pack_boxes",
        ) from err
    return {name: np.array(sides, np.float64).reshape(-1, 4) for name, sides in found.items()}


def _read_centroids(path: Path) -> dict[str, Points]:
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                found.setdefault(line["file"], []).append((float(line["x"]), float(line["y"])))
    except (ValueError, KeyError, TypeError) as err:
        raise Rejected(
            f"{path.parent.name}/centroids.csv is unusable. It needs file, x and y.",
            code="pack_centroids",
        ) from err
    return {name: np.array(points, np.float64).reshape(-1, 2) for name, points in found.items()}
