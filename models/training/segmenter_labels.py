"""What the segmenter learns from: pictures at 0.2 µm a pixel with what is known of each pixel.

Masks where somebody drew them (bccd, zheng1); elsewhere the outlines that the packaged network
finds inside the boxes of the pack, or of its one cell, and an ellipse where the two disagree.
Fields of malaria (iml, vivax) teach what is no white cell. ALL-IDB1 is never learned from.

`python -m models.training.segmenter_labels --data ../shared/data ../shared/data2 --out
runs/labels.pkl`
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.detection import overlaps
from models.evaluation.ground_truth import GroundTruth, read_ground_truth
from models.evaluation.pack import PackRow, read_pack
from models.segmenter import OnnxSegmenter
from pipeline.domain import RGB, Cell
from pipeline.field.masks import Mask, disc
from pipeline.field.optical_density import (
    Density,
    estimate_illumination,
    green_of,
    optical_density,
    stain_hue,
    stained_level,
)
from pipeline.segmentation.find_cells import central_cell, find_cells
from pipeline.segmentation.pixel_scale import RED_CELL_UM, find_scale

LABEL_UM = 0.2
RED_CELL, PLATELET = 2, 3
"""Category ids of `boxes.json`."""
UNKNOWN = 255
MASKED = ("bccd", "zheng1")
BOXED = ("bccd", "raabin", "draaslan", "chula", "hs2")
ONE_CELL = ("zheng1", "pbc", "lmu", "deepapl")
WITHOUT_WHITE_CELLS = ("iml", "vivax")
"""Fields of which a person saw every white cell; what a network finds elsewhere is none."""
TRUE_IN_THEM = ("PA171690", "PA171901", "PA171994", "vivax_04", "vivax_05", "vivax_22")
"""Files of these with a white cell, a smudge, or something of which nobody can say: there what
the network finds is not judged."""
UNBOXED = {
    "B-56_0009": ((720, 0, 81, 40),),
    "B-56_0013": ((1120, 313, 117, 133),),
    "B-56_0150": ((893, 56, 91, 80), (714, 206, 98, 118)),
    "B-59_0179": ((648, 508, 131, 138),),
    "B-59_0188": ((257, 0, 126, 81),),
    "E-11_0623": ((592, 26, 172, 175),),
    "E-13_0148": ((0, 304, 88, 143),),
    "E-4B_0501": ((1153, 10, 150, 137),),
    "L-10_0233": ((1010, 89, 126, 137), (457, 675, 124, 121)),
    "L-3B_0479": ((0, 235, 59, 182),),
    "L-8_0324": ((686, 818, 179, 82),),
    "L-9_0243": ((63, 706, 228, 189),),
    "M-3B_0480": ((288, 822, 106, 78),),
    "N-1B_0253": ((743, 0, 89, 31),),
    "2bd943ad-5094-5962-9932-d39d5952db03": ((118, 145, 298, 293),),
    "501ef848-89f1-5c3a-9737-c77489b73fb8": ((151, 148, 244, 287),),
    "56e02fda-cdab-537d-b7b8-2f99b2842aba": ((184, 190, 220, 220),),
    "BloodImage_00133": ((144, 0, 157, 92),),
    "BloodImage_00134": ((0, 72, 61, 138),),
    "BloodImage_00228": ((267, 0, 163, 145),),
    "BloodImage_00242": ((158, 0, 147, 61),),
}
"""White cells of chula, Raabin and BCCD without a box in the pack, x, y, width and height, found by
a network and confirmed by eye; in BCCD, where a person drew the cells, nothing is learned there."""
MISPLACED = {
    "0c17c658-7cc6-52ba-98ef-f240d42b6c11": ((1.0, 1.0),),
    "19539d0f-2ebc-545a-9471-21fc68b8e6d0": ((196.0, 452.0),),
    "2a77e71f-edc5-5d42-9b16-39adbd8ef0ce": ((374.0, 82.0),),
    "3abfbc94-8066-509c-a9d0-d9f5b4de716d": ((1.0, 1.0),),
    "53de3b82-e87b-5c1e-94bd-19b39de999bc": ((1.0, 1.0),),
    "70142f83-ceac-5019-a57c-dd1b5573ac92": ((1.0, 335.0),),
    "image-104": ((222.6, 206.6),),
}
"""Corners, x and y, of boxes of leukocytes in Raabin and draaslan that lie on red cells, as seen by
eye; they are not learned from, and count against the finder when it is judged."""
UNCERTAIN_TYPES = ("smudge_cell", "artefact", "giant_platelet")
EACH_TYPE = {"pbc": 45, "lmu": 70, "aria": 36, "deepapl": 24}
"""Pictures taken of each type, evenly over the file numbers; of the other sources, all."""
KNOWN_UM = {"lmu": 0.0707}
"""Published: 14.14 pixels a µm (Matek 2019)."""
MEASURED_FIELDS = 30
LEAST_MEETING = 0.7
"""Overlap from which an outline is taken for what the box marks."""
LEAST_NUCLEUS_UM2 = 14.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """One picture with its labels, all of one size."""

    file: str
    source: str
    cell_type: str
    density: Density
    cells: NDArray[np.uint8]
    """White cells, 1 to N."""
    nuclei: Mask
    """1 nucleus; 255 where it is not known which part of a cell is."""
    ignored: Mask
    """1 where nothing is known."""
    red: Mask
    """1 red cells; 255 not known."""
    platelets: Mask | None = None
    """1 in the ellipse of each boxed platelet; None where the source has no such boxes."""


@dataclass(slots=True, eq=False)
class _Sheet:
    """Labels while they are written."""

    zoom: float
    cells: NDArray[np.uint8]
    nuclei: Mask
    ignored: Mask

    def put(self, cell: Mask, nucleus: Mask | None) -> None:
        """One more cell where nothing lies yet."""
        free = (cell > 0) & (self.cells == 0)
        self.cells[free] = int(self.cells.max()) + 1
        if nucleus is None:
            self.nuclei[free] = UNKNOWN
        else:
            self.nuclei[free & (nucleus > 0)] = 1

    def masks(self, cell: Cell) -> tuple[Mask, Mask]:
        nucleus = np.zeros(self.cells.shape, np.uint8)
        for contour in cell.nucleus_contours:
            nucleus |= self._painted(contour)
        return self._painted(cell.contour), nucleus

    def _painted(self, contour: NDArray[np.int32]) -> Mask:
        mask: Mask = np.zeros(self.cells.shape, np.uint8)
        points = np.rint(((contour + 0.5) * self.zoom - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(mask, [points], 1, shift=4)
        return mask

    def ellipse(self, box: NDArray[np.float64], grow: float = 1.0) -> Mask:
        mask: Mask = np.zeros(self.cells.shape, np.uint8)
        x, y, width, height = box * self.zoom * 16
        middle = int(x + width / 2), int(y + height / 2)
        axes = int(grow * width / 2), int(grow * height / 2)
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 1, -1, shift=4)
        return mask

    def inside(self, box: NDArray[np.float64], reach: int) -> Mask:
        mask: Mask = np.zeros(self.cells.shape, np.uint8)
        x, y, width, height = box * self.zoom
        rows = slice(max(0, int(y) - reach), int(np.ceil(y + height)) + reach)
        mask[rows, max(0, int(x) - reach) : int(np.ceil(x + width)) + reach] = 1
        return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = chosen_rows([row for root in options.data for row in read_pack(root, None)])
    truths = {root: read_ground_truth(root) for root in options.data}
    boxes = {file: found for root in options.data for file, found in read_all_boxes(root).items()}
    scales = source_scales(rows)
    # Not forked: the scales were measured with OpenCV's threads, which a fork would not carry.
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        jobs = [
            pool.submit(
                label, row, truths[row.root], boxes.get(row.file, {}), scales[_scale_key(row)]
            )
            for row in rows
        ]
        labelled = [found for job in jobs if (found := job.result()) is not None]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(pickle.dumps(labelled))
    print(f"{len(labelled)} pictures labelled")


def chosen_rows(rows: Sequence[PackRow]) -> list[PackRow]:
    """Every picture that somebody outlined or boxed, and some of each type of the others."""
    groups: dict[tuple[str, str], list[PackRow]] = {}
    for row in sorted(rows, key=lambda row: row.file):
        if row.cell_type in UNCERTAIN_TYPES:
            continue
        if row.source in (*MASKED, *BOXED, *WITHOUT_WHITE_CELLS, *EACH_TYPE):
            groups.setdefault((row.source, row.cell_type or row.subtype or row.label), []).append(
                row
            )
    kept: list[PackRow] = []
    for (source, _), group in groups.items():
        number = min(EACH_TYPE.get(source, len(group)), len(group))
        kept += [group[len(group) * place // number] for place in range(number)]
    return kept


def read_all_boxes(root: Path) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Boxes of each category of each file, N × 4."""
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    for source in (*BOXED, "iml"):
        if not (root / source / "boxes.json").is_file():
            continue
        told = json.loads((root / source / "boxes.json").read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in told["images"]}
        for mark in told["annotations"]:
            own = found.setdefault(names[mark["image_id"]], {})
            box = np.array([mark["bbox"]], np.float64)
            kind = int(mark["category_id"])
            own[kind] = np.concatenate([own[kind], box]) if kind in own else box
    return found


def _scale_key(row: PackRow) -> str:
    """What has one microscope; Aria's stages have one each."""
    return f"{row.source}:{row.subtype or row.label}" if row.source == "aria" else row.source


def source_scales(rows: Sequence[PackRow]) -> dict[str, float]:
    """µm a pixel of each microscope: published, or the median over fields with red cells."""
    groups: dict[str, list[PackRow]] = {}
    for row in rows:
        groups.setdefault(_scale_key(row), []).append(row)
    scales = {}
    for key, group in groups.items():
        sample = group[:: max(1, len(group) // MEASURED_FIELDS)]
        found = [find_scale(row.read_pixels(), None) for row in sample]
        measured = [scale.um_per_px for scale in found if scale.source == "red_cells"]
        scales[key] = KNOWN_UM.get(key) or float(np.median(measured))
    return scales


def label(
    row: PackRow, truth: GroundTruth, boxes: dict[int, NDArray[np.float64]], usual_um: float
) -> Labelled | None:
    """One picture with its labels; None where its one cell is not found."""
    pixels = row.read_pixels()
    um_per_px = _boxed_scale(boxes, pixels) or usual_um
    zoom = um_per_px / LABEL_UM
    size = max(8, round(pixels.shape[1] * zoom)), max(8, round(pixels.shape[0] * zoom))
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)
    density = optical_density(small, estimate_illumination(pixels))
    blank = np.zeros(small.shape[:2], np.uint8)
    sheet = _Sheet(zoom, blank.copy(), blank.copy(), blank.copy())
    if row.source in MASKED:
        _lay_masks(sheet, row, truth)
    else:
        cells = find_cells(replace(row.read_image(), spacing_um=um_per_px), _segmenter())
        if row.source in WITHOUT_WHITE_CELLS:
            if any(name in row.file for name in TRUE_IN_THEM):
                for cell in cells.cells:
                    sheet.ignored |= np.asarray(cv2.dilate(sheet.masks(cell)[0], disc(8)), np.uint8)
        elif row.source in BOXED:
            boxed = well_placed(truth.boxes.get(row.file, np.zeros((0, 4))), Path(row.file).stem)
            _lay_boxes(sheet, cells.cells, np.concatenate([boxed, _unboxed(row)]))
        elif row.source not in ONE_CELL:
            for cell in cells.cells:
                sheet.put(*sheet.masks(cell))
        elif not _lay_central(
            sheet,
            cells.cells,
            None
            if row.cell_type == "platelet"
            else central_cell(cells, width=pixels.shape[1], height=pixels.shape[0]),
        ):
            return None
    if row.source in ONE_CELL:
        sheet.ignored |= _dark_elsewhere(density, sheet.cells)
    sheet.ignored[sheet.cells > 0] = 0
    return Labelled(
        file=row.file,
        source=row.source,
        cell_type=row.cell_type,
        density=density,
        cells=sheet.cells,
        nuclei=sheet.nuclei,
        ignored=sheet.ignored,
        red=_red(sheet, density, boxes),
        platelets=_platelets(sheet, boxes, 1.0) if PLATELET in boxes else None,
    )


@cache
def _segmenter() -> OnnxSegmenter:
    """One for each process."""
    return OnnxSegmenter.load()


def _boxed_scale(boxes: dict[int, NDArray[np.float64]], pixels: RGB) -> float | None:
    """From the boxes of whole, round red cells; None with fewer than three."""
    marked = boxes.get(RED_CELL, np.zeros((0, 4)))
    ends = marked[:, :2] + marked[:, 2:]
    limits = np.array([pixels.shape[1], pixels.shape[0]]) - 2
    whole = (marked[:, :2] > 2).all(axis=1) & (ends < limits).all(axis=1)
    whole &= marked[:, 2:].max(axis=1, initial=0) < 1.35 * marked[:, 2:].min(axis=1, initial=1e9)
    if whole.sum() < 3:
        return None
    return float(RED_CELL_UM / np.median(np.sqrt(marked[whole, 2:].prod(axis=1))))


def _lay_masks(sheet: _Sheet, row: PackRow, truth: GroundTruth) -> None:
    drawn = truth.masks(row.file)
    if drawn is None:
        return
    size = sheet.cells.shape[1], sheet.cells.shape[0]
    nucleus, left = (
        (cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127)
        for mask in drawn
    )
    if row.source not in BOXED:
        sheet.put(left.astype(np.uint8), nucleus.astype(np.uint8))
        return
    for box in truth.boxes.get(row.file, np.zeros((0, 4))):
        inside = sheet.inside(box, 2)
        own = left & (inside > 0)
        if own.sum() < 0.35 * box[2] * box[3] * sheet.zoom**2:
            sheet.ignored |= inside
            continue
        sheet.put(own.astype(np.uint8), nucleus.astype(np.uint8))
        left &= inside == 0
    for box in _unboxed(row):
        sheet.ignored |= sheet.inside(box, 2)
    rest = cv2.morphologyEx(left.astype(np.uint8), cv2.MORPH_OPEN, disc(3))
    sheet.ignored |= np.asarray(cv2.dilate(rest, disc(6)), np.uint8)


def _unboxed(row: PackRow) -> NDArray[np.float64]:
    """White cells that the pack gives no box, N × 4."""
    return np.array(UNBOXED.get(Path(row.file).stem, ()), np.float64).reshape(-1, 4)


def well_placed(boxes: NDArray[np.float64], stem: str) -> NDArray[np.float64]:
    """Without those that lie on red cells."""
    wrong = MISPLACED.get(stem, ())
    keep = [not any(np.hypot(*(box[:2] - corner)) < 1 for corner in wrong) for box in boxes]
    return np.asarray(boxes[np.array(keep, np.bool_)])


def _lay_boxes(sheet: _Sheet, cells: Sequence[Cell], boxes: NDArray[np.float64]) -> None:
    sides = np.array([(c.box.x, c.box.y, c.box.width, c.box.height) for c in cells], np.float64)
    meeting = overlaps(sides.reshape(-1, 4), boxes)
    for place, box in enumerate(boxes):
        best = int(meeting[:, place].argmax()) if len(cells) else -1
        if best >= 0 and meeting[best, place] > LEAST_MEETING:
            cell, nucleus = sheet.masks(cells[best])
            sheet.put(cell & sheet.inside(box, 0), nucleus)
        else:
            sheet.put(sheet.ellipse(box), None)


def _lay_central(sheet: _Sheet, cells: Sequence[Cell], central: Cell | None) -> bool:
    """The one cell, and nothing known where others lie; False where a cell should be, but none is.

    `central` is None in a picture of a platelet, which holds no white cell in its middle.
    """
    if central is not None:
        if central.shape.nucleus_area_um2 < LEAST_NUCLEUS_UM2:
            return False
        sheet.put(*sheet.masks(central))
    height, width = sheet.cells.shape
    for cell in cells:
        own, _ = sheet.masks(cell)
        middle = own[2 * height // 5 : 3 * height // 5, 2 * width // 5 : 3 * width // 5]
        if cell is not central and (central is not None or not middle.any()):
            sheet.ignored |= np.asarray(cv2.dilate(own, disc(8)), np.uint8)
    return True


def _dark_elsewhere(density: Density, cells: NDArray[np.uint8]) -> Mask:
    """Around what is as violet as a nucleus outside the outlined cell: perhaps another."""
    stained = density[..., 1] > stained_level(green_of(density))
    colour = stain_hue(density)
    usual = float(np.median(colour[stained])) if stained.any() else 0.0
    dark = ((colour > max(0.4, 2.5 * usual)) & (cells == 0)).astype(np.uint8)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, disc(5))
    return np.asarray(cv2.dilate(dark, disc(12)), np.uint8)


def _red(sheet: _Sheet, density: Density, boxes: dict[int, NDArray[np.float64]]) -> Mask:
    """What is stained and no white cell; not known where neither boxes nor size tell."""
    inside = sheet.cells > 0
    stained = (density[..., 1] > stained_level(green_of(density))) & ~inside
    red = np.asarray(cv2.morphologyEx(stained.astype(np.uint8), cv2.MORPH_OPEN, disc(3)), np.uint8)
    for box in boxes.get(RED_CELL, np.zeros((0, 4))):
        red |= sheet.ellipse(box)
    platelets = _platelets(sheet, boxes, 1.1)
    red[(platelets > 0) | inside] = 0
    red[stained & (red == 0) & (platelets == 0)] = UNKNOWN
    rim = cv2.dilate(inside.astype(np.uint8), disc(2)) > 0
    red[(rim & ~inside) | (sheet.ignored > 0)] = UNKNOWN
    return red


def _platelets(sheet: _Sheet, boxes: dict[int, NDArray[np.float64]], grow: float) -> Mask:
    """1 in the ellipse of each boxed platelet, as much larger as `grow` says."""
    platelets = np.zeros_like(sheet.ignored)
    for box in boxes.get(PLATELET, np.zeros((0, 4))):
        platelets |= sheet.ellipse(box, grow)
    return platelets


if __name__ == "__main__":
    main()
