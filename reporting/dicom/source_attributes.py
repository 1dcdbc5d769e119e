"""What our objects take over from the image that they were made of; nothing is invented.

A type 2 attribute that the source lacks is present and empty, as PS3.5 section 7.4.3 asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from functools import cache

from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset

from config.codes import SOURCE_IMAGE, Concept
from pipeline.errors import NeedsReview

PATIENT_TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY_TYPE_2 = (
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
COPIED_WHEN_PRESENT = (
    # Patient, PS3.3 C.7.1.1
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientComments",
    "QualityControlSubject",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    # General Study and Patient Study, C.7.2.1 and C.7.2.2
    "StudyInstanceUID",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PhysiciansOfRecord",
    "ReferringPhysicianIdentificationSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSexNeutered",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdditionalPatientHistory",
    # Clinical trial, C.7.1.3 and C.7.2.3: a research site needs them on the results as well
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    # SOP Common, C.12.1
    "SpecificCharacterSet",
    "LongitudinalTemporalInformationModified",
)
SPECIMEN_MODULE = (
    "ContainerIdentifier",
    "IssuerOfTheContainerIdentifierSequence",
    "AlternateContainerIdentifierSequence",
    "ContainerTypeCodeSequence",
    "ContainerDescription",
    "ContainerComponentSequence",
    "SpecimenDescriptionSequence",
)
SPECIMEN_TYPE_2 = ("IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence")

WEST_MOST, EAST_MOST = timedelta(hours=12), timedelta(hours=14)

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceFrame:
    """One frame of a source image, to be referenced."""

    header: Dataset
    frame: int

    @property
    def is_one_of_many(self) -> bool:
        """Whether a reference needs the frame number (PS3.3 Table 10-3)."""
        return frames_of(self.header) > 1 or self.frame > 1


def header_of(dataset: Dataset) -> Dataset:
    """The dataset without its pixels; elements are shared, so treat it as read-only."""
    header = Dataset({element.tag: element for element in dataset if _is_header(element)})
    header.file_meta = getattr(dataset, "file_meta", FileMetaDataset())
    return header


def _is_header(element: DataElement) -> bool:
    return element.keyword not in PIXEL_KEYWORDS and not element.tag.is_private


def color_profile(header: Dataset) -> bytes:
    """The source's own ICC profile (C.11.15), or that of its optical path; empty without one."""
    paths = header.get("OpticalPathSequence") or []
    return bytes(
        header.get("ICCProfile") or next((path.get("ICCProfile") for path in paths), None) or b""
    )


def frames_of(header: Dataset) -> int:
    """Number of Frames, 1 where the source does not say."""
    return int(header.get("NumberOfFrames") or 1)


def patient_and_study(header: Dataset) -> Dataset:
    """Patient, study, clinical trial, character set and time zone of the source."""
    copied = Dataset()
    for keyword in PATIENT_TYPE_2 + STUDY_TYPE_2:
        copy_or_empty(header, copied, keyword)
    for keyword in COPIED_WHEN_PRESENT:
        copy_when_present(header, copied, keyword)
    if time_zone(header):
        copy_when_present(header, copied, "TimezoneOffsetFromUTC")
    return copied


def time_zone(header: Dataset) -> tzinfo | None:
    """Timezone Offset From UTC (0008,0201); None where it is absent or no offset (C.12.1.1.8)."""
    offset = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", str(header.get("TimezoneOffsetFromUTC") or ""))
    if not offset:
        return None
    sign, hours, minutes = offset.groups()
    distance = timedelta(hours=int(hours), minutes=int(minutes))
    is_legal = distance <= WEST_MOST if sign == "-" else distance <= EAST_MOST
    return timezone(-distance if sign == "-" else distance) if is_legal else None


def has_specimen(header: Dataset) -> bool:
    """Whether the source has a whole Specimen Module (PS3.3 C.7.6.22)."""
    return bool(header.get("ContainerIdentifier")) and bool(
        header.get("SpecimenDescriptionSequence")
    )


def specimen(header: Dataset) -> Dataset:
    """The Specimen Module of the source, or nothing when the source lacks its type 1 parts."""
    copied = Dataset()
    if has_specimen(header):
        for keyword in SPECIMEN_MODULE:
            copy_when_present(header, copied, keyword)
        for keyword in SPECIMEN_TYPE_2:
            copy_or_empty(header, copied, keyword)
    return copied


def laterality(header: Dataset) -> Dataset:
    """Empty, as no side is known; absent beside a specimen, which has none (C.7.3.1, 2C)."""
    side = Dataset()
    if not has_specimen(header):
        side.Laterality = None
    return side


def copy_when_present(source: Dataset, target: Dataset, keyword: str) -> None:
    """Put a copy of one attribute into `target`, if `source` has it with a value."""
    if source.get(keyword) not in (None, "", []):
        target[keyword] = deepcopy(source[keyword])


def copy_or_empty(source: Dataset, target: Dataset, keyword: str) -> None:
    """Put one attribute into `target`, empty if `source` has none (type 2)."""
    setattr(target, keyword, None)
    copy_when_present(source, target, keyword)


def check_one_patient(headers: Iterable[Dataset]) -> None:
    """One report must not speak of two patients: raises NeedsReview when the sources differ."""
    patients = {
        (str(header.get("PatientID", "")), str(header.get("IssuerOfPatientID", "")))
        for header in headers
    }
    if len(patients) > 1:
        raise NeedsReview(
            "The images of one smear name different patients; correct them at the source "
            "or gather by series, then send them again.",
            code="smear_with_two_patients",
        )


# --- references to the source


def image_reference(source: SourceFrame, purpose: Concept | None = SOURCE_IMAGE) -> Dataset:
    """An item of Source Image Sequence or of Referenced Image Sequence."""
    item = instance_reference(source.header)
    if source.is_one_of_many:
        item.ReferencedFrameNumber = source.frame
    if purpose:
        item.PurposeOfReferenceCodeSequence = [code_item(purpose)]
    return item


def instance_reference(header: Dataset) -> Dataset:
    """SOP class and instance of a source, as a reference."""
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


@cache
def code_item(concept: Concept) -> Dataset:
    """An item of a Code Sequence (PS3.3 section 8.8), shared by all: never change it."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.dicom
    return item
