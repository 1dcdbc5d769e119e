"""Masks of cells by call and of their nuclei, one bit a pixel, upon the source's pixels."""

from __future__ import annotations

import cv2
import highdicom as hd
import numpy as np
import pytest
from pydicom.pixels.utils import pixel_array

from pipeline.domain import Call, Scale, ScaleSource
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.made import made
from tests.reporting.sources import make_source

FIELD = make_field_findings(width=241, height=163)
"""Odd sides: frames of packed bits do not end on a byte (PS3.5 8.1.1)."""


def source_of(field):
    return make_source("microscopic", field)


def test_each_mask_covers_its_cells_exactly() -> None:
    segmentation = made(ResultKind.SEGMENTATION, FIELD, source=source_of(FIELD))
    masks = dict(
        zip(
            (one.SegmentLabel for one in segmentation.SegmentSequence),
            pixel_array(segmentation),
            strict=True,
        )
    )

    for call in Call:
        expected = np.zeros((163, 241), dtype=np.uint8)
        cells = [one.cell.contour for one in FIELD.cells if one.call is call]
        cv2.fillPoly(expected, cells, 1)
        np.testing.assert_array_equal(masks[f"White cells {call} (research)"], expected)
    assert masks["Nuclei (research)"].any()


def test_highdicom_finds_each_segment_by_its_source_frame() -> None:
    segmentation = hd.seg.Segmentation.from_dataset(
        made(ResultKind.SEGMENTATION, FIELD, source=source_of(FIELD))
    )

    found = segmentation.get_pixels_by_source_instance(
        [FIELD.sop_instance_uid], combine_segments=False
    )

    assert found.shape == (1, 163, 241, segmentation.number_of_segments)
    assert found.any(axis=(0, 1, 2)).all()


def test_a_segment_without_cells_is_left_out() -> None:
    field = make_field_findings(calls=[Call.NORMAL])

    segments = made(ResultKind.SEGMENTATION, field, source=source_of(field)).SegmentSequence

    assert [one.SegmentLabel for one in segments] == [
        "White cells normal (research)",
        "Nuclei (research)",
    ]
    assert [one.SegmentNumber for one in segments] == [1, 2]


@pytest.mark.parametrize(
    ("source", "spacing"),
    [(ScaleSource.DATASET, 0.00015), (ScaleSource.RED_CELLS, 0.00015), (ScaleSource.ASSUMED, None)],
)
def test_an_assumed_size_of_a_pixel_is_not_passed_on(
    source: ScaleSource, spacing: float | None
) -> None:
    scale = Scale(um_per_px=0.15, source=source, red_cells_measured=0)
    field = make_field_findings(scale=scale)

    segmentation = made(ResultKind.SEGMENTATION, field, source=source_of(field))

    [groups] = segmentation.SharedFunctionalGroupsSequence
    [measures] = groups.PixelMeasuresSequence
    assert measures.get("PixelSpacing") == (None if spacing is None else [spacing, spacing])
    assert measures.SliceThickness == pytest.approx(0.001)


def test_masks_of_a_photograph_lie_unturned_in_a_frame_of_reference_of_their_own() -> None:
    segmentation = made(ResultKind.SEGMENTATION, FIELD, source=source_of(FIELD))

    [groups] = segmentation.SharedFunctionalGroupsSequence
    [orientation] = groups.PlaneOrientationSequence
    assert orientation.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert segmentation.FrameOfReferenceUID
    assert not segmentation.PositionReferenceIndicator
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        [position] = frame.PlanePositionSequence
        assert position.ImagePositionPatient == [0, 0, 0]


def test_no_two_photographs_share_a_frame_of_reference() -> None:
    fields = [make_field_findings(sop_instance_uid=f"1.2.3.{number}") for number in (1, 2)]

    uids = {
        made(ResultKind.SEGMENTATION, field, source=source_of(field)).FrameOfReferenceUID
        for field in fields
    }

    assert len(uids) == 2


def test_masks_lie_in_the_frame_of_reference_of_the_slide() -> None:
    source = make_source("slide_coordinates", FIELD)

    segmentation = made(ResultKind.SEGMENTATION, FIELD, source=source)

    [groups] = segmentation.SharedFunctionalGroupsSequence
    assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert segmentation.PositionReferenceIndicator == "SLIDE_CORNER"
    assert "PlaneOrientationSequence" not in groups
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        assert "PlanePositionSequence" not in frame


def test_overlapping_outlines_leave_no_hole() -> None:
    cells = [
        make_cell_finding(make_cell(number, 100 + 30 * number, 80, radius=40), Call.NORMAL)
        for number in (1, 2)
    ]
    field = make_field_findings(width=241, height=163, cells=cells)

    segmentation = made(ResultKind.SEGMENTATION, field, source=source_of(field))

    alone = np.zeros((163, 241), np.uint8)
    for one in cells:
        cv2.fillPoly(alone, [one.cell.contour], 1)
    np.testing.assert_array_equal(segmentation.pixel_array[0], alone)


def test_frames_are_told_apart_by_their_segment() -> None:
    segmentation = made(ResultKind.SEGMENTATION, FIELD, source=source_of(FIELD))

    numbers = [
        one.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for one in segmentation.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == [one.SegmentNumber for one in segmentation.SegmentSequence]
    assert segmentation.NumberOfFrames == len(numbers)
