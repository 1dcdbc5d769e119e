"""Draws the stages of a segmentation side by side, to show where a cell was found or lost."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.domain import RGB, CellKind, SourceImage
from pipeline.field.masks import Mask
from pipeline.field.optical_density import Map
from pipeline.rendering.pen import (
    AMBER,
    INK,
    PAPER,
    WHITE,
    Color,
    Pen,
    blank,
    notice_strip,
    plain,
    research_banner,
)
from pipeline.segmentation.find_cells import Stages, find_stages
from pipeline.segmentation.network_maps import Segmenter

TILE_PX = 460
"""Width of one stage."""
TITLE_PX = 30
COLUMNS = 3
GLASS: Color = (238, 240, 236)
STAINED: Color = (214, 150, 140)
NUCLEUS: Color = (40, 110, 255)
OUTLINE: Color = (230, 30, 30)
SMUDGE: Color = (150, 150, 150)
DARKEST = 1.2
"""Density that is drawn black."""


def draw_stages(image: SourceImage, segmenter: Segmenter | None = None) -> RGB:
    """Six stages of `find_cells` on one sheet, named, under the research notice; RGB uint8."""
    stages = find_stages(image, segmenter)
    pen = Pen()
    third = "nuclear stain" if segmenter is None else "nucleus, as the network sees it"
    shown = {
        "1 working picture": _with_red_cell(stages, image),
        "2 optical density": _gray(stages.density.sum(axis=2) / 3),
        f"3 {third}": _gray(stages.nuclei.stain),
        "4 glass, stained, nuclei": _kinds(stages),
        "5 every outline tried": _tried(stages),
        "6 cells kept": _kept(stages, image),
    }
    tall = max(round(TILE_PX * image.height / image.width), 1)
    tiles = [_titled(pen, title, picture, tall) for title, picture in shown.items()]
    rows = [
        np.concatenate(tiles[first : first + COLUMNS], axis=1)
        for first in range(0, len(tiles), COLUMNS)
    ]
    sheet = np.concatenate(rows, axis=0)
    notice = notice_strip(pen, sheet.shape[1], 15, _verdict(stages))
    return np.concatenate([research_banner(pen, sheet.shape[1], 15), sheet, notice], axis=0)


def _verdict(stages: Stages) -> str:
    """Scale, cells and flags in one line."""
    found = stages.found
    flags = ", ".join(plain(flag) for flag in sorted(found.quality.flags)) or "no flags"
    usable = "usable" if found.quality.is_usable else "refused"
    return (
        f"{found.scale.um_per_px:.3f} µm a pixel ({plain(found.scale.source)}) · "
        f"{len(found.cells)} cells · {usable}: {flags}"
    )


def _titled(pen: Pen, title: str, picture: RGB, tall: int) -> RGB:
    """A stage at the width of a tile and `tall`, under its name."""
    way = cv2.INTER_AREA if picture.shape[1] > TILE_PX else cv2.INTER_NEAREST
    shown = np.asarray(cv2.resize(picture, (TILE_PX, tall), interpolation=way), dtype=np.uint8)
    head = blank(TILE_PX, TITLE_PX, PAPER)
    pen.write(head, title, (8, TITLE_PX - 9), size=16, color=INK)
    return np.concatenate([head, shown], axis=0)


def _gray(values: Map) -> RGB:
    """White glass to black stain."""
    level = 255 * (1 - np.clip(values / DARKEST, 0, 1))
    return np.repeat(level.astype(np.uint8)[..., None], 3, axis=2)


def _with_red_cell(stages: Stages, image: SourceImage) -> RGB:
    """The working picture with a disc of the red-cell diameter that the scale rests on."""
    drawn = stages.pixels.copy()
    across = (stages.found.scale.red_cell_diameter_px or 0) * drawn.shape[1] / image.width
    if across > 0:
        middle = (int(across / 2) + 3, int(across / 2) + 3)
        cv2.circle(drawn, middle, max(int(across / 2), 1), AMBER, _line(drawn))
    return drawn


def _kinds(stages: Stages) -> RGB:
    height, width = stages.stained.shape
    drawn = blank(width, height, GLASS)
    drawn[stages.stained > 0] = STAINED
    drawn[stages.nuclei.parts > 0] = NUCLEUS
    edges = _borders(stages)
    drawn[edges > 0] = WHITE
    return drawn


def _borders(stages: Stages) -> Mask:
    """1 where two nuclei that touch were cut apart."""
    parts = stages.nuclei.parts.astype(np.float32)
    high = cv2.dilate(parts, np.ones((3, 3), np.uint8))
    low = cv2.erode(np.where(parts > 0, parts, 1e6).astype(np.float32), np.ones((3, 3), np.uint8))
    return np.asarray((parts > 0) & (high != low), dtype=np.uint8)


def _tried(stages: Stages) -> RGB:
    drawn = stages.pixels.copy()
    loops = [np.rint(outline).astype(np.int32) for outline in stages.outlines]
    cv2.polylines(drawn, loops, True, OUTLINE, _line(drawn), cv2.LINE_AA)
    return drawn


def _kept(stages: Stages, image: SourceImage) -> RGB:
    drawn = image.pixels.copy()
    for cell in stages.found.cells:
        color = OUTLINE if cell.kind is CellKind.WHITE_CELL else SMUDGE
        cv2.drawContours(drawn, [cell.contour], -1, color, _line(drawn), cv2.LINE_AA)
        cv2.drawContours(drawn, list(cell.nucleus_contours), -1, NUCLEUS, _line(drawn), cv2.LINE_AA)
    return drawn


def _line(picture: RGB) -> int:
    """A line that is still seen on a tile."""
    return max(1, round(int(picture.shape[1]) / TILE_PX * 1.5))
