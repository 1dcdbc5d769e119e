"""Headers of source images and references to results, made by hand for tests of reports."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, VLMicroscopicImageStorage

from pipeline.domain import SmearFindings, SOPInstanceUID
from reporting.derived_uids import derived_uid
from reporting.results import ObjectReference, ReportContext, ResultKind

MODEL_CARD = "# smearlink-resnet50\n\nResearch use only. Ärzte ≥ 2.\n"
ISSUED_AT = datetime(2026, 11, 22, 20, 30, 15, tzinfo=UTC)


def make_context(
    version: int = 1, *, min_cells_for_percent: int = 1, pdf_font: Path | None = None
) -> ReportContext:
    """With percentages of few cells, as tests have few."""
    return ReportContext(
        version=version,
        min_cells_for_percent=min_cells_for_percent,
        pdf_font=pdf_font,
        issued_at=ISSUED_AT,
        software_version="0.1.0",
        compress_images=True,
        kinds=frozenset(ResultKind),
        model_card=MODEL_CARD,
    )


def make_headers(smear: SmearFindings, **attributes: str) -> dict[SOPInstanceUID, Dataset]:
    """One header a source image, all of one patient and one slide."""
    return {field.sop_instance_uid: _header(field, attributes) for field in smear.fields}


def make_references(smear: SmearFindings) -> list[ObjectReference]:
    """An annotated picture for each field, and the gallery."""
    pictures = [
        _reference(ResultKind.ANNOTATED_FIELD, number, field.study_uid, field)
        for number, field in enumerate(smear.fields, start=1)
    ]
    return [*pictures, _reference(ResultKind.GALLERY, 1, smear.fields[0].study_uid, None)]


def _header(field, attributes: dict[str, str]) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = VLMicroscopicImageStorage
    header.SOPInstanceUID = field.sop_instance_uid
    header.StudyInstanceUID = field.study_uid
    header.SeriesInstanceUID = field.series_uid
    header.Modality = "GM"
    header.PatientID = "PID-77"
    header.PatientName = "Müller^Änne"
    header.PatientBirthDate = "19610203"
    header.PatientSex = "F"
    header.IssuerOfPatientID = "HOSPITAL"
    header.AccessionNumber = "ACC-5"
    header.StudyDate = "20261121"
    header.StudyTime = "101500"
    header.TimezoneOffsetFromUTC = "+0100"
    header.ContainerIdentifier = "SLIDE-9"
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


def _reference(kind: ResultKind, number: int, study_uid: str, field) -> ObjectReference:
    return ObjectReference(
        kind=kind,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=derived_uid("test-image", kind, str(number)),
        series_instance_uid=derived_uid("test-series", kind),
        study_instance_uid=study_uid,
        instance_number=number,
        source=field and field.sop_instance_uid,
        frame=field and field.frame,
    )
