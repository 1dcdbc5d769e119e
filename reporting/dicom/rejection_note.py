"""Builds a Rejection Note (IHE RAD TF-3 4.66, IOCM): a Key Object Selection of replaced objects.

An archive that understands it hides or removes what it names. It is derived from the objects alone,
so that a replay gives the same note.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from pydicom import Dataset
from pydicom.uid import (
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from config.codes import MODALITY_KEY_OBJECTS
from config.dicom_codes import (
    DOCUMENT_TITLE_MODIFIER,
    ENGLISH,
    KEY_OBJECT_DESCRIPTION,
    LANGUAGE,
    REJECTED_FOR_QUALITY_REASONS,
    REPLACED,
)
from pipeline.domain import RESEARCH_USE_ONLY
from reporting.derived_uids import derived_uid
from reporting.dicom.common_modules import InstanceReference, evidence, part10_bytes
from reporting.dicom.source_attributes import patient_and_study
from reporting.dicom.sr_content_items import Relation, code, object_item, root, text
from reporting.results import DICOM_MEDIA_TYPE, Result, ResultKind

SERIES_NUMBER = 9008
IMAGE_CLASSES = frozenset({SecondaryCaptureImageStorage, SegmentationStorage})
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")


def build_rejection_note(
    replaced: Sequence[Dataset], *, version: int, issued_at: datetime
) -> Result:
    """The note that rejects objects of ours in one study, replaced by report `version`.

    `replaced` are their headers, `issued_at` is aware.
    """
    objects = sorted(replaced, key=lambda header: str(header.SOPInstanceUID))
    first = objects[0]
    uids = [str(header.SOPInstanceUID) for header in objects]
    note = patient_and_study(first)
    note.update(_series_and_equipment(first, uids))
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID = derived_uid("rejection-note", str(first.StudyInstanceUID), *uids)
    note.InstanceNumber = 1
    note.ContentQualification = "RESEARCH"
    note.ContentDate = note.InstanceCreationDate = issued_at.strftime("%Y%m%d")
    note.ContentTime = note.InstanceCreationTime = issued_at.strftime("%H%M%S")
    note.ReferencedPerformedProcedureStepSequence = []
    note.CurrentRequestedProcedureEvidenceSequence = evidence(
        map(InstanceReference.of_source, objects)
    )
    note.update(root(REJECTED_FOR_QUALITY_REASONS, "2010", _content(objects, version)))
    return Result(
        kind=ResultKind.KEY_OBJECTS,
        name=f"{note.SOPInstanceUID}.dcm",
        media_type=DICOM_MEDIA_TYPE,
        uid=str(note.SOPInstanceUID),
        content=part10_bytes(note),
    )


def _series_and_equipment(first: Dataset, uids: Sequence[str]) -> Dataset:
    made = Dataset()
    made.Modality = MODALITY_KEY_OBJECTS.code
    made.SeriesInstanceUID = derived_uid("rejection-series", str(first.StudyInstanceUID), *uids)
    made.SeriesNumber = SERIES_NUMBER
    made.SeriesDescription = "Replaced results (RESEARCH USE ONLY)"
    for keyword in EQUIPMENT:
        if keyword in first:
            made[keyword] = first[keyword]
    return made


def _content(objects: Sequence[Dataset], version: int) -> Iterator[Dataset]:
    yield code(LANGUAGE, ENGLISH, Relation.CONCEPT_MODIFIER)
    yield code(DOCUMENT_TITLE_MODIFIER, REPLACED, Relation.CONCEPT_MODIFIER)
    words = f"{RESEARCH_USE_ONLY}. Replaced by version {version} of the report."
    yield text(KEY_OBJECT_DESCRIPTION, words)
    for header in objects:
        is_image = header.SOPClassUID in IMAGE_CLASSES
        yield object_item(
            str(header.SOPClassUID),
            str(header.SOPInstanceUID),
            "IMAGE" if is_image else "COMPOSITE",
        )
