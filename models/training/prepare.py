"""Pack the crops of a data pack for training, cut by the service's own code.

`python -m models.training.prepare --data ../shared/data --out models/training/runs/pack`
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from models.training.augment import Mask
from models.training.data import UNKNOWN, CropRow, type_index
from pipeline.crop import CROP_PX, cut_crops, cut_masked
from pipeline.domain import RGB, Cell, CellKind, CellType, SOPInstanceUID, SourceImage
from pipeline.segment import central_cell, find_cells

UNSEEN = ("raabin",)
"""Sources that no training step sees, so that one normal source stays truly new."""

NEVER = ("allidb1",)
"""Not packed at all: for looking and evaluating only."""

CNMC_UM_PER_PX = 0.055
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
HELD_OUT_TAIL = 0.15
"""Last share of the pbc and zheng1 files of each type, which name no groups small enough."""

WEAK_TRUST = 0.6
"""Of cells whose label is that of their field (aria)."""

ASSUMED_NORMAL_TRUST = 0.5
"""Of unlabelled cells in sources that are healthy blood as far as known (bccd, draaslan)."""

Packed = tuple[RGB, Mask, CropRow]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sources", nargs="+", help="only these sources")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    lines = _manifest(options.data, options.sources)
    tails = _tail_files(lines)
    packed = [
        crop for line in lines for crop in _pack_picture(options.data, line, line["file"] in tails)
    ]
    write_pack(options.out, packed)
    print(f"{len(packed)} crops of {len(lines)} pictures")


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


def _manifest(data: Path, sources: Sequence[str] | None) -> list[dict[str, str]]:
    with (data / "manifest.csv").open(newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if line["source"] not in NEVER]
    return [line for line in lines if not sources or line["source"] in sources]


def _tail_files(lines: Sequence[dict[str, str]]) -> frozenset[str]:
    """The last files of each type of pbc and zheng1, by name, so that neighbours stay together."""
    by_type: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        if line["source"] in ("pbc", "zheng1"):
            key = (line["source"], line["cell_type"], line["subject"])
            by_type.setdefault(key, []).append(line["file"])
    return frozenset(
        name
        for names in by_type.values()
        for name in sorted(names)[len(names) - round(len(names) * HELD_OUT_TAIL) :]
    )


def _pack_picture(data: Path, line: dict[str, str], is_tail: bool) -> Iterator[Packed]:
    pixels = cv2.cvtColor(cv2.imread(str(data / line["file"])), cv2.COLOR_BGR2RGB)
    row = _describe(line, is_tail)
    if line["masked"] == "true":
        crop = cut_masked(pixels, CNMC_UM_PER_PX)
        yield crop, _outline_of_masked(crop), row
        return
    image = SourceImage(
        sop_instance_uid=SOPInstanceUID("2.25.1"), frame=1, pixels=pixels, spacing_um=None
    )
    found = find_cells(image)
    cells: Sequence[Cell] = found.cells
    if line["kind"] == "cell":
        central = central_cell(found, width=image.width, height=image.height)
        cells = [central] if central else []
    else:
        cells = [c for c in cells if not c.is_cut_by_edge and c.kind is CellKind.WHITE_CELL]
    if not cells:
        return
    masked = cut_crops(image, cells, found.scale)
    whole = cut_crops(image, [_without_outline(cell, image) for cell in cells], found.scale)
    for open_crop, masked_crop in zip(whole, masked, strict=True):
        yield open_crop, _outline_of_masked(masked_crop), row


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


def _describe(line: dict[str, str], is_tail: bool) -> CropRow:
    leukemic, trust = _leukemic(line)
    return CropRow(
        file=line["file"],
        source=line["source"],
        subject=line["subject"] or f"{line['source']}:{line['cell_type']}",
        part=_part(line, is_tail),
        leukemic=leukemic,
        cell_type=type_index(_cell_type(line)),
        trust=trust,
    )


def _part(line: dict[str, str], is_tail: bool) -> str:
    if line["source"] in UNSEEN:
        return "unseen"
    held_out = is_tail or line["split"] == "val" or line["subject"] in HELD_OUT_GROUPS
    return "val" if held_out else "train"


def _leukemic(line: dict[str, str]) -> tuple[int, float]:
    if line["source"] == "aria":
        return int(line["label"] == "leukemic"), WEAK_TRUST
    if line["label"]:
        return int(line["label"] == "leukemic"), 1.0
    if line["source"] == "zheng1":
        return 0, 1.0
    return (0, ASSUMED_NORMAL_TRUST) if line["source"] != "raabin" else (UNKNOWN, 0.0)


def _cell_type(line: dict[str, str]) -> str:
    """The manifest's type; leukemic cells of C-NMC and Aria are lymphoblasts by their disease."""
    if line["cell_type"] or line["label"] != "leukemic":
        return line["cell_type"]
    return CellType.LYMPHOBLAST.value


if __name__ == "__main__":
    main()
