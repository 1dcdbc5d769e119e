"""Smudge cells told from white cells, and red cells that were taken for white ones.

A smudge cell is a nucleus that burst and spread out: it holds back far less red light than the
nuclei beside it. What has a red cell's color and hardly more of it has no nucleus at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Cell, CellKind
from pipeline.field.masks import Mask, disc
from pipeline.field.optical_density import Density
from pipeline.field.overview import sampled
from pipeline.field.percentiles import median_color
from pipeline.segmentation.morphometry import PixelTransform

SMUDGED_SHARE = 0.4
"""Of the usual nuclear density in red light; blasts and boxed cells of the data pack lie above."""
SMUDGED_UNDER = 0.12
"""Density in red light that a smudge cell does not reach, however dark the others are."""
USUAL_PERCENTILE = 75
"""Of a field's nuclei; a few smudge cells among them do not lower it."""
LEAST_NUCLEI = 3
"""To say what is usual in a field."""
LEAST_RED_PX = 50
NO_NUCLEUS_UNDER = 0.09
"""Density in red light below which nothing is a nucleus, if green light agrees; of what has their
color, red cells reach 0.085, and the palest smudge cell of the data pack has 0.108."""
LIKE_RED_CELLS = 1.3
"""Times the green density of red cells; a nucleus has twice as much."""
BLUE_OF_RED_CELLS = 0.4
"""Of their blue density over green; smudge cells hold back hardly any blue."""


def classify_smudge_cells(
    cells: Sequence[Cell], density: Density, red: Mask, ground: PixelTransform
) -> list[Cell]:
    """The cells without those that have no nucleus, the smudge cells among them named.

    `red` is 1 where the working picture shows red cells.
    """
    if not cells:
        return []
    nuclei = np.array([_nuclear_density(cell, density, ground) for cell in cells])
    in_red = nuclei[:, 0]
    is_none = _are_like_red_cells(nuclei, sampled(density)[sampled(red) > 0])
    is_smudge = np.zeros(len(cells), np.bool_)
    if len(cells) >= LEAST_NUCLEI:
        usual = float(np.percentile(in_red, USUAL_PERCENTILE))
        is_smudge = in_red < min(SMUDGED_SHARE * usual, SMUDGED_UNDER)
    return [
        replace(cell, kind=CellKind.SMUDGE_CELL) if smudge else cell
        for cell, smudge, none in zip(cells, is_smudge, is_none, strict=True)
        if not none
    ]


def _are_like_red_cells(nuclei: Density, red_cells: Density) -> NDArray[np.bool_]:
    """Of nuclear densities, N × 3: as pale as red cells, and of their color."""
    if len(red_cells) < LEAST_RED_PX:
        return np.zeros(len(nuclei), np.bool_)
    _, usual_green, usual_blue = median_color(red_cells)
    in_red, in_green, in_blue = nuclei.T
    is_pale = (in_red < NO_NUCLEUS_UNDER) & (in_green < LIKE_RED_CELLS * usual_green)
    # Haemoglobin holds back blue as well as green; what nuclei are stained with lets it through.
    is_of_blood = in_blue * usual_green > BLUE_OF_RED_CELLS * usual_blue * in_green
    return np.asarray(is_pale & is_of_blood)


def _nuclear_density(cell: Cell, density: Density, ground: PixelTransform) -> Density:
    """Usual density, red, green, blue, inside a nucleus and off its rim."""
    lobes = [ground.worked(lobe) for lobe in cell.nucleus_contours]
    limits = np.array([density.shape[1] - 1, density.shape[0] - 1])
    points = [np.clip(lobe, 0, limits).astype(np.int32) for lobe in lobes]
    corner = np.min([lobe.min(axis=0) for lobe in points], axis=0)
    far = np.max([lobe.max(axis=0) for lobe in points], axis=0) + 1
    drawn: Mask = np.zeros((far[1] - corner[1], far[0] - corner[0]), np.uint8)
    cv2.fillPoly(drawn, [lobe - corner for lobe in points], 1)
    inner = cv2.erode(drawn, disc(1), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    own = inner if np.count_nonzero(inner) >= 8 else drawn
    view = density[corner[1] : far[1], corner[0] : far[0]]
    return median_color(view[own > 0])
