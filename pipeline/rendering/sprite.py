"""Tiles of cells at one physical scale, and sprites of them: one picture for a whole class.

A page with 400 cells then asks for a handful of pictures instead of 400.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB, CellFinding, FieldFindings, SourceImage
from pipeline.rendering.pen import WHITE

TILE_PX = 112
COLUMNS = 20
WINDOW_UM = 24.0
"""Side of the square of the smear that each tile shows; the network saw the same square."""
OUTSIDE = (236, 233, 238)
"""Shown where a tile reaches beyond the field: light, as an empty place on a slide is."""
HEAT_OPACITY = 0.62


def cut_tile(image: SourceImage, finding: CellFinding, um_per_px: float) -> RGB:
    """The square around a cell, TILE_PX × TILE_PX; light where the field ends."""
    left, top, side = tile_window(finding, um_per_px)
    right, bottom = left + side, top + side
    inside = image.pixels[
        max(0, top) : max(0, min(image.height, bottom)),
        max(0, left) : max(0, min(image.width, right)),
    ]
    window = np.empty((side, side, 3), dtype=np.uint8)
    window[:] = OUTSIDE
    y, x = max(0, -top), max(0, -left)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    how = cv2.INTER_AREA if side > TILE_PX else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(window, (TILE_PX, TILE_PX), interpolation=how), dtype=np.uint8)


def tile_window(finding: CellFinding, um_per_px: float) -> tuple[int, int, int]:
    """Left, top and side of a cell's tile, in pixels of the field."""
    side = max(8, round(WINDOW_UM / um_per_px))
    box = finding.cell.box
    return (
        round(box.x + (box.width - side) / 2),
        round(box.y + (box.height - side) / 2),
        side,
    )


def heat_tile(tile: RGB, finding: CellFinding, um_per_px: float) -> RGB:
    """The tile under its activation map, with the cell's outline.

    A map tells where, not how sure: it is weighed with the probability, so that a cell at 0.02
    does not glow like one at 0.98.
    """
    level = _level(finding, (TILE_PX, TILE_PX))
    gray = cv2.cvtColor(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = HEAT_OPACITY * np.minimum(1.0, level * 2)[..., None]
    heated = (gray * (1 - opacity) + _colors(level) * opacity).astype(np.uint8)
    left, top, side = tile_window(finding, um_per_px)
    zoom = TILE_PX / side
    outline = np.round((finding.cell.contour + 0.5 - [left, top]) * zoom - 0.5).astype(np.int32)
    cv2.polylines(heated, [outline], True, WHITE, 1, cv2.LINE_AA)
    return np.asarray(heated, dtype=np.uint8)


def draw_sprite(tiles: Sequence[RGB]) -> RGB:
    """All tiles side by side, COLUMNS a row."""
    columns, rows = sprite_size(len(tiles))
    sprite = np.empty((rows * TILE_PX, columns * TILE_PX, 3), dtype=np.uint8)
    sprite[:] = OUTSIDE
    for position, tile in enumerate(tiles):
        x, y = sprite_place(position)
        sprite[y : y + TILE_PX, x : x + TILE_PX] = tile
    return sprite


def sprite_size(count: int) -> tuple[int, int]:
    """Columns and rows of a sprite of so many tiles."""
    return min(COLUMNS, max(1, count)), max(1, -(-count // COLUMNS))


def sprite_place(position: int) -> tuple[int, int]:
    """Where a tile lies in its sprite: x and y in pixels; positions count from 0."""
    row, column = divmod(position, COLUMNS)
    return column * TILE_PX, row * TILE_PX


def draw_heat_overlay(field: FieldFindings, long_side_px: int = 1400) -> NDArray[np.uint8]:
    """The activation maps of all cells of a field: RGBA, transparent where there is none."""
    zoom = min(1.0, long_side_px / max(field.width, field.height))
    width, height = max(1, round(field.width * zoom)), max(1, round(field.height * zoom))
    levels = np.zeros((height, width), dtype=np.float32)
    for finding in field.cells:
        left, top, side = tile_window(finding, field.scale.um_per_px)
        px = max(1, round(side * zoom))
        x, y = round(left * zoom), round(top * zoom)
        level = _level(finding, (px, px))
        x0, y0 = max(0, x), max(0, y)
        x1, y1 = min(width, x + px), min(height, y + px)
        if x1 > x0 and y1 > y0:
            part = level[y0 - y : y1 - y, x0 - x : x1 - x]
            levels[y0:y1, x0:x1] = np.maximum(levels[y0:y1, x0:x1], part)
    alpha = (np.minimum(1.0, levels * 2) * 200).astype(np.uint8)
    return np.dstack([_colors(levels), alpha])


def _level(finding: CellFinding, size: tuple[int, int]) -> NDArray[np.float32]:
    heat = finding.prediction.activation_map.astype(np.float32)
    hottest = float(heat.max())
    share = heat / hottest if hottest > 0 else heat
    smooth = cv2.resize(share, size, interpolation=cv2.INTER_CUBIC)
    sure = np.float32(finding.prediction.leukemic_probability)
    return np.asarray(np.clip(smooth, 0.0, 1.0) * sure, dtype=np.float32)


def _colors(level: NDArray[np.float32]) -> RGB:
    mapped = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(mapped[..., ::-1], dtype=np.uint8)
