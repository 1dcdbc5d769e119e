"""Which DICOM objects a smear's result set has, with their UIDs, before any is built.

A UID follows from kind, study, smear, sorted sources, network and version of the report: the
same set gives the same UIDs, and an amended set has series of its own beside the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pydicom import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    MicroscopyBulkSimpleAnnotationsStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from pipeline.domain import FieldFindings, SmearFindings, SOPInstanceUID
from reporting.derived_uids import derived_uid
from reporting.dicom.slide_coordinates import slide_place
from reporting.results import ObjectReference, ReportContext, ResultKind

SOP_CLASSES: Mapping[ResultKind, str] = {
    ResultKind.ANNOTATED_FIELD: SecondaryCaptureImageStorage,
    ResultKind.GALLERY: SecondaryCaptureImageStorage,
    ResultKind.PRESENTATION_STATE: ColorSoftcopyPresentationStateStorage,
    ResultKind.STRUCTURED_REPORT: Comprehensive3DSRStorage,
    ResultKind.BULK_ANNOTATIONS: MicroscopyBulkSimpleAnnotationsStorage,
    ResultKind.SEGMENTATION: SegmentationStorage,
    ResultKind.KEY_OBJECTS: KeyObjectSelectionDocumentStorage,
}

Condition = Callable[[FieldFindings, Dataset], bool]


def _always(_field: FieldFindings, _header: Dataset) -> bool:
    return True


def _has_cells(field: FieldFindings, _header: Dataset) -> bool:
    return bool(field.cells)


def _has_cells_in_color(field: FieldFindings, header: Dataset) -> bool:
    """A Color Softcopy Presentation State is for color images alone (PS3.3 A.33.2.3)."""
    return bool(field.cells) and not str(header.PhotometricInterpretation).startswith("MONO")


def _has_cells_on_a_slide(field: FieldFindings, header: Dataset) -> bool:
    """Bulk annotations stand in the source's frame of reference, if it tells its place there."""
    return bool(field.cells) and slide_place(header) is not None


FIELD_KINDS: Mapping[ResultKind, Condition] = {
    ResultKind.ANNOTATED_FIELD: _always,
    ResultKind.PRESENTATION_STATE: _has_cells_in_color,
    ResultKind.SEGMENTATION: _has_cells,
    ResultKind.BULK_ANNOTATIONS: _has_cells_on_a_slide,
}
"""Kinds of which each field has one, and when."""
ONE_PER_SERIES = frozenset({ResultKind.SEGMENTATION})
"""Kinds of which each field has a series of its own: of several segmentations in one series OHIF
opens the last."""
SMEAR_KINDS = (ResultKind.GALLERY, ResultKind.STRUCTURED_REPORT, ResultKind.KEY_OBJECTS)
"""Kinds of which the smear has one; key objects come last, as they name all the others."""


def plan_objects(
    smear: SmearFindings, headers: Mapping[SOPInstanceUID, Dataset], context: ReportContext
) -> tuple[ObjectReference, ...]:
    """Every DICOM object that `context.kinds` asks for, in the order in which they are built."""
    return (*_of_fields(smear, headers, context), *_of_smear(smear, headers, context))


def _of_fields(
    smear: SmearFindings, headers: Mapping[SOPInstanceUID, Dataset], context: ReportContext
) -> Iterator[ObjectReference]:
    for position, field in enumerate(smear.fields, start=1):
        header = headers[field.sop_instance_uid]
        for kind, applies in FIELD_KINDS.items():
            if kind in context.kinds and applies(field, header):
                yield _reference(smear, kind, header, context, position, field)


def _of_smear(
    smear: SmearFindings, headers: Mapping[SOPInstanceUID, Dataset], context: ReportContext
) -> Iterator[ObjectReference]:
    """Under the study of the first field, as a series lies in one study."""
    header = headers[smear.fields[0].sop_instance_uid]
    for kind in SMEAR_KINDS:
        if kind in context.kinds:
            yield _reference(smear, kind, header, context, 1, None)


def _reference(
    smear: SmearFindings,
    kind: ResultKind,
    header: Dataset,
    context: ReportContext,
    position: int,
    field: FieldFindings | None,
) -> ObjectReference:
    study_uid = str(header.StudyInstanceUID)
    of_report = (kind, study_uid, smear.smear_id, smear.model.key, str(context.version))
    sources = sorted({f"{field.sop_instance_uid}#{field.frame}" for field in smear.fields})
    is_alone = kind in ONE_PER_SERIES and len(smear.fields) > 1
    of_series = (*of_report, str(position)) if is_alone else of_report
    return ObjectReference(
        kind=kind,
        sop_class_uid=SOP_CLASSES[kind],
        sop_instance_uid=derived_uid("object", *of_report, str(position), *sources),
        series_instance_uid=derived_uid("series", *of_series),
        study_instance_uid=study_uid,
        instance_number=1 if is_alone else position,
        source=field.sop_instance_uid if field else None,
        frame=field.frame if field else None,
        series_field=position if is_alone else None,
    )
