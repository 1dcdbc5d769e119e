"""Heaps of red cells and platelets are no white cells; a nucleus in a dark smear is one."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.domain import Box, Cell, CellKind, CellShape, Contour
from pipeline.segmentation.false_nuclei import without_false_nuclei
from pipeline.segmentation.morphometry import PixelTransform

SIDE = 100
GROUND = PixelTransform(grow=2.0, um_per_px=0.2, width=2 * SIDE, height=2 * SIDE)
GLASS, CYTOPLASM, RED_CELL, NUCLEUS = 0.0, 0.1, 0.2, 0.5
SHAPE = CellShape(
    area_um2=100.0,
    nucleus_area_um2=40.0,
    perimeter_um=40.0,
    equivalent_diameter_um=11.0,
    circularity=0.9,
    solidity=1.0,
    eccentricity=0.0,
    nucleus_to_cell_ratio=0.4,
    nucleus_lobes=1,
)


def disc_at(x: int, y: int, radius: int) -> Contour:
    """A circle in source pixels."""
    points = cv2.ellipse2Poly((x, y), (radius, radius), 0, 0, 360, 5)
    return np.asarray(points, np.int32)


def ragged_at(x: int, y: int) -> Contour:
    """A star of many thin rays."""
    angles = np.linspace(0, 2 * np.pi, 33)[:-1]
    away = np.where(np.arange(32) % 2, 20, 6)
    points = np.stack([x + away * np.cos(angles), y + away * np.sin(angles)], axis=1)
    return np.asarray(np.rint(points), np.int32)


def cell(contour: Contour, *lobes: Contour) -> Cell:
    x, y, width, height = cv2.boundingRect(contour)
    return Cell(
        index=1,
        kind=CellKind.WHITE_CELL,
        box=Box(x=x, y=y, width=width, height=height),
        contour=contour,
        nucleus_contours=lobes,
        shape=SHAPE,
        is_cut_by_edge=False,
        is_touching=False,
        confidence=0.7,
    )


def kept(
    one: Cell, *, nucleus: float, rest: float = CYTOPLASM, red_cells: float | None = RED_CELL
) -> bool:
    """Whether the cell stays that has these green densities; no red cells where `None`."""
    green = np.full((SIDE, SIDE), GLASS, np.float32)
    red: NDArray[np.uint8] = np.zeros((SIDE, SIDE), np.uint8)
    if red_cells is not None:
        green[80:, :] = red_cells
        red[80:, :] = 1
    for contours, density in (((one.contour,), rest), (one.nucleus_contours, nucleus)):
        for contour in contours:
            points = np.rint((contour + 0.5) / 2 - 0.5).astype(np.int32)
            cv2.fillPoly(green, [points], density)
    return bool(without_false_nuclei([one], green, red, GROUND))


ROUND = cell(disc_at(80, 80, 30), disc_at(80, 80, 20))


def test_a_heap_of_red_cells_is_no_white_cell() -> None:
    assert not kept(ROUND, nucleus=0.25, rest=RED_CELL)


@pytest.mark.parametrize(("nucleus", "is_kept"), [(0.3, False), (NUCLEUS, True)])
def test_a_ragged_nucleus_is_one_only_if_far_darker_than_red_cells(
    nucleus: float, is_kept: bool
) -> None:
    """As a smudge cell is."""
    ragged = cell(disc_at(80, 80, 30), ragged_at(80, 80))

    assert kept(ragged, nucleus=nucleus) is is_kept


def test_six_lobes_are_a_nucleus() -> None:
    lobes = [disc_at(x, y, 16) for x in (50, 85, 120) for y in (60, 95)]

    assert kept(cell(disc_at(85, 78, 66), *lobes), nucleus=0.3)


def test_a_blast_that_fills_its_cell_among_blue_red_cells_is_one() -> None:
    """Its nucleus is hardly darker than anything there, but the network has no doubt."""
    assert kept(replace(ROUND, confidence=0.85), nucleus=0.25, rest=RED_CELL)


@pytest.mark.parametrize("rest", [CYTOPLASM, 0.4])
def test_a_nucleus_darker_than_red_cells_is_one(rest: float) -> None:
    assert kept(ROUND, nucleus=NUCLEUS, rest=rest)


def test_where_red_cells_are_as_dark_the_rest_of_the_cell_tells() -> None:
    assert kept(ROUND, nucleus=NUCLEUS, red_cells=0.6)


def test_a_clump_of_platelets_paler_than_red_cells_is_none() -> None:
    assert not kept(replace(ROUND, confidence=0.5), nucleus=0.18, rest=0.02)


def test_a_nucleus_darker_than_red_cells_need_not_be_sure() -> None:
    assert kept(replace(ROUND, confidence=0.41), nucleus=NUCLEUS)


def test_a_cell_that_is_all_nucleus_has_no_rest_to_be_darker_than() -> None:
    bare = cell(disc_at(80, 80, 20), disc_at(80, 80, 20))

    assert kept(bare, nucleus=NUCLEUS, red_cells=0.6)


def test_without_red_cells_a_nucleus_is_believed() -> None:
    assert kept(ROUND, nucleus=0.2, rest=0.19, red_cells=None)


@pytest.mark.parametrize(("x", "y"), [(0, 80), (199, 80), (80, 0), (80, 199), (199, 199)])
def test_a_cell_that_the_edge_cuts_is_judged_by_what_is_seen(x: int, y: int) -> None:
    def inside(contour: Contour) -> Contour:
        return np.clip(contour, 0, 2 * SIDE - 1)

    cut = cell(inside(disc_at(x, y, 30)), inside(disc_at(x, y, 20)))

    assert kept(cut, nucleus=NUCLEUS)
    assert not kept(cut, nucleus=0.25, rest=RED_CELL)


def test_no_cells_are_no_cells() -> None:
    green = np.zeros((SIDE, SIDE), np.float32)

    assert without_false_nuclei([], green, green.astype(np.uint8), GROUND) == []
