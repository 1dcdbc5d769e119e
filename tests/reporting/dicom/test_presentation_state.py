"""Outlines as graphic layers over the source, to be switched off one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from pipeline.domain import RESEARCH_USE_ONLY, Call
from reporting.dicom.presentation_state import LAYER_BY_CALL, NUCLEI_LAYER, RESEARCH_LAYER
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.made import made
from tests.reporting.sources import make_source

FIELD = make_field_findings()


def state_of(field=FIELD, **changed: Any) -> Dataset:
    return made(ResultKind.PRESENTATION_STATE, field, **changed)


def annotations_by_layer(state: Dataset) -> dict[str, Dataset]:
    return {one.GraphicLayer: one for one in state.GraphicAnnotationSequence}


def texts(state: Dataset) -> list[Dataset]:
    return [
        text
        for one in state.GraphicAnnotationSequence
        for text in one.get("TextObjectSequence", ())
    ]


def test_every_layer_that_is_used_is_declared() -> None:
    state = state_of()

    declared = [one.GraphicLayer for one in state.GraphicLayerSequence]
    assert set(annotations_by_layer(state)) <= set(declared)
    assert [one.GraphicLayerOrder for one in state.GraphicLayerSequence] == [
        *range(1, len(declared) + 1)
    ]


def test_each_call_has_a_layer_and_each_cell_an_outline() -> None:
    layers = annotations_by_layer(state_of())

    for call, layer in LAYER_BY_CALL.items():
        cells = [one for one in FIELD.cells if one.call is call]
        assert len(layers[layer].GraphicObjectSequence) == len(cells)
        assert len(layers[layer].TextObjectSequence) == len(cells)
    assert len(layers[NUCLEI_LAYER].GraphicObjectSequence) == len(FIELD.cells)


def test_the_label_stands_across_the_display() -> None:
    [banner] = annotations_by_layer(state_of())[RESEARCH_LAYER].TextObjectSequence

    assert banner.UnformattedTextValue == RESEARCH_USE_ONLY
    assert banner.BoundingBoxAnnotationUnits == "DISPLAY"


def test_calls_are_told_apart_without_colour_too() -> None:
    layers = annotations_by_layer(state_of())

    dashes = {
        layer: layers[layer].GraphicObjectSequence[0].LineStyleSequence[0].LineDashingStyle
        for layer in LAYER_BY_CALL.values()
    }
    assert dashes == {"LEUKEMIC": "SOLID", "NORMAL": "SOLID", "REFERRED": "DASHED"}
    assert all(str(one.call) in text.UnformattedTextValue for one, text in _labels())


def _labels():
    layers = annotations_by_layer(state_of())
    for call, layer in LAYER_BY_CALL.items():
        cells = [one for one in FIELD.cells if one.call is call]
        yield from zip(cells, layers[layer].TextObjectSequence, strict=True)


def test_outlines_are_closed_and_lie_on_the_picture() -> None:
    for layer in annotations_by_layer(state_of()).values():
        for graphic in layer.get("GraphicObjectSequence", ()):
            points = np.array(graphic.GraphicData).reshape(-1, 2)
            assert len(points) == graphic.NumberOfGraphicPoints
            np.testing.assert_array_equal(points[0], points[-1])
            assert points.min() >= 0
            assert (points <= [FIELD.width, FIELD.height]).all()


@pytest.mark.parametrize(("x", "y"), [(5, 5), (635, 5), (5, 475), (635, 475), (320, 240)])
def test_a_label_stays_on_the_picture(x: int, y: int) -> None:
    field = make_field_findings(cells=[make_cell_finding(make_cell(1, x, y, radius=5))])

    for text in texts(state_of(field)):
        corners = [*text.BoundingBoxTopLeftHandCorner, *text.BoundingBoxBottomRightHandCorner]
        assert min(corners) >= 0
        assert corners[2] <= FIELD.width
        assert corners[3] <= FIELD.height
        assert corners[0] < corners[2]
        assert corners[1] < corners[3]


def test_it_refers_to_the_one_frame() -> None:
    field = make_field_findings(frame=2)

    state = state_of(field, source=make_source("multi_frame", field))

    [series] = state.ReferencedSeriesSequence
    [image] = series.ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == field.sop_instance_uid
    assert image.ReferencedFrameNumber == 2
    [area] = state.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [field.width, field.height]


def test_the_source_s_colour_profile_is_kept() -> None:
    source = make_source("microscopic", FIELD)
    source.OpticalPathSequence[0].ICCProfile = b"its own profile."

    assert state_of(source=source).ICCProfile == b"its own profile."


def test_without_a_profile_it_is_srgb() -> None:
    source = make_source("microscopic", FIELD, is_full=False)

    assert state_of(source=source).ICCProfile[36:40] == b"acsp"


def test_a_gray_picture_has_none() -> None:
    """A Color Softcopy Presentation State is for color alone (PS3.3 A.33.2.3)."""
    source = make_source("microscopic", FIELD, photometric="MONOCHROME2")

    with pytest.raises(ValueError, match="not enough values"):
        state_of(source=source)


def test_a_call_without_cells_has_no_graphics() -> None:
    assert "LEUKEMIC" not in annotations_by_layer(
        state_of(make_field_findings(calls=[Call.NORMAL]))
    )
