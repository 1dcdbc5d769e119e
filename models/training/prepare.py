"""Pack the crops of data packs for training, cut by the service's own code.

`python -m models.training.prepare --data ../shared/data ../shared/data2 --out RUN/pack`
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from models.evaluation.cells import masked_scale
from models.evaluation.detection import points_found
from models.evaluation.ground_truth import GroundTruth, read_ground_truth
from models.evaluation.pack import PackRow, PictureKind, read_pack
from models.segmenter import OnnxSegmenter
from models.training.augment import Mask
from models.training.data import UNKNOWN, CropRow, type_index
from pipeline.domain import RGB, Cell, CellKind, CellType, FieldCells, SourceImage
from pipeline.findings.crops import CROP_PX, cut_crops, cut_masked
from pipeline.segmentation.find_cells import central_cell, find_cells

JUDGED_ONLY = ("allidb1", "iml", "vivax")
"""Packed as the part `judge`: nothing is fitted to them or chosen by them."""
NOT_PACKED = ("hs2", "chula")
"""Fields whose cells have no label."""
NEVER = (*JUDGED_ONLY, *NOT_PACKED)
"""Of no training."""

BACKGROUND_LEVEL = 12
"""At or below, a pixel of an already masked picture is background (JPEG leaves a little noise)."""

HELD_OUT_GROUPS = (
    *(f"group:lmu_MYO_dev_{k:03d}" for k in (11, 12, 13)),
    *(f"group:lmu_NGS_dev_{k:03d}" for k in range(21, 26)),
    *(
        f"group:aria_{stage}_{k:02d}"
        for stage in ("Benign", "Early", "Pre", "Pro")
        for k in (12, 13, 14)
    ),
)
HELD_OUT_TAILS = {"pbc": 0.15, "zheng1": 0.15, "raabin": 1 / 3}
"""Last share of the files of each type, for sources that name no groups small enough."""

WEAK_TRUST = 0.6
"""Of cells whose label is that of their field (aria)."""

ASSUMED_NORMAL = ("bccd", "draaslan", "raabin")
ASSUMED_NORMAL_TRUST = 0.5
"""Of unlabelled cells in sources that are healthy blood as far as known."""

PICTURES_AT_ONCE = 16

Packed = tuple[RGB, Mask, CropRow]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [row for pack in options.data for row in read_pack(pack, None)]
    parts = parts_of(rows)
    kept = [row for row in rows if row.file in parts]
    with ProcessPoolExecutor(initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        pictures = pool.map(
            _pack_picture, kept, [parts[row.file] for row in kept], chunksize=PICTURES_AT_ONCE
        )
        packed = [crop for crops in pictures for crop in crops]
    write_pack(options.out, packed)
    print(f"{len(packed)} crops of {len(parts)} pictures")


def write_pack(folder: Path, packed: Sequence[Packed]) -> None:
    """Write `crops.npy`, `masks.npy` and `rows.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(packed), CROP_PX, CROP_PX)
    crops = open_memmap(folder / "crops.npy", "w+", np.uint8, (*shape, 3))
    masks = open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(CropRow)])
        writer.writeheader()
        for index, (crop, mask, row) in enumerate(packed):
            crops[index], masks[index] = crop, mask
            writer.writerow(asdict(row))


def parts_of(rows: Sequence[PackRow]) -> dict[str, str]:
    """Part (train, val or judge) of each picture by its file name; NOT_PACKED's are in none."""
    tails = _tail_files(rows)
    return {row.file: _part(row, tails) for row in rows if row.source not in NOT_PACKED}


def _tail_files(rows: Sequence[PackRow]) -> frozenset[str]:
    """The last files of each type, by name, so that neighbours stay together."""
    by_type: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.source in HELD_OUT_TAILS:
            by_type.setdefault((row.source, row.cell_type, row.subject), []).append(row.file)
    return frozenset(
        name
        for (source, *_), names in by_type.items()
        for name in sorted(names)[len(names) - round(len(names) * HELD_OUT_TAILS[source]) :]
    )


def _part(row: PackRow, tails: frozenset[str]) -> str:
    if row.source in JUDGED_ONLY:
        return "judge"
    held_out = row.file in tails or row.split == "val" or row.subject in HELD_OUT_GROUPS
    return "val" if held_out else "train"


def _pack_picture(row: PackRow, part: str) -> list[Packed]:
    return list(_crops_of(row, _describe(row, part)))


def _crops_of(row: PackRow, known: CropRow) -> Iterator[Packed]:
    if row.is_masked:
        pixels = row.read_pixels()
        crop = cut_masked(pixels, masked_scale(pixels, row.source))
        yield crop, _outline_of_masked(crop), known
        return
    image = row.read_image()
    found = find_cells(image, _segmenter())
    cells = _cells_to_learn(row, image, found)
    masked = cut_crops(image, cells, found.scale)
    whole = cut_crops(image, [_without_outline(cell, image) for cell in cells], found.scale)
    for cell, open_crop, masked_crop in zip(cells, whole, masked, strict=True):
        yield open_crop, _outline_of_masked(masked_crop), _of_cell(known, row, cell)


def _of_cell(known: CropRow, row: PackRow, cell: Cell) -> CropRow:
    """Where blasts carry a mark, a cell of a leukemic field is one, or is not known to be."""
    marks = _truth(row.root).centroids.get(row.file)
    if marks is None or row.label != "leukemic" or points_found(marks, [cell.contour]):
        return known
    return replace(known, leukemic=UNKNOWN, trust=0.0, cell_type=UNKNOWN)


@cache
def _truth(root: Path) -> GroundTruth:
    return read_ground_truth(root)


@cache
def _segmenter() -> OnnxSegmenter:
    """One for each process."""
    return OnnxSegmenter.load()


def _cells_to_learn(row: PackRow, image: SourceImage, found: FieldCells) -> list[Cell]:
    """The central cell of a single-cell picture; every whole white cell of a field."""
    if row.kind is PictureKind.CELL:
        central = central_cell(found, width=image.width, height=image.height)
        return [central] if central is not None else []
    return [c for c in found.cells if c.kind is CellKind.WHITE_CELL and not c.is_cut_by_edge]


def _without_outline(cell: Cell, image: SourceImage) -> Cell:
    """The same cell, with the picture's edge for an outline: its crop keeps the surroundings."""
    right, below = image.width - 1, image.height - 1
    frame = np.array([[0, 0], [right, 0], [right, below], [0, below]], np.int32)
    return replace(cell, contour=frame)


def _outline_of_masked(crop: RGB) -> Mask:
    """255 on the cell, 0 on the black around it; specks go, holes are filled."""
    lit = (crop.max(axis=2) > BACKGROUND_LEVEL).astype(np.uint8) * 255
    contours, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline: NDArray[np.uint8] = np.zeros_like(lit)
    if contours:
        cv2.drawContours(outline, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return outline


def _describe(row: PackRow, part: str) -> CropRow:
    leukemic, trust = _leukemic(row)
    return CropRow(
        file=row.file,
        source=row.source,
        subject=row.subject or f"{row.source}:{row.cell_type}",
        part=part,
        leukemic=leukemic,
        cell_type=type_index(_cell_type(row)),
        trust=trust,
    )


def _leukemic(row: PackRow) -> tuple[int, float]:
    """The label and its weight; a field's label is only a hint at its cells'."""
    if row.label:
        trust = 1.0 if row.kind is PictureKind.CELL else WEAK_TRUST
        return int(row.label == "leukemic"), trust
    if row.source == "zheng1":
        return 0, 1.0
    return (0, ASSUMED_NORMAL_TRUST) if row.source in ASSUMED_NORMAL else (UNKNOWN, 0.0)


def _cell_type(row: PackRow) -> CellType | None:
    """The pack's type; cells of leukemic fields are blasts by their disease."""
    if row.cell_type or row.label != "leukemic":
        return row.known_type
    return CellType.BLAST


if __name__ == "__main__":
    main()
