"""What our objects take over from the image that they were made of; nothing is invented.

A type 2 attribute that the source lacks is present and empty, as PS3.5 section 7.4.3 asks.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from datetime import tzinfo
from functools import cache
from typing import cast

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag

from config.codes import SOURCE_IMAGE, Concept
from reporting.content.identifiers import text_of, zone_of
from reporting.dicom.attributes import Attributes, tag_of

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

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Value representations whose bytes mean what Specific Character Set says (PS3.5 6.1.2.3)."""


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
    """The dataset without pixels and private attributes; shares elements, so read it only.

    Elements stay as undecoded as they are: text that contradicts its character set can then be
    copied byte by byte.
    """
    header = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 (a Dataset iterates over decoded elements)
        if not tag.is_private and keyword_for_tag(tag) not in PIXEL_KEYWORDS:
            header[tag] = dataset.get_item(tag)
    header.file_meta = getattr(dataset, "file_meta", FileMetaDataset())
    return header


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
    copied = Attributes()
    for keyword in PATIENT_TYPE_2 + STUDY_TYPE_2:
        copy_or_empty(header, copied, keyword)
    for keyword in COPIED_WHEN_PRESENT:
        copy_when_present(header, copied, keyword)
    if time_zone(header):
        copy_when_present(header, copied, "TimezoneOffsetFromUTC")
    return copied


def time_zone(header: Dataset) -> tzinfo | None:
    """Timezone Offset From UTC (0008,0201); None where it is absent or no offset (C.12.1.1.8)."""
    return zone_of(text_of(header, "TimezoneOffsetFromUTC"))


def has_specimen(header: Dataset) -> bool:
    """Whether the source has a whole Specimen Module (PS3.3 C.7.6.22)."""
    return bool(text_of(header, "ContainerIdentifier")) and bool(
        header.get("SpecimenDescriptionSequence")
    )


def specimen(header: Dataset) -> Dataset:
    """The Specimen Module of the source, or nothing when the source lacks its type 1 parts."""
    copied = Attributes()
    if has_specimen(header):
        for keyword in SPECIMEN_MODULE:
            copy_when_present(header, copied, keyword)
        for keyword in SPECIMEN_TYPE_2:
            copy_or_empty(header, copied, keyword)
    return copied


def laterality(header: Dataset) -> Dataset:
    """Empty, as no side is known; absent beside a specimen, which has none (C.7.3.1, 2C)."""
    side = Attributes()
    if not has_specimen(header):
        side.Laterality = None
    return side


def copy_when_present(source: Dataset, target: Dataset, keyword: str) -> None:
    """Put a copy of one attribute into `target`, if `source` has it with a value.

    The copy has no private attributes at any depth. Text is copied as the bytes that came, under
    the same character set: decoding and encoding would lose what is wrong in it, and a PACS would
    then show two names for one patient.
    """
    if tag_of(keyword) not in source:
        return
    raw = _undecoded_text(source, tag_of(keyword))
    if raw is not None:
        if (raw.value or b"").strip(b"\0 "):
            target[keyword] = raw
        return
    if source.get(keyword) in (None, "", []):
        return
    target[keyword] = deepcopy(source[keyword])
    if target[keyword].VR == "SQ":
        for item in target[keyword].value:
            _leave_standard_attributes(item)


def _leave_standard_attributes(item: Dataset) -> None:
    """Remove private attributes from a copied item and the items in it; text stays undecoded."""
    for tag in list(item.keys()):
        if tag.is_private:
            del item[tag]
            continue
        raw = _undecoded_text(item, tag)
        if raw is not None:
            item[tag] = raw
        elif item[tag].VR == "SQ":
            for inner in item[tag].value:
                _leave_standard_attributes(inner)


def _undecoded_text(source: Dataset, key: str | BaseTag) -> RawDataElement | None:
    """The element as it came, where it is text that depends on the character set."""
    if key not in source:
        return None
    element = cast("DataElement | RawDataElement", source.get_item(key))
    if not isinstance(element, RawDataElement) or not element.value:
        return None
    vr = _vr_of(element.tag)
    return element._replace(VR=vr) if vr in TEXT_VRS else None


def _vr_of(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def copy_or_empty(source: Dataset, target: Dataset, keyword: str) -> None:
    """Put one attribute into `target`, empty if `source` has none (type 2)."""
    setattr(target, keyword, None)
    copy_when_present(source, target, keyword)


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
    item = Attributes()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


@cache
def code_item(concept: Concept) -> Dataset:
    """An item of a Code Sequence (PS3.3 section 8.8), shared by all: never change it."""
    item = Attributes()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.dicom
    return item
