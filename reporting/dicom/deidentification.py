"""Rebuilds a smear under pseudonyms, sources and findings alike, so that every result agrees.

Nothing is cleaned afterwards. The source datasets and the findings are rewritten first and the
result set is built from those, so DICOM, FHIR, HL7, table and page cannot contradict each other.

The Basic Application Level Confidentiality Profile of PS3.15 Annex E lists what to remove. Here
stands the reverse, an allow-list: what it does not name is gone, whatever a device put there.
Source pixels are shown in our pictures, so a source that says text is burned into them is
refused; what we burn in ourselves is the research label, counts and probabilities.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset

from config import codes
from config.codes import Concept
from pipeline.domain import (
    CellFinding,
    FieldFindings,
    ModelIdentity,
    Reviewer,
    SeriesUID,
    SmearFindings,
    SmearId,
    SmearReview,
    SOPInstanceUID,
    StudyUID,
)
from pipeline.errors import Defect, NeedsReview, Rejected
from pipeline.findings.smear_summary import gather_smear
from reporting.content.identifiers import text_of
from reporting.dicom.source_attributes import code_item
from reporting.results import ReportContext
from reporting.secret_files import make_key_file

ReadSource = Callable[[SOPInstanceUID], Dataset]

KEY_BYTES = 32
PSEUDONYM_CHARACTERS = 14
"""70 bits: no two of a site's patients meet, and with a prefix it fits an SH of 16."""


class Option(StrEnum):
    """Options of the profile (PS3.15 E.3) that a site may take."""

    MODIFIED_DATES = "modified_dates"
    RETAIN_PATIENT_CHARACTERISTICS = "retain_patient_characteristics"
    RETAIN_DEVICE_IDENTITY = "retain_device_identity"
    RETAIN_INSTITUTION_IDENTITY = "retain_institution_identity"


OPTION_CODES: Mapping[Option, Concept] = MappingProxyType(
    {
        Option.MODIFIED_DATES: codes.MODIFIED_DATES_OPTION,
        Option.RETAIN_PATIENT_CHARACTERISTICS: codes.PATIENT_CHARACTERISTICS_OPTION,
        Option.RETAIN_DEVICE_IDENTITY: codes.DEVICE_IDENTITY_OPTION,
        Option.RETAIN_INSTITUTION_IDENTITY: codes.INSTITUTION_IDENTITY_OPTION,
    }
)

KEPT_ALWAYS = (
    "SOPClassUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "ImageType",
    # Image Pixel, PS3.3 C.7.6.3
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelAspectRatio",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "ICCProfile",
    "ColorSpace",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "BurnedInAnnotation",
    "QualityControlSubject",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    # Scale
    "PixelSpacing",
    "NominalScannedPixelSpacing",
    "ImagedVolumeWidth",
    "ImagedVolumeHeight",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
)
KEPT_WITHIN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "SharedFunctionalGroupsSequence": ("PixelMeasuresSequence",),
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
        "OpticalPathSequence": ("OpticalPathIdentifier", "ICCProfile"),
    }
)
"""Sequences that are kept, each with the attributes that stay in its items."""

KEPT_BY_OPTION: Mapping[Option, tuple[str, ...]] = MappingProxyType(
    {
        Option.MODIFIED_DATES: (
            "StudyTime",
            "SeriesTime",
            "AcquisitionTime",
            "ContentTime",
            "TimezoneOffsetFromUTC",
        ),
        Option.RETAIN_PATIENT_CHARACTERISTICS: (
            "PatientSex",
            "PatientAge",
            "PatientSize",
            "PatientWeight",
        ),
        Option.RETAIN_DEVICE_IDENTITY: (
            "Manufacturer",
            "ManufacturerModelName",
            "DeviceSerialNumber",
            "StationName",
            "SoftwareVersions",
        ),
        Option.RETAIN_INSTITUTION_IDENTITY: ("InstitutionName", "InstitutionalDepartmentName"),
    }
)
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """What a pseudonymised result set is built from, in place of the originals."""

    smear: SmearFindings
    read_source: ReadSource
    context: ReportContext


class Pseudonymiser:
    """Pseudonyms of one site: the same key gives the same ones, another key unrelated ones."""

    def __init__(
        self,
        key: bytes,
        *,
        options: Iterable[Option | str] = (),
        max_date_shift_days: int = 365,
    ) -> None:
        """Raises `Defect` on a key that is too short to protect anything."""
        if len(key) < KEY_BYTES:
            raise Defect(f"A pseudonym key has {KEY_BYTES} bytes or more.", code="pseudonym_key")
        self._key = key
        self._options = tuple(option for option in Option if option in set(options))
        self._max_date_shift_days = max_date_shift_days

    def variant(
        self, smear: SmearFindings, *, read_source: ReadSource, context: ReportContext
    ) -> Variant:
        """The smear, its sources and its report's moment under pseudonyms.

        Reading a source raises `NeedsReview` when it says that text is burned into its pixels.
        """
        originals = {self.uid(uid): uid for uid in {f.sop_instance_uid for f in smear.fields}}
        first = read_source(smear.fields[0].sop_instance_uid)
        counted = gather_smear(
            SmearId(self._pseudonym("smear", smear.smear_id)),
            map(self._field, smear.fields),
            acquired=[SOPInstanceUID(self.uid(field.sop_instance_uid)) for field in smear.fields],
        )
        review = smear.review and self._review(smear.review, self._shift(first))
        return Variant(
            smear=replace(counted, review=review),
            read_source=lambda uid: self.dataset(read_source(SOPInstanceUID(originals[uid]))),
            context=replace(context, issued_at=context.issued_at - self._shift(first)),
        )

    def dataset(self, source: Dataset) -> Dataset:
        """A copy that holds the allow-list and pseudonyms alone; pixels are shared, not copied."""
        _refuse_burned_in_text(source)
        made = _kept(source, self._kept_keywords())
        for keyword in KEPT_WITHIN:
            if keyword != "PixelMeasuresSequence":
                _keep_sequence(source, made, keyword)
        made.SpecificCharacterSet = "ISO_IR 192"
        made.update(self._identity(source))
        made.update(self._specimen(source))
        made.update(self._dates(source))
        made.update(self._method())
        for keyword in UIDS:
            if source.get(keyword):
                setattr(made, keyword, self.uid(source.get(keyword)))
        if getattr(source, "file_meta", None) is not None:
            made.file_meta = _file_meta(source, made)
        return made

    def uid(self, original: str) -> str:
        """A UID that stands for `original` everywhere (PS3.5 B.2)."""
        return f"2.25.{UUID(bytes=self._digest('uid', original)[:16], version=5).int}"

    def _review(self, review: SmearReview, shift: timedelta) -> SmearReview:
        """What people did, under pseudonyms for them too; what they wrote may name a patient."""
        return replace(
            review,
            signatures=tuple(
                replace(
                    one,
                    reviewer=self._reviewer(one.reviewer),
                    at=one.at - shift,
                    fields=tuple(map(self._place, one.fields)),
                    reason="",
                )
                for one in review.signatures
            ),
            reviewers=tuple(map(self._reviewer, review.reviewers)),
            changes=tuple(
                replace(one, cell=self._place(one.cell), reviewer=self._reviewer(one.reviewer))
                for one in review.changes
            ),
            excluded_fields=tuple(map(self._place, review.excluded_fields)),
            starred=tuple(map(self._place, review.starred)),
            comments=(),
        )

    def _reviewer(self, person: Reviewer) -> Reviewer:
        name = self._pseudonym("R", person.account)
        return replace(person, account=name, name=name, organization="")

    def _place(self, key: str) -> str:
        """Of a cell or a field: its SOP Instance UID comes first."""
        uid, _, rest = key.partition(":")
        return f"{self.uid(uid)}:{rest}"

    def _cell(self, finding: CellFinding) -> CellFinding:
        decision = finding.decision
        if decision is None:
            return finding
        person = self._reviewer(decision.reviewer)
        return replace(finding, decision=replace(decision, reviewer=person, reason=""))

    def _field(self, field: FieldFindings) -> FieldFindings:
        return replace(
            field,
            cells=tuple(map(self._cell, field.cells)),
            study_uid=StudyUID(self.uid(field.study_uid)),
            series_uid=SeriesUID(self.uid(field.series_uid)),
            sop_instance_uid=SOPInstanceUID(self.uid(field.sop_instance_uid)),
            model=self._model(field.model),
        )

    def _model(self, model: ModelIdentity) -> ModelIdentity:
        """The network without the name of the laboratory that it was calibrated for."""
        if model.calibration is None or Option.RETAIN_INSTITUTION_IDENTITY in self._options:
            return model
        return replace(model, calibration=replace(model.calibration, site=""))

    def _kept_keywords(self) -> tuple[str, ...]:
        chosen = [keyword for option in self._options for keyword in KEPT_BY_OPTION[option]]
        return (*KEPT_ALWAYS, *chosen)

    def _identity(self, source: Dataset) -> Dataset:
        """Patient and order; what was empty stays empty."""
        identity = Dataset()
        patient = _patient_of(source)
        identity.PatientID = self._pseudonym("P", patient) if patient else ""
        identity.PatientName = identity.PatientID
        identity.PatientBirthDate = ""
        if Option.RETAIN_PATIENT_CHARACTERISTICS not in self._options:
            identity.PatientSex = ""
        identity.AccessionNumber = self._named("A", text_of(source, "AccessionNumber"))
        identity.StudyID = ""
        identity.ReferringPhysicianName = ""
        return identity

    def _specimen(self, source: Dataset) -> Dataset:
        """Container and specimens by pseudonym; how they were prepared is free text and goes."""
        made = Dataset()
        if text_of(source, "ContainerIdentifier"):
            made.ContainerIdentifier = self._named("C", text_of(source, "ContainerIdentifier"))
        specimens = [self._one_specimen(s) for s in source.get("SpecimenDescriptionSequence") or ()]
        if specimens:
            made.SpecimenDescriptionSequence = specimens
        return made

    def _one_specimen(self, specimen: Dataset) -> Dataset:
        made = Dataset()
        made.SpecimenIdentifier = self._named("S", text_of(specimen, "SpecimenIdentifier"))
        if specimen.get("SpecimenUID"):
            made.SpecimenUID = self.uid(specimen.SpecimenUID)
        made.IssuerOfTheSpecimenIdentifierSequence = []
        made.SpecimenPreparationSequence = []
        return made

    def _dates(self, source: Dataset) -> Dataset:
        """Shifted by the patient's own number of days, or gone."""
        dates = Dataset()
        dates.StudyDate = dates.StudyTime = ""
        if Option.MODIFIED_DATES not in self._options:
            dates.LongitudinalTemporalInformationModified = "REMOVED"
            return dates
        dates.StudyTime = source.get("StudyTime", "")
        dates.LongitudinalTemporalInformationModified = "MODIFIED"
        for keyword in DATES:
            if source.get(keyword):
                setattr(dates, keyword, _shifted(str(source.get(keyword)), self._shift(source)))
        return dates

    def _method(self) -> Dataset:
        """What was done, in words and codes (PS3.3 C.7.1.1, CID 7050)."""
        taken = (codes.BASIC_PROFILE, *(OPTION_CODES[option] for option in self._options))
        method = Dataset()
        method.PatientIdentityRemoved = "YES"
        method.DeidentificationMethod = [concept.display for concept in taken]
        method.DeidentificationMethodCodeSequence = [code_item(concept) for concept in taken]
        return method

    def _shift(self, source: Dataset) -> timedelta:
        """1 to `max_date_shift_days` days, the same for everything of one patient.

        The report's own moment moves with it: beside an unshifted one, the shift would show.
        """
        whose = _patient_of(source) or str(source.get("StudyInstanceUID", ""))
        number = int.from_bytes(self._digest("date-shift", whose)[:8])
        return timedelta(days=1 + number % self._max_date_shift_days)

    def _named(self, kind: str, original: str) -> str:
        return self._pseudonym(kind, original) if original else ""

    def _pseudonym(self, kind: str, original: str) -> str:
        text = base64.b32encode(self._digest(kind, original)).decode()
        return f"{kind}-{text[:PSEUDONYM_CHARACTERS]}"

    def _digest(self, kind: str, original: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{original}".encode(), hashlib.sha256)


def read_site_key(path: Path) -> bytes:
    """The site's key, made when it is missing; raises `Rejected` when others may read it.

    Who has it can test whether a known patient is in an export.
    """
    make_key_file(path, _new_key)
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise Rejected(
            f"The pseudonym key {path} can be read by others; run chmod 600 on it.",
            code="pseudonym_key_exposed",
        )
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as err:
        raise Rejected(
            f"The pseudonym key {path} is not hexadecimal; restore it from a copy.",
            code="pseudonym_key_unreadable",
        ) from err
    if len(key) < KEY_BYTES:
        raise Rejected(
            f"The pseudonym key {path} is shorter than {KEY_BYTES} bytes; restore it from a copy.",
            code="pseudonym_key_unreadable",
        )
    return key


def _new_key() -> bytes:
    return f"{secrets.token_hex(KEY_BYTES)}\n".encode("ascii")


def _refuse_burned_in_text(source: Dataset) -> None:
    if str(source.get("BurnedInAnnotation", "")).upper() == "YES":
        raise NeedsReview(
            "A source image says that text is burned into its pixels (0028,0301); it cannot be "
            "sent under a pseudonym. Send it without the text, or leave this destination out.",
            code="burned_in_text",
        )


def _patient_of(source: Dataset) -> str:
    """Whose image it is: the id together with its issuer, or "" when the header does not say."""
    patient = text_of(source, "PatientID")
    issuer = text_of(source, "IssuerOfPatientID")
    return f"{issuer}\0{patient}" if patient else ""


def _kept(source: Dataset, keywords: Iterable[str]) -> Dataset:
    made = Dataset()
    for keyword in keywords:
        if keyword in source:
            made[keyword] = source[keyword]
    return made


def _keep_sequence(source: Dataset, made: Dataset, keyword: str) -> None:
    """Copy a sequence with only those attributes in its items that the allow-list names."""
    if not source.get(keyword):
        return
    items = []
    for item in source[keyword].value:
        inner = [name for name in KEPT_WITHIN[keyword] if name not in KEPT_WITHIN]
        kept = _kept(item, inner)
        for name in KEPT_WITHIN[keyword]:
            if name in KEPT_WITHIN:
                _keep_sequence(item, kept, name)
        items.append(kept)
    setattr(made, keyword, items)


def _shifted(value: str, shift: timedelta) -> str:
    """A DA or DT value moved back; what is no date goes."""
    try:
        day = datetime.strptime(value[:8], "%Y%m%d") - shift  # noqa: DTZ007
    except (ValueError, OverflowError):
        return ""
    return f"{day.year:04d}{day:%m%d}{value[8:]}"


def _file_meta(source: Dataset, made: Dataset) -> FileMetaDataset:
    """How the pixels are encoded, and of what; who sent them where goes."""
    kept = FileMetaDataset()
    kept.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    kept.MediaStorageSOPClassUID = made.SOPClassUID
    kept.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return kept
