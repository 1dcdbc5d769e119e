"""Outlines as they can lie: masks have no holes, and areas are those of the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.domain import Call, CellFinding, FieldFindings
from pipeline.segmentation.morphometry import PixelTransform, describe
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.made import made

WIDTH, HEIGHT = 96, 80
Points = Sequence[tuple[int, int]]


def box(left: int, top: int, right: int, bottom: int) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


OUTLINES: Mapping[str, Sequence[Points]] = {
    "apart": [box(5, 5, 20, 20), box(40, 40, 60, 60)],
    "overlapping": [box(5, 5, 40, 40), box(20, 20, 60, 60)],
    "three-on-each-other": [box(5, 5, 40, 40), box(20, 5, 60, 40), box(10, 20, 50, 60)],
    "one-inside-the-other": [box(5, 5, 60, 60), box(20, 20, 40, 40)],
    "one-twice": [box(5, 5, 40, 40), box(5, 5, 40, 40)],
    "touching-at-an-edge": [box(5, 5, 20, 20), box(20, 5, 40, 20)],
    "touching-at-a-corner": [box(5, 5, 20, 20), box(20, 20, 40, 40)],
    "side-by-side": [box(5, 5, 20, 20), box(21, 5, 40, 20)],
    "at-each-corner-of-the-picture": [box(0, 0, 9, 9), box(WIDTH - 10, HEIGHT - 10, 95, 79)],
    "the-whole-picture": [box(0, 0, WIDTH - 1, HEIGHT - 1)],
    "a-triangle": [[(10, 10), (60, 20), (30, 70)]],
    "concave": [[(10, 10), (60, 10), (60, 60), (35, 30), (10, 60)]],
    "a-needle": [[(10, 10), (80, 10), (80, 11), (10, 11)]],
    "of-three-pixels": [[(10, 10), (11, 10), (11, 11)]],
    "one-on-the-notch-of-another": [
        [(10, 10), (60, 10), (60, 60), (35, 30), (10, 60)],
        box(30, 40, 40, 70),
    ],
}


def inside(points: Points) -> NDArray[np.bool_]:
    """The pixels that one outline alone covers, those on it among them."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.drawContours(mask, [np.array(points, np.int32)], 0, 1, cv2.FILLED)
    return mask.astype(bool)


def finding(number: int, points: Points, call: Call = Call.NORMAL) -> CellFinding:
    cell = replace(make_cell(number, 50, 50), contour=np.array(points, np.int32))
    return make_cell_finding(replace(cell, nucleus_contours=(cell.contour,)), call)


def field_of(cells: Sequence[CellFinding]) -> FieldFindings:
    return make_field_findings(width=WIDTH, height=HEIGHT, cells=cells)


@pytest.mark.invented(kind=20)
@pytest.mark.parametrize("name", OUTLINES)
def test_a_mask_is_the_union_of_its_outlines(name: str) -> None:
    outlines = OUTLINES[name]
    cells = [finding(number, one) for number, one in enumerate(outlines, start=1)]

    masks = made(ResultKind.SEGMENTATION, field_of(cells)).pixel_array

    wanted = np.any([inside(one) for one in outlines], axis=0)
    assert masks.shape == (2, HEIGHT, WIDTH)
    for mask in masks:
        assert np.array_equal(mask.astype(bool), wanted)


@pytest.mark.invented(kind=20)
@pytest.mark.parametrize("name", OUTLINES)
def test_cells_of_two_calls_keep_their_own_pixels(name: str) -> None:
    outlines = OUTLINES[name]
    calls = (Call.LEUKEMIC, Call.REFERRED)
    cells = [
        finding(number, one, calls[number % 2]) for number, one in enumerate(outlines, start=1)
    ]

    segmentation = made(ResultKind.SEGMENTATION, field_of(cells))

    masks = segmentation.pixel_array
    for number, segment in enumerate(segmentation.SegmentSequence):
        mine = [
            inside(one)
            for one, cell in zip(outlines, cells, strict=True)
            if str(cell.call) in segment.SegmentLabel or "Nuclei" in segment.SegmentLabel
        ]
        assert np.array_equal(masks[number].astype(bool), np.any(mine, axis=0))


@pytest.mark.invented(kind=21)
@pytest.mark.parametrize("name", OUTLINES)
@pytest.mark.parametrize("um_per_px", [0.05, 0.12, 0.5])
def test_the_area_is_that_of_the_mask(name: str, um_per_px: float) -> None:
    ground = PixelTransform(grow=1.0, um_per_px=um_per_px, width=WIDTH, height=HEIGHT)
    points = OUTLINES[name][0]
    nucleus = np.array(OUTLINES[name][-1], np.int32)

    cell = describe((nucleus,), np.array(points, float), ground)

    assert cell is not None
    whole, within = inside(points), inside(points) & inside(OUTLINES[name][-1])
    assert cell.shape.area_um2 == pytest.approx(whole.sum() * um_per_px**2)
    assert cell.shape.nucleus_area_um2 == pytest.approx(within.sum() * um_per_px**2)
    assert cell.shape.nucleus_to_cell_ratio == pytest.approx(within.sum() / whole.sum())
