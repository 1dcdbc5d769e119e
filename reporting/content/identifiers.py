"""Reads patient, order, specimen and acquisition time from DICOM headers, inventing nothing.

FHIR, HL7 and the PDF all name the patient by these identifiers alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache, cached_property
from uuid import UUID

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from pipeline.domain import SOPInstanceUID
from pipeline.errors import NeedsReview

EARLIEST_YEAR = 1900
"""No blood smear was photographed before; an older date is a device without a clock."""

LATEST_YEAR = 9998
"""9999 stands for a date that is not known."""
EARLIEST_BIRTH = 1800

FILE_NAME_PREFIX = "File: "

CASELESS = frozenset({"DNS", "GUID", "UUID"})
"""Types of universal ids in which upper and lower case are the same."""

OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
URI = re.compile(r"(https?://[A-Za-z0-9._~\-]|urn:[A-Za-z0-9][A-Za-z0-9\-]{0,31}:)[!-~]*")
NOT_IN_URI = re.compile(r'["<>\\^`{|}]')
PARTIAL_DATE = re.compile(r"\d{4}(\d{2}(\d{2})?)?")
DATE = re.compile(r"(?P<year>\d{4})(?P<dot>\.?)(?P<month>\d{2})(?P=dot)(?P<day>\d{2})", re.ASCII)
TIME = re.compile(r"(\d\d):?(\d\d):?(\d\d)(?:\.\d*)?", re.ASCII)
DATE_TIME = re.compile(r"(?P<date>\d{8})(?P<time>\d{6}(?:\.\d*)?)?(?P<zone>[+-]\d{4})?", re.ASCII)
OFFSET = re.compile(r"([+-])(\d\d)([0-5]\d)", re.ASCII)
WEST_MOST, EAST_MOST = timedelta(hours=12), timedelta(hours=14)

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
PADDING = "\0 \t\n\r\f\v"

_NOTHING = Dataset()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BusinessIdentifier:
    """An identifier that people use, with who issued it where the header says so."""

    value: str
    system: str = ""
    """A URI that is legal as a FHIR system, where the issuer's universal id is one."""
    assigner: str = ""
    """The issuer's local name."""
    universal_id: str = ""
    """The issuer's universal id as the header gives it, of any type."""
    universal_type: str = ""
    """The type of `universal_id` (PS3.3 10.14, HL7 table 0301)."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Physician:
    """Who asked for the smear: an identifier and the components of the name."""

    identifier: str = ""
    family: str = ""
    given: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearOrigin:
    """What the headers of a smear's images agree on; None and () where they are silent."""

    patient: BusinessIdentifier | None
    accessions: tuple[BusinessIdentifier, ...]
    placer_orders: tuple[BusinessIdentifier, ...]
    """Placer Order Number / Imaging Service Request (0040,2016)."""
    physicians: tuple[Physician, ...]
    """Requesting or referring physicians."""
    specimens: tuple[BusinessIdentifier, ...]
    containers: tuple[BusinessIdentifier, ...]
    acquired_at: str
    """Earliest acquisition as ISO 8601, as exact as the headers are: a year, a month, a day, or
    with time where the time zone is known."""
    study_started_at: Mapping[str, str]
    """By Study Instance UID, in the same form."""
    modalities: Mapping[str, str]
    """Modality (0008,0060) by Series Instance UID."""
    sop_classes: Mapping[SOPInstanceUID, str]
    is_pseudonymised: bool
    """Patient Identity Removed (0012,0062) in every image."""
    is_phantom: bool
    """Every image is of a phantom (Quality Control Subject, 0010,0200)."""


def _check_one_study_per_series(sources: Iterable[Dataset]) -> None:
    """Raises NeedsReview when the images of one series name several studies."""
    pairs = {
        (str(one.get("SeriesInstanceUID", "")), str(one.get("StudyInstanceUID", "")))
        for one in sources
    }
    if len(pairs) > len({series for series, _ in pairs}):
        raise NeedsReview(
            "The images of one series (0020,000E) name several studies (0020,000D); correct the "
            "wrong images at their source and send them again.",
            code="series_in_two_studies",
        )


def read_origin(headers: Mapping[SOPInstanceUID, Dataset]) -> SmearOrigin:
    """Read the headers of one smear's images.

    Raises `NeedsReview` when they name two patients, or one series in two studies: such a report
    would be filed where it does not belong.
    """
    sources = [headers[uid] for uid in sorted(headers)]
    check_one_patient(sources)
    _check_one_study_per_series(sources)
    patients = _distinct(sources, _patient)
    return SmearOrigin(
        patient=patients[0] if patients else None,
        accessions=_distinct(sources, _accession),
        placer_orders=_distinct(sources, _placer_orders),
        physicians=tuple(sorted({p for source in sources for p in _physicians(source)})),
        specimens=_distinct(sources, _specimens),
        containers=_distinct(sources, _container),
        acquired_at=_earliest(map(_acquired_at, sources)),
        study_started_at={
            str(s.StudyInstanceUID): _when(s, "StudyDate", "StudyTime") for s in sources
        },
        modalities={str(s.SeriesInstanceUID): text_of(s, "Modality") for s in sources},
        sop_classes={uid: str(headers[uid].SOPClassUID) for uid in sorted(headers)},
        is_pseudonymised=all(text_of(s, "PatientIdentityRemoved") == "YES" for s in sources),
        is_phantom=is_phantom(sources),
    )


class SourceHeaders(dict[SOPInstanceUID, Dataset]):
    """The headers of one smear's images, for several documents: what they agree on is read once."""

    @cached_property
    def origin(self) -> SmearOrigin:
        """As `read_origin`, and raises as it does."""
        return read_origin(self)


def origin_of(headers: Mapping[SOPInstanceUID, Dataset]) -> SmearOrigin:
    """As `read_origin`; what was read before is not read again."""
    return headers.origin if isinstance(headers, SourceHeaders) else read_origin(headers)


def is_phantom(headers: Iterable[Dataset]) -> bool:
    """Whether every image is of a phantom (Quality Control Subject, 0010,0200)."""
    return all(text_of(header, "QualityControlSubject") == "YES" for header in headers)


def check_one_patient(headers: Iterable[Dataset]) -> None:
    """Raises NeedsReview unless all images are of one patient, by number, issuer and person.

    Padding, letter case, titles and empty components do not make another patient; a name, birth
    date or sex that is missing contradicts nothing.
    """
    sources = list(headers)
    patients = {*map(_comparable_issuer, _distinct(sources, _patient))}
    if len(patients) > 1 or len({*map(_has_patient, sources)}) > 1:
        raise NeedsReview(
            "The images of one smear carry different Patient IDs (0010,0020) or issuers; correct "
            "the wrong images at their source, or gather by series, and send them again.",
            code="smear_with_two_patients",
        )
    for read in (_comparable_name, _birth_date, _sex):
        if len({*map(read, sources)} - {""}) > 1:
            raise NeedsReview(
                "The images of one smear carry one Patient ID (0010,0020) and different names, "
                "birth dates or sexes; correct the wrong images at their source and send them "
                "again.",
                code="smear_with_two_patients",
            )


def _comparable_issuer(patient: BusinessIdentifier) -> BusinessIdentifier:
    is_caseless = patient.universal_type in CASELESS
    return replace(patient, universal_id=patient.universal_id.lower()) if is_caseless else patient


def _has_patient(source: Dataset) -> bool:
    return bool(text_of(source, "PatientID"))


def _comparable_name(source: Dataset) -> str:
    """Family, given and middle name of the first component group, without padding and case."""
    group = unicodedata.normalize("NFKC", text_of(source, "PatientName").split("=")[0])
    names = " ".join(group.split("^")[:3]).replace(",", " ")
    return " ".join(names.split()).casefold()


def _birth_date(source: Dataset) -> str:
    """Patient's Birth Date; "" for what is no date."""
    return _day(text_of(source, "PatientBirthDate"), earliest_year=EARLIEST_BIRTH)


def _sex(source: Dataset) -> str:
    """Patient's Sex where it is male or female (PS3.3 C.2.3); other words contradict nothing."""
    sex = text_of(source, "PatientSex").upper()
    return sex if sex in ("F", "M") else ""


def text_of(source: Dataset, keyword: str) -> str:
    """An attribute as one line of text; several values are joined as they stand in the file.

    A control character is shown as U+FFFD: what was there is no part of any legal value, and
    nothing that breaks lines or messages may pass.
    """
    return _plain("\\".join(_parts(source, keyword)))


def values_of(source: Dataset, keyword: str) -> tuple[str, ...]:
    """The same value by value, of an attribute that may have several; empty ones left out."""
    return tuple(filter(None, map(_plain, _parts(source, keyword))))


def _plain(words: str) -> str:
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", words.strip(PADDING))


def _parts(source: Dataset, keyword: str) -> list[str]:
    """The values as text; the source stays as undecoded as it is.

    Text that contradicts its character set can then still be copied byte by byte.
    """
    tag = _tag_of(keyword)
    if tag not in source:
        return []
    as_it_came: object = source.get_item(tag)
    value = source.get(keyword)
    if isinstance(as_it_came, RawDataElement):
        source[tag] = as_it_came
    if value is None:
        return []
    return [str(part) for part in value] if isinstance(value, MultiValue) else [str(value)]


@cache
def _tag_of(keyword: str) -> BaseTag:
    return Tag(keyword)


def file_name_of(source: Dataset) -> str:
    """The name of the photograph that `smearlink send` wrapped, as Image Comments (0020,4000)."""
    comments = text_of(source, "ImageComments")
    is_named = comments.startswith(FILE_NAME_PREFIX)
    return comments.removeprefix(FILE_NAME_PREFIX) if is_named else ""


# --- identifiers and their issuers


def _distinct(
    sources: Iterable[Dataset], read: Callable[[Dataset], Iterator[BusinessIdentifier]]
) -> tuple[BusinessIdentifier, ...]:
    return tuple(sorted({identifier for source in sources for identifier in read(source)}))


def _patient(source: Dataset) -> Iterator[BusinessIdentifier]:
    """Patient ID and its issuer (PS3.3 C.2.3)."""
    qualifiers = _first(source, "IssuerOfPatientIDQualifiersSequence")
    yield from _identifier(
        text_of(source, "PatientID"), text_of(source, "IssuerOfPatientID"), qualifiers
    )


def _accession(source: Dataset) -> Iterator[BusinessIdentifier]:
    """Accession Number and its issuer (PS3.3 C.7.2.1)."""
    issuer = _first(source, "IssuerOfAccessionNumberSequence")
    yield from _issued(text_of(source, "AccessionNumber"), issuer)


def _placer_orders(source: Dataset) -> Iterator[BusinessIdentifier]:
    """Placer order numbers, of the image and of its requests (PS3.3 C.4.12, 10.6)."""
    for place in (source, *(source.get("RequestAttributesSequence") or ())):
        issuer = _first(place, "OrderPlacerIdentifierSequence")
        yield from _issued(text_of(place, "PlacerOrderNumberImagingServiceRequest"), issuer)


def _physicians(source: Dataset) -> Iterator[Physician]:
    """The requesting physicians or, where none is named, the referring ones."""
    for name, identification in (
        ("RequestingPhysician", "RequestingPhysicianIdentificationSequence"),
        ("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    ):
        codes = _first(_first(source, identification), "PersonIdentificationCodeSequence")
        first, *others = [*map(_physician, values_of(source, name))] or [Physician()]
        named = [replace(first, identifier=text_of(codes, "CodeValue")), *others]
        known = [one for one in named if one != Physician()]
        if known:
            yield from known
            return


def _physician(name: str) -> Physician:
    family, _, rest = name.split("=")[0].partition("^")
    return Physician(family=family.strip(), given=rest.partition("^")[0].strip())


def _container(source: Dataset) -> Iterator[BusinessIdentifier]:
    """The slide's own identifier (PS3.3 C.7.6.22)."""
    issuer = _first(source, "IssuerOfTheContainerIdentifierSequence")
    yield from _issued(text_of(source, "ContainerIdentifier"), issuer)


def _specimens(source: Dataset) -> Iterator[BusinessIdentifier]:
    for specimen in source.get("SpecimenDescriptionSequence") or ():
        issuer = _first(specimen, "IssuerOfTheSpecimenIdentifierSequence")
        yield from _issued(text_of(specimen, "SpecimenIdentifier"), issuer)


def _issued(value: str, issuer: Dataset) -> Iterator[BusinessIdentifier]:
    """An identifier with an HL7v2 Hierarchic Designator as its issuer (PS3.3 10.14)."""
    return _identifier(value, text_of(issuer, "LocalNamespaceEntityID"), issuer)


def _identifier(value: str, assigner: str, issuer: Dataset) -> Iterator[BusinessIdentifier]:
    universal_id = text_of(issuer, "UniversalEntityID")
    universal_type = text_of(issuer, "UniversalEntityIDType").upper() if universal_id else ""
    if value:
        yield BusinessIdentifier(
            value=value,
            system=_system(universal_id, universal_type),
            assigner=assigner,
            universal_id=universal_id,
            universal_type=universal_type,
        )


def _system(universal_id: str, universal_type: str) -> str:
    """A universal id as a URI that FHIR takes; "" where it is none, such as a DNS name."""
    match universal_type:
        case "ISO" if OID.fullmatch(universal_id):
            return f"urn:oid:{universal_id}"
        case "UUID" | "GUID":
            return _uuid_urn(universal_id)
        case "URI" if URI.fullmatch(universal_id) and not NOT_IN_URI.search(universal_id):
            return universal_id
        case _:
            return ""


def _uuid_urn(text: str) -> str:
    try:
        return f"urn:uuid:{UUID(text)}"
    except ValueError:
        return ""


def _first(source: Dataset, keyword: str) -> Dataset:
    """The first item of a sequence; an empty one, which nobody fills, where there is none."""
    if _tag_of(keyword) not in source:
        return _NOTHING
    sequence = source.get(keyword) or [_NOTHING]
    return Dataset(sequence[0])


# --- dates and times


def _acquired_at(source: Dataset) -> str:
    """The moment nearest to the picture that the header gives.

    A date-time of a year or a month alone (PS3.5 6.2, DT) gives way to a whole date that lies
    within it, and otherwise stays as exact as it is.
    """
    moment = text_of(source, "AcquisitionDateTime")
    parts = DATE_TIME.fullmatch(moment)
    exact = _iso(source, parts["date"], parts["time"], parts["zone"]) if parts else ""
    exact = exact or _day(moment[:8])
    if exact:
        return exact
    partial = _partial_date(moment)
    for date, time in (
        ("AcquisitionDate", "AcquisitionTime"),
        ("ContentDate", "ContentTime"),
        ("StudyDate", "StudyTime"),
    ):
        day = _when(source, date, time)
        if day and day.startswith(partial):
            return day
    return partial


def _earliest(moments: Iterable[str]) -> str:
    """The first in time where all have a time and a zone, else the first by date."""
    known = [moment for moment in moments if moment]
    if all("T" in moment for moment in known):
        return min(known, key=datetime.fromisoformat, default="")
    return min(known, default="")


def _partial_date(moment: str) -> str:
    """A DT value of a year or a month as ISO 8601; "" for anything else."""
    digits = re.match(r"\d*", moment)
    date = digits[0] if digits else ""
    if not PARTIAL_DATE.fullmatch(date) or not EARLIEST_YEAR <= int(date[:4]) <= LATEST_YEAR:
        return ""
    if len(date) == len("YYYY"):
        return date
    return f"{date[:4]}-{date[4:6]}" if len(date) == len("YYYYMM") and _is_month(date) else ""


def _is_month(date: str) -> bool:
    return 1 <= int(date[4:6]) <= 12


def _when(source: Dataset, date_keyword: str, time_keyword: str) -> str:
    return _iso(source, text_of(source, date_keyword), text_of(source, time_keyword), None)


def _iso(source: Dataset, date: str, time: str | None, zone: str | None) -> str:
    """ISO 8601 text; "" for what is no whole date of our time, no time without a zone."""
    day = _day(date)
    clock = TIME.fullmatch(time or "")
    offset = zone_of(zone or text_of(source, "TimezoneOffsetFromUTC"))
    if not day or clock is None or offset is None:
        return day
    try:
        hours, minutes, seconds = (int(part) for part in clock.groups())
        moment = datetime.fromisoformat(day).replace(
            hour=hours, minute=minutes, second=seconds, tzinfo=offset
        )
    except ValueError:
        return day
    return moment.isoformat()


def _day(date: str, *, earliest_year: int = EARLIEST_YEAR) -> str:
    """A date of VR DA, also as ACR-NEMA wrote it, as ISO 8601; "" for anything else."""
    parts = DATE.fullmatch(date)
    if parts is None or not earliest_year <= int(parts["year"]) <= LATEST_YEAR:
        return ""
    day = "-".join((parts["year"], parts["month"], parts["day"]))
    try:
        return datetime.fromisoformat(day).date().isoformat()
    except ValueError:
        return ""


def zone_of(text: str) -> tzinfo | None:
    """An offset from UTC as PS3.3 C.12.1.1.8 has it; None for anything else."""
    offset = OFFSET.fullmatch(text)
    if not offset:
        return None
    sign, hours, minutes = offset.groups()
    distance = timedelta(hours=int(hours), minutes=int(minutes))
    is_legal = distance <= WEST_MOST if sign == "-" else distance <= EAST_MOST
    return timezone(-distance if sign == "-" else distance) if is_legal else None
