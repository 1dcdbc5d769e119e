"""Builds every cell of a field as Microscopy Bulk Simple Annotations (PS3.3 A.87).

Cheap for thousands of cells. Made where the source tells its place on the slide, so that the
outlines stand in its frame of reference in millimeters; see ADR 0010 for why not in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from pydicom import Dataset

from config.codes import LEUKOCYTE, MODALITY_ANNOTATION, Concept
from config.dicom_codes import (
    ANATOMICAL_STRUCTURE,
    AREA,
    LEUKEMIC_PROBABILITY,
    NUCLEUS_TO_CELL_RATIO,
    ONE,
    SQUARE_MICROMETER,
)
from pipeline.domain import RESEARCH_USE_ONLY, Call, CellFinding, FieldFindings
from pipeline.rendering.pen import CALL_COLOURS
from reporting.derived_uids import derived_uid
from reporting.dicom.attributes import Attributes
from reporting.dicom.color import cielab
from reporting.dicom.common_modules import (
    Authorship,
    InstanceReference,
    common_instance_references,
    common_modules,
    date_and_time,
)
from reporting.dicom.graphic_coordinates import outline_points
from reporting.dicom.segmentation import algorithm_item
from reporting.dicom.slide_coordinates import SlidePlace
from reporting.dicom.source_attributes import SourceFrame, code_item, image_reference
from reporting.dicom.sr_measurement_groups import cell_finding
from reporting.results import ObjectReference

Figure = Callable[[CellFinding], float]

MEASUREMENTS: tuple[tuple[Concept, Concept, Figure], ...] = (
    (LEUKEMIC_PROBABILITY, ONE, lambda finding: finding.prediction.leukemic_probability),
    (AREA, SQUARE_MICROMETER, lambda finding: finding.cell.shape.area_um2),
    (NUCLEUS_TO_CELL_RATIO, ONE, lambda finding: finding.cell.shape.nucleus_to_cell_ratio),
)


def build_annotations(
    findings: FieldFindings,
    *,
    reference: ObjectReference,
    author: Authorship,
    source: SourceFrame,
    place: SlidePlace,
) -> Dataset:
    """The outlines of one field on the slide, one group a call; needs at least one cell."""
    dataset = common_modules(reference, author, modality=MODALITY_ANNOTATION.code)
    dataset.Laterality = None
    dataset.FrameOfReferenceUID = place.frame_of_reference_uid
    dataset.PositionReferenceIndicator = source.header.get("PositionReferenceIndicator")
    dataset.update(_content(author, source))
    dataset.update(
        common_instance_references(
            reference.study_instance_uid, [InstanceReference.of_source(source.header)]
        )
    )
    dataset.AnnotationGroupSequence = [
        _group(number, call, cells, reference, author, place)
        for number, (call, cells) in enumerate(_by_call(findings), start=1)
    ]
    return dataset


def _content(author: Authorship, source: SourceFrame) -> Dataset:
    """Microscopy Bulk Simple Annotations Module (C.37.1.2)."""
    content = Attributes()
    content.ContentLabel = "RESEARCH_USE"
    content.ContentDescription = RESEARCH_USE_ONLY
    content.ContentCreatorName = None
    content.ContentDate, content.ContentTime = date_and_time(author)
    content.AnnotationCoordinateType = "3D"
    content.ReferencedImageSequence = [image_reference(source, purpose=None)]
    return content


def _by_call(findings: FieldFindings) -> Iterator[tuple[Call, Sequence[CellFinding]]]:
    for call in Call:
        cells = [finding for finding in findings.cells if finding.call is call]
        if cells:
            yield call, cells


def _group(
    number: int,
    call: Call,
    cells: Sequence[CellFinding],
    reference: ObjectReference,
    author: Authorship,
    place: SlidePlace,
) -> Dataset:
    group = Attributes()
    group.AnnotationGroupNumber = number
    group.AnnotationGroupUID = derived_uid("annotations", reference.sop_instance_uid, call)
    group.AnnotationGroupLabel = f"White cells {call} (research)"
    group.AnnotationGroupDescription = RESEARCH_USE_ONLY
    is_reviewed = any(finding.decision for finding in cells)
    group.AnnotationGroupGenerationType = "SEMIAUTOMATIC" if is_reviewed else "AUTOMATIC"
    group.AnnotationGroupAlgorithmIdentificationSequence = [algorithm_item(author)]
    group.AnnotationPropertyCategoryCodeSequence = [code_item(ANATOMICAL_STRUCTURE)]
    group.AnnotationPropertyTypeCodeSequence = [code_item(_common_type(cells))]
    group.NumberOfAnnotations = len(cells)
    group.AnnotationAppliesToAllOpticalPaths = "YES"
    group.RecommendedDisplayCIELabValue = cielab(CALL_COLOURS[call])
    group.AnnotationAppliesToAllZPlanes = "NO"
    group.CommonZCoordinateValue = place.z_mm
    group.update(_polygons(cells, place))
    group.MeasurementsSequence = [
        _measurement(name, unit, [figure(finding) for finding in cells])
        for name, unit, figure in MEASUREMENTS
    ]
    return group


def _common_type(cells: Sequence[CellFinding]) -> Concept:
    """What was decided of all of them alike, or leukocyte; referred cells have no type."""
    decided = {cell_finding(one) for one in cells if one.call is not Call.REFERRED}
    return decided.pop() if len(decided) == 1 else LEUKOCYTE


def _polygons(cells: Sequence[CellFinding], place: SlidePlace) -> Dataset:
    """All points in one row; the index list counts single coordinates from 1 (C.37.1.2.1.2)."""
    outlines = [place.on_slide(outline_points(finding.cell.contour)) for finding in cells]
    starts = np.cumsum([0, *[outline.size for outline in outlines[:-1]]]) + 1
    polygons = Attributes()
    polygons.GraphicType = "POLYGON"
    polygons.PointCoordinatesData = np.vstack(outlines).astype("<f4").tobytes()
    polygons.LongPrimitivePointIndexList = starts.astype("<u4").tobytes()
    return polygons


def _measurement(name: Concept, unit: Concept, values: Sequence[float]) -> Dataset:
    figures = Attributes()
    figures.FloatingPointValues = np.array(values, dtype="<f4").tobytes()
    measurement = Attributes()
    measurement.ConceptNameCodeSequence = [code_item(name)]
    measurement.MeasurementUnitsCodeSequence = [code_item(unit)]
    measurement.MeasurementValuesSequence = [figures]
    return measurement
