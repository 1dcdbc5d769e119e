"""Every cell as a polygon on the slide, in millimeters, one group a call."""

from __future__ import annotations

import numpy as np
import pytest
from highdicom.ann import MicroscopyBulkSimpleAnnotations
from pydicom import Dataset

from pipeline.domain import Call
from reporting.dicom.slide_coordinates import slide_place
from reporting.results import ResultKind
from tests.findings import make_field_findings
from tests.reporting.made import made
from tests.reporting.sources import make_source

FIELD = make_field_findings()
SOURCE = make_source("slide_coordinates", FIELD)


@pytest.fixture(scope="module")
def objects() -> Dataset:
    return made(ResultKind.BULK_ANNOTATIONS, FIELD, source=SOURCE)


def test_highdicom_reads_each_polygon_where_its_cell_lies(objects) -> None:
    place = slide_place(SOURCE)
    assert place is not None
    read = MicroscopyBulkSimpleAnnotations.from_dataset(objects)

    for group in read.get_annotation_groups():
        call = next(one for one in Call if one in group.label)
        cells = [one for one in FIELD.cells if one.call is call]
        polygons = group.get_graphic_data(coordinate_type=read.annotation_coordinate_type)
        assert len(polygons) == len(cells)
        for polygon, finding in zip(polygons, cells, strict=True):
            box = finding.cell.box
            center = [[box.x + box.width / 2, box.y + box.height / 2]]
            expected = place.on_slide(np.array(center, dtype=np.float32))[0]
            np.testing.assert_allclose(polygon[:, :2].mean(axis=0), expected, atol=0.001)


def test_measurements_are_those_of_the_cells_in_order(objects) -> None:
    for group in objects.AnnotationGroupSequence:
        call = next(one for one in Call if one in group.AnnotationGroupLabel)
        cells = [one for one in FIELD.cells if one.call is call]
        probability = group.MeasurementsSequence[0]
        assert probability.ConceptNameCodeSequence[0].CodeMeaning == "Probability of being leukemic"
        values = np.frombuffer(
            probability.MeasurementValuesSequence[0].FloatingPointValues, dtype="<f4"
        )
        expected = [one.prediction.leukemic_probability for one in cells]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_it_stands_in_the_frame_of_reference_of_the_source(objects) -> None:
    assert objects.FrameOfReferenceUID == SOURCE.FrameOfReferenceUID
    assert objects.AnnotationCoordinateType == "3D"
    assert {one.CommonZCoordinateValue for one in objects.AnnotationGroupSequence} == {0.0}


def test_the_algorithm_is_named(objects) -> None:
    for group in objects.AnnotationGroupSequence:
        [algorithm] = group.AnnotationGroupAlgorithmIdentificationSequence
        assert group.AnnotationGroupGenerationType == "AUTOMATIC"
        assert algorithm.AlgorithmParameters.startswith("sha256=")


def test_group_uids_are_derived() -> None:
    again = made(ResultKind.BULK_ANNOTATIONS, FIELD, source=SOURCE)
    first = made(ResultKind.BULK_ANNOTATIONS, FIELD, source=SOURCE)

    assert [one.AnnotationGroupUID for one in again.AnnotationGroupSequence] == [
        one.AnnotationGroupUID for one in first.AnnotationGroupSequence
    ]
