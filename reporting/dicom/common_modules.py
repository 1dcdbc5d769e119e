"""Builds the modules that all derived objects share: patient, study, series, equipment, SOP Common.

Each function gives a part as a dataset of its own, to be merged with `Dataset.update`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from types import MappingProxyType

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from config.codes import PROCESSING_EQUIPMENT
from config.dicom_codes import ACQUISITION_EQUIPMENT
from pipeline.domain import RESEARCH_USE_ONLY, ModelIdentity
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID
from reporting.dicom.attributes import Attributes
from reporting.dicom.encoding import encode_dataset
from reporting.dicom.source_attributes import (
    code_item,
    copy_when_present,
    patient_and_study,
    time_zone,
)
from reporting.results import ObjectReference, ReportContext, ResultKind

PREAMBLE = b"\x00" * 128 + b"DICM"
MANUFACTURER = "smearlink"
IMPLEMENTATION_VERSION_NAME = "SMEARLINK"

SERIES_NUMBERS: Mapping[ResultKind, int] = MappingProxyType(
    {
        ResultKind.GALLERY: 9001,
        ResultKind.ANNOTATED_FIELD: 9002,
        ResultKind.PRESENTATION_STATE: 9003,
        ResultKind.STRUCTURED_REPORT: 9004,
        ResultKind.BULK_ANNOTATIONS: 9005,
        ResultKind.SEGMENTATION: 9006,
        ResultKind.KEY_OBJECTS: 9007,
    }
)
"""Of the first version: far above a device's own numbers, the gallery first."""
NUMBERS_PER_VERSION = 10
"""A later version has higher numbers than an earlier one, kind by kind in the same order."""

SERIES_WORDS: Mapping[ResultKind, str] = MappingProxyType(
    {
        ResultKind.GALLERY: "Smear gallery",
        ResultKind.ANNOTATED_FIELD: "Annotated fields",
        ResultKind.PRESENTATION_STATE: "Cell outlines",
        ResultKind.STRUCTURED_REPORT: "Smear report",
        ResultKind.BULK_ANNOTATIONS: "Cell annotations",
        ResultKind.SEGMENTATION: "Cell segmentation",
        ResultKind.KEY_OBJECTS: "Result set",
    }
)

EQUIPMENT_KEYWORDS = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Authorship:
    """Whose smear it is (the source's header), which network looked, and for which report."""

    header: Dataset
    model: ModelIdentity
    context: ReportContext
    patient_and_study: Dataset = field(init=False)
    """Taken over from the header once, shared by all that is made of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient_and_study", patient_and_study(self.header))

    @property
    def software(self) -> str:
        """Name and version of this service."""
        return f"{MANUFACTURER} {self.context.software_version}"

    @property
    def issued_at(self) -> datetime:
        """The issue time in the time zone of the source, where it names one."""
        zone = time_zone(self.header)
        return self.context.issued_at.astimezone(zone) if zone else self.context.issued_at


def common_modules(reference: ObjectReference, author: Authorship, *, modality: str) -> Dataset:
    """Patient, study, series, equipment and SOP Common (PS3.3 C.7.1 to C.7.5, C.12.1)."""
    common = Attributes()
    common.update(author.patient_and_study)
    common.update(_series(reference, author, modality))
    common.update(_equipment(author))
    common.update(_sop_common(reference, author))
    return common


def _series(reference: ObjectReference, author: Authorship, modality: str) -> Dataset:
    """General Series (C.7.3.1), dated and numbered so that versions sort in their order."""
    context = author.context
    series = Attributes()
    series.Modality = modality
    series.SeriesInstanceUID = reference.series_instance_uid
    series.SeriesNumber = (
        SERIES_NUMBERS[reference.kind] + (context.version - 1) * NUMBERS_PER_VERSION
    )
    series.SeriesDate, series.SeriesTime = _series_date_and_time(author)
    series.SeriesDescription = series_description(reference.kind, context, reference.series_field)
    return series


def _series_date_and_time(author: Authorship) -> tuple[str, str]:
    """With the part of a second, so that two versions of one second still sort in their order."""
    date, time = date_and_time(author)
    part = author.issued_at.microsecond
    return date, f"{time}.{part:06}" if part else time


def series_description(
    kind: ResultKind, context: ReportContext, field_number: int | None = None
) -> str:
    """At most 64 characters (LO); what tells series apart comes first, as viewers cut the end off.

    The label stands in the pixels or the text of each object as well.
    """
    field = f", field {field_number}" if field_number else ""
    version = f", version {context.version}" if context.version > 1 else ""
    return f"{SERIES_WORDS[kind]}{field}{version} (RESEARCH USE ONLY)"


def _equipment(author: Authorship) -> Dataset:
    """General and Enhanced General Equipment (C.7.5.1, C.7.5.2): the software is the device."""
    equipment = Attributes()
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = author.model.name
    equipment.DeviceSerialNumber = author.model.sha256
    equipment.SoftwareVersions = software_versions(author)
    return equipment


def software_versions(author: Authorship) -> list[str]:
    """Of the service and of the network."""
    return [author.software, f"{author.model.name} {author.model.version}"]


def _sop_common(reference: ObjectReference, author: Authorship) -> Dataset:
    sop = Attributes()
    sop.SOPClassUID = reference.sop_class_uid
    sop.SOPInstanceUID = reference.sop_instance_uid
    sop.InstanceNumber = reference.instance_number
    sop.InstanceCreationDate, sop.InstanceCreationTime = date_and_time(author)
    sop.ContentQualification = "RESEARCH"
    sop.ContributingEquipmentSequence = list(_contributing_equipment(author))
    return sop


def date_and_time(author: Authorship) -> tuple[str, str]:
    """Issue date (DA) and time (TM) of the report."""
    return author.issued_at.strftime("%Y%m%d"), author.issued_at.strftime("%H%M%S")


def timestamp(author: Authorship) -> str:
    """Issue time as DT, with its offset from UTC."""
    return author.issued_at.strftime("%Y%m%d%H%M%S%z")


def _contributing_equipment(author: Authorship) -> Iterable[Dataset]:
    acquisition = Attributes()
    for keyword in EQUIPMENT_KEYWORDS:
        copy_when_present(author.header, acquisition, keyword)
    if "Manufacturer" in acquisition:
        acquisition.PurposeOfReferenceCodeSequence = [code_item(ACQUISITION_EQUIPMENT)]
        yield acquisition
    processing = _equipment(author)
    processing.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    processing.ContributionDateTime = timestamp(author)
    processing.ContributionDescription = (
        f"{RESEARCH_USE_ONLY}. White cells found and classified; network sha256 "
        f"{author.model.sha256}, run by {author.model.execution_provider}"
        f"{author.model.calibration_note}."
    )
    yield processing


# --- references to other objects


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReference:
    """Where one instance lies, for evidence and common references."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str

    @classmethod
    def of_source(cls, header: Dataset) -> InstanceReference:
        """Of an image that came in."""
        return cls(
            study_uid=str(header.StudyInstanceUID),
            series_uid=str(header.SeriesInstanceUID),
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
        )

    @classmethod
    def of_object(cls, reference: ObjectReference) -> InstanceReference:
        """Of an object that we make."""
        return cls(
            study_uid=reference.study_instance_uid,
            series_uid=reference.series_instance_uid,
            sop_class_uid=reference.sop_class_uid,
            sop_instance_uid=reference.sop_instance_uid,
        )

    @property
    def place(self) -> tuple[str, str, str]:
        """For sorting: study, then series, then instance."""
        return self.study_uid, self.series_uid, self.sop_instance_uid


def series_items(references: Iterable[InstanceReference], instances: str) -> list[Dataset]:
    """One item a series; `instances` is the keyword of the sequence of instances in it."""
    items: list[Dataset] = []
    ordered = sorted(set(references), key=lambda reference: reference.place)
    for series_uid, members in groupby(ordered, key=lambda reference: reference.series_uid):
        item = Attributes()
        item.SeriesInstanceUID = series_uid
        setattr(item, instances, [_sop_item(member) for member in members])
        items.append(item)
    return items


def evidence(references: Iterable[InstanceReference]) -> list[Dataset]:
    """Study by study, as Current Requested Procedure Evidence Sequence (C.17.2.1)."""
    items: list[Dataset] = []
    ordered = sorted(set(references), key=lambda reference: reference.place)
    for study_uid, members in groupby(ordered, key=lambda reference: reference.study_uid):
        item = Attributes()
        item.StudyInstanceUID = study_uid
        item.ReferencedSeriesSequence = series_items(members, "ReferencedSOPSequence")
        items.append(item)
    return items


def common_instance_references(study_uid: str, references: Iterable[InstanceReference]) -> Dataset:
    """Common Instance Reference Module (C.12.2): our own study apart from the others."""
    listed = list(references)
    module = Attributes()
    within = [reference for reference in listed if reference.study_uid == study_uid]
    beyond = [reference for reference in listed if reference.study_uid != study_uid]
    if within:
        module.ReferencedSeriesSequence = series_items(within, "ReferencedInstanceSequence")
    if beyond:
        module.StudiesContainingOtherReferencedInstancesSequence = [
            _study_item(uid, list(members))
            for uid, members in groupby(
                sorted(beyond, key=lambda reference: reference.place), key=lambda r: r.study_uid
            )
        ]
    return module


def _study_item(study_uid: str, members: list[InstanceReference]) -> Dataset:
    item = Attributes()
    item.StudyInstanceUID = study_uid
    item.ReferencedSeriesSequence = series_items(members, "ReferencedInstanceSequence")
    return item


def _sop_item(reference: InstanceReference) -> Dataset:
    item = Attributes()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


# --- bytes


def part10_bytes(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A DICOM file (PS3.10) in an explicit little-endian syntax; always the same bytes."""
    if "PixelData" in dataset:
        dataset["PixelData"].is_undefined_length = UID(transfer_syntax).is_compressed
    meta = encode_dataset(_file_meta(dataset, transfer_syntax))
    length = Attributes()
    length.FileMetaInformationGroupLength = len(meta)
    return b"".join((PREAMBLE, encode_dataset(length), meta, encode_dataset(dataset)))


def _file_meta(dataset: Dataset, transfer_syntax: str) -> Attributes:
    """The File Meta Information (PS3.10 7.1) without its length."""
    meta = Attributes()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
