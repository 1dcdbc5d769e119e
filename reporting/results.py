"""What a result is: its kind, identity and bytes; and the plan of a smear's objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pipeline.domain import SOPInstanceUID
from pipeline.findings.percentages import MIN_CELLS_FOR_PERCENT


class ResultKind(StrEnum):
    """Everything that one smear can give; a site chooses which."""

    ANNOTATED_FIELD = "annotated_field"
    GALLERY = "gallery"
    PRESENTATION_STATE = "presentation_state"
    STRUCTURED_REPORT = "structured_report"
    BULK_ANNOTATIONS = "bulk_annotations"
    SEGMENTATION = "segmentation"
    KEY_OBJECTS = "key_objects"
    FHIR_BUNDLE = "fhir_bundle"
    TABLE = "table"
    PDF_REPORT = "pdf_report"
    HL7_MESSAGE = "hl7_message"


DICOM_KINDS: frozenset[ResultKind] = frozenset(
    {
        ResultKind.ANNOTATED_FIELD,
        ResultKind.GALLERY,
        ResultKind.PRESENTATION_STATE,
        ResultKind.STRUCTURED_REPORT,
        ResultKind.BULK_ANNOTATIONS,
        ResultKind.SEGMENTATION,
        ResultKind.KEY_OBJECTS,
    }
)

DICOM_MEDIA_TYPE = "application/dicom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished result, ready to be sent."""

    kind: ResultKind
    name: str
    """File name made of UIDs or ids only, never of patient data."""
    media_type: str
    uid: str
    """SOP Instance UID of a DICOM object, derived id of anything else."""
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousVersion:
    """What the version before left behind, so that this one can say that it replaces it."""

    structured_report: DocumentReference | None
    """Named as the predecessor document of the new report (PS3.3 C.17.2)."""
    media_ids: tuple[str, ...]
    """FHIR Media that must not stay behind as current pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReference:
    """Where one DICOM document lies."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """What a report needs besides the findings; the clock is passed in."""

    version: int
    """1 for the first report of a smear; each later one replaces the one before."""
    issued_at: datetime
    """Aware; the same value on a replay gives the same bytes."""
    software_version: str
    compress_images: bool
    """Baseline JPEG when true, uncompressed RGB when false."""
    kinds: frozenset[ResultKind]
    previous: PreviousVersion | None = None
    """None for the first version, or where nothing is known of the one before."""
    min_cells_for_percent: int = MIN_CELLS_FOR_PERCENT
    """Below this many counted cells a report gives counts and no percentage."""
    hl7_pdf: bool = False
    """Whether the HL7 message carries the PDF (OBX-5 of type ED)."""
    pdf_font: Path | None = None
    """A TrueType or OpenType font of the site, for letters that ours lacks."""
    model_card: str = ""
    """The card of the network that answered, in Markdown; empty where it came without one."""

    def __post_init__(self) -> None:
        if self.issued_at.tzinfo is None:
            raise ValueError("issued_at needs a time zone")
        if self.version < 1:
            raise ValueError("a report's first version is 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference:
    """One planned DICOM object of the set: known before it is built, as its UIDs are derived."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    instance_number: int
    """Within its series, from 1."""
    source: SOPInstanceUID | None
    """The image that it shows or annotates; None when it speaks of the whole smear."""
    frame: int | None
    """1-based frame of `source`; None when it speaks of the whole smear."""
    series_field: int | None = None
    """1-based field to which its series belongs; None when the series has objects of all fields."""
