"""Whose smear it is, from which order and specimen: read from DICOM headers, never invented.

FHIR, HL7 and the printed report all speak of the patient by these identifiers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset

from pipeline.domain import SOPInstanceUID
from pipeline.errors import NeedsReview


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BusinessIdentifier:
    """An identifier that people use, with who issued it where the header says so."""

    value: str
    system: str = ""
    """A URI, where the issuer gave a universal id."""
    assigner: str = ""
    """The issuer's local name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearOrigin:
    """What the headers of a smear's images agree on; None and () where they are silent."""

    patient: BusinessIdentifier | None
    accessions: tuple[BusinessIdentifier, ...]
    specimens: tuple[BusinessIdentifier, ...]
    containers: tuple[BusinessIdentifier, ...]
    acquired_at: str
    """Earliest acquisition as ISO 8601: with time only where the time zone is known."""
    study_started_at: Mapping[str, str]
    """By Study Instance UID, in the same form."""
    modalities: Mapping[str, str]
    """Modality (0008,0060) by Series Instance UID."""
    sop_classes: Mapping[SOPInstanceUID, str]
    is_pseudonymised: bool
    """Patient Identity Removed (0012,0062) in every image."""


def read_origin(headers: Mapping[SOPInstanceUID, Dataset]) -> SmearOrigin:
    """Read the headers of one smear's images.

    Raises `NeedsReview` when they name two patients: such a report would be filed under a
    person it does not belong to.
    """
    sources = [headers[uid] for uid in sorted(headers)]
    patients = _distinct(sources, _patient)
    if len(patients) > 1:
        raise NeedsReview(
            "The images of one smear carry different Patient IDs (0010,0020); correct the wrong "
            "images at their source and send them again.",
            code="smear_with_two_patients",
        )
    return SmearOrigin(
        patient=patients[0] if patients else None,
        accessions=_distinct(sources, _accession),
        specimens=_distinct(sources, _specimens),
        containers=_distinct(sources, _container),
        acquired_at=min((t for t in map(_acquired_at, sources) if t), default=""),
        study_started_at={
            str(s.StudyInstanceUID): _when(s, "StudyDate", "StudyTime") for s in sources
        },
        modalities={str(s.SeriesInstanceUID): _text(s, "Modality") for s in sources},
        sop_classes={uid: str(headers[uid].SOPClassUID) for uid in sorted(headers)},
        is_pseudonymised=all(_text(s, "PatientIdentityRemoved") == "YES" for s in sources),
    )


def _distinct(
    sources: Iterable[Dataset], read: Callable[[Dataset], Iterator[BusinessIdentifier]]
) -> tuple[BusinessIdentifier, ...]:
    return tuple(sorted({identifier for source in sources for identifier in read(source)}))


def _patient(source: Dataset) -> Iterator[BusinessIdentifier]:
    """Patient ID and its issuer (PS3.3 C.2.3)."""
    qualifiers = source.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()]
    yield from _identifier(
        _text(source, "PatientID"),
        system=_universal_id(qualifiers[0]),
        assigner=_text(source, "IssuerOfPatientID"),
    )


def _accession(source: Dataset) -> Iterator[BusinessIdentifier]:
    """Accession Number and its issuer (PS3.3 C.7.2.1)."""
    issuer = _first(source, "IssuerOfAccessionNumberSequence")
    yield from _issued(_text(source, "AccessionNumber"), issuer)


def _container(source: Dataset) -> Iterator[BusinessIdentifier]:
    """The slide's own identifier (PS3.3 C.7.6.22)."""
    issuer = _first(source, "IssuerOfTheContainerIdentifierSequence")
    yield from _issued(_text(source, "ContainerIdentifier"), issuer)


def _specimens(source: Dataset) -> Iterator[BusinessIdentifier]:
    for specimen in source.get("SpecimenDescriptionSequence") or ():
        issuer = _first(specimen, "IssuerOfTheSpecimenIdentifierSequence")
        yield from _issued(_text(specimen, "SpecimenIdentifier"), issuer)


def _issued(value: str, issuer: Dataset) -> Iterator[BusinessIdentifier]:
    """An identifier with an HL7v2 Hierarchic Designator as its issuer (PS3.3 10.14)."""
    return _identifier(
        value, system=_universal_id(issuer), assigner=_text(issuer, "LocalNamespaceEntityID")
    )


def _identifier(value: str, *, system: str, assigner: str) -> Iterator[BusinessIdentifier]:
    if value:
        yield BusinessIdentifier(value=value, system=system, assigner=assigner)


def _universal_id(issuer: Dataset) -> str:
    """The issuer's universal id as a URI; other kinds of universal id are no URI."""
    identifier = _text(issuer, "UniversalEntityID")
    match _text(issuer, "UniversalEntityIDType"):
        case "ISO":
            return f"urn:oid:{identifier}"
        case "UUID":
            return f"urn:uuid:{identifier.lower()}"
        case "URI":
            return identifier
        case _:
            return ""


def _first(source: Dataset, keyword: str) -> Dataset:
    sequence = source.get(keyword) or [Dataset()]
    return Dataset(sequence[0])


def _text(source: Dataset, keyword: str) -> str:
    return str(source.get(keyword) or "").strip()


def _acquired_at(source: Dataset) -> str:
    """The moment nearest to the picture that the header gives."""
    moment = _text(source, "AcquisitionDateTime")
    if moment:
        return _iso(source, moment[:8], moment[8:14], offset=_offset(moment))
    return (
        _when(source, "AcquisitionDate", "AcquisitionTime")
        or _when(source, "ContentDate", "ContentTime")
        or _when(source, "StudyDate", "StudyTime")
    )


def _when(source: Dataset, date_keyword: str, time_keyword: str) -> str:
    return _iso(source, _text(source, date_keyword), _text(source, time_keyword)[:6])


def _offset(moment: str) -> str:
    """The &ZZXX suffix of a DT value (PS3.5 6.2)."""
    return moment[-5:] if moment[-5:-4] in ("+", "-") else ""


def _iso(source: Dataset, date: str, time: str, *, offset: str = "") -> str:
    """ISO 8601 text; a date that is no date gives "", a time without a zone is left out."""
    zone = offset or _text(source, "TimezoneOffsetFromUTC")
    try:
        day = datetime.strptime(date, "%Y%m%d").date().isoformat()  # noqa: DTZ007
    except ValueError:
        return ""
    if len(time) < len("HHMMSS"):
        return day
    try:
        return datetime.strptime(f"{date}{time}{zone}", "%Y%m%d%H%M%S%z").isoformat()
    except ValueError:
        return day
