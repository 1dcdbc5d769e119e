"""One smear as an HL7 v2.5.1 ORU^R01 message, for laboratories without FHIR.

The same figures and sentences as the FHIR Bundle. Segments are written by field number, so that
each can be read beside its table in chapters 2, 3, 4 and 7 of the standard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pydicom import Dataset

from config import codes
from config.codes import Concept
from pipeline.domain import RESEARCH_USE_ONLY, SmearFindings, SOPInstanceUID
from reporting.content.identifiers import BusinessIdentifier, SmearOrigin, read_origin
from reporting.content.measurements import Figure, Share, figures_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.derived_uids import derived_id
from reporting.results import ObjectReference, ReportContext, Result, ResultKind

MEDIA_TYPE = "x-application/hl7-v2+er7"
APPLICATION = "SMEARLINK"
LOCAL = "99SMEARLINK"
"""Coding system of figures without a published code (HL7 table 0396: 99zzz)."""

CODING_SYSTEM = {codes.LOINC: "LN", codes.SNOMED_CT: "SCT", codes.DCM: "DCM", codes.UCUM: "UCUM"}
"""HL7 table 0396."""

PRELIMINARY, CORRECTED, NOT_OBTAINED = "P", "C", "X"
"""HL7 tables 0123 and 0085; never F, as nobody has looked."""

ESCAPES = str.maketrans(
    {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "}
)

Fields = Mapping[int, str]


def build_message(
    smear: SmearFindings,
    *,
    headers: Mapping[SOPInstanceUID, Dataset],
    image_uids: Sequence[ObjectReference],
    context: ReportContext,
) -> Result:
    """The message in UTF-8, segments ended by carriage returns, without MLLP framing.

    Sending and receiving names (MSH-3 to MSH-6) are the destination's to fill. Raises
    `NeedsReview` when the headers name two patients.
    """
    message_id = derived_id("hl7-message", smear.smear_id, smear.model.key, str(context.version))
    origin = read_origin(headers)
    segments = [
        _msh(message_id, context),
        _sft(smear, context),
        _pid(origin),
        _obr(smear, origin, context),
        *_notes(smear),
        *_observations(smear, image_uids, context),
        *_specimens(origin),
    ]
    return Result(
        kind=ResultKind.HL7_MESSAGE,
        name=f"{message_id}.hl7",
        media_type=MEDIA_TYPE,
        uid=message_id,
        content="".join(f"{segment}\r" for segment in segments).encode(),
    )


def _msh(message_id: str, context: ReportContext) -> str:
    """Message header; MSH-1 is the separator itself, so the numbers run one ahead."""
    return "MSH|^~\\&" + _after(
        2,
        {
            3: APPLICATION,
            7: _moment(context.issued_at),
            9: "ORU^R01^ORU_R01",
            10: message_id.replace("-", "")[:20],
            11: "P",
            12: "2.5.1",
            18: "UNICODE UTF-8",
        },
    )


def _sft(smear: SmearFindings, context: ReportContext) -> str:
    """Software segment: what made the message, and which network answered."""
    model = smear.model
    network = (
        f"{model.name} {model.version} sha256 {model.sha256} run by {model.execution_provider}"
    )
    return _segment(
        "SFT",
        {
            1: "smearlink",
            2: _text(context.software_version),
            3: "smearlink",
            4: model.sha256[:20],
            5: _text(f"{RESEARCH_USE_ONLY}. {network}"),
        },
    )


def _pid(origin: SmearOrigin) -> str:
    """The patient by identifier alone; the name is sent as not given, or as a pseudonym's."""
    return _segment(
        "PID",
        {
            1: "1",
            3: _patient(origin.patient),
            5: "^^^^^^S" if origin.is_pseudonymised else "^^^^^^U",
        },
    )


def _obr(smear: SmearFindings, origin: SmearOrigin, context: ReportContext) -> str:
    report_id = derived_id("diagnostic-report", smear.smear_id, smear.model.name)
    filler = _entity(origin.accessions[0]) if origin.accessions else f"{report_id}^{APPLICATION}"
    return _segment(
        "OBR",
        {
            1: "1",
            3: filler,
            4: _coded(codes.DIFFERENTIAL_PANEL),
            7: _hl7_time(origin.acquired_at),
            22: _moment(context.issued_at),
            24: codes.HEMATOLOGY_SECTION.code,
            25: _status(context),
        },
    )


def _notes(smear: SmearFindings) -> Iterator[str]:
    sentences = [RESEARCH_USE_ONLY, *findings_in_words(smear), LIMITS]
    for number, sentence in enumerate(sentences, start=1):
        yield _segment("NTE", {1: str(number), 2: "L", 3: _text(sentence)})


def _observations(
    smear: SmearFindings, image_uids: Sequence[ObjectReference], context: ReportContext
) -> Iterator[str]:
    """One OBX a figure, its parts after it under the same sub-id (OBX-4)."""
    figures = [*figures_of(smear), *_pictures(smear, image_uids)]
    numbered = [
        (group, part)
        for group, figure in enumerate(figures, start=1)
        for part in (figure, *figure.parts)
    ]
    for number, (group, figure) in enumerate(numbered, start=1):
        yield _obx(number, group, figure, context)


def _pictures(smear: SmearFindings, image_uids: Sequence[ObjectReference]) -> Iterator[Figure]:
    """Where the pictures lie: the studies, and in them our gallery."""
    for uid in sorted({field.study_uid for field in smear.fields}):
        yield Figure(name="dicom-study", title="DICOM Study Instance UID", value=uid)
    for image in image_uids:
        if image.kind is ResultKind.GALLERY:
            yield Figure(
                name="dicom-gallery",
                title="Gallery, SOP Instance UID",
                value=image.sop_instance_uid,
            )


def _obx(number: int, group: int, figure: Figure, context: ReportContext) -> str:
    kind, value = _value(figure)
    return _segment(
        "OBX",
        {
            1: str(number),
            2: kind,
            3: _coded(figure.code) if figure.code else _local(figure),
            4: str(group),
            5: value,
            6: _coded(codes.PERCENT) if isinstance(figure.value, Share) else "",
            11: NOT_OBTAINED if figure.value is None else _status(context),
            19: _moment(context.issued_at),
        },
    )


def _value(figure: Figure) -> tuple[str, str]:
    """OBX-2 and OBX-5: data type and value."""
    match figure.value:
        case Share() as share:
            return "NM", str(share.percent)
        case Concept() as concept:
            return "CE", _coded(concept)
        case int() as count:
            return "NM", str(count)
        case str() as words:
            return "ST", _text(words)
        case None:
            return "NM", ""


def _specimens(origin: SmearOrigin) -> Iterator[str]:
    """One SPM a specimen or, where none is named, one for the smear itself."""
    names = [_entity(specimen) for specimen in origin.specimens or origin.containers] or [""]
    for number, name in enumerate(names, start=1):
        filler = name.replace("^", "&")
        yield _segment(
            "SPM",
            {1: str(number), 2: f"^{filler}" if filler else "", 4: _coded(codes.BLOOD_SMEAR)},
        )


def _status(context: ReportContext) -> str:
    return PRELIMINARY if context.version == 1 else CORRECTED


def _patient(patient: BusinessIdentifier | None) -> str:
    """CX: id ^^^ assigning authority."""
    return f"{_text(patient.value)}^^^{_authority(patient, '&')}".rstrip("^") if patient else ""


def _entity(identifier: BusinessIdentifier) -> str:
    """EI: id ^ assigning authority."""
    return f"{_text(identifier.value)}^{_authority(identifier, '^')}".rstrip("^")


def _authority(identifier: BusinessIdentifier, separator: str) -> str:
    """HD: local name, universal id and its type; an OID alone is of a type HL7 names here."""
    oid = identifier.system.removeprefix("urn:oid:")
    universal = [oid, "ISO"] if oid != identifier.system else []
    parts = [_text(identifier.assigner), *universal]
    return separator.join(parts).rstrip(separator)


def _coded(concept: Concept) -> str:
    """CE: code ^ words ^ coding system."""
    return f"{concept.code}^{_text(concept.display)}^{CODING_SYSTEM[concept.system]}"


def _local(figure: Figure) -> str:
    return f"{_text(figure.name)}^{_text(figure.title)}^{LOCAL}"


def _moment(moment: datetime) -> str:
    """TS with its offset from UTC."""
    return moment.strftime("%Y%m%d%H%M%S%z")


def _hl7_time(iso: str) -> str:
    """An ISO date or date and time as TS."""
    if len(iso) <= len("YYYY-MM-DD"):
        return iso.replace("-", "")
    return _moment(datetime.fromisoformat(iso))


def _text(words: str) -> str:
    """Words with the message's own separators escaped (2.5.1 chapter 2, 2.7)."""
    return words.translate(ESCAPES)


def _segment(name: str, fields: Fields) -> str:
    return name + _after(0, fields)


def _after(position: int, fields: Fields) -> str:
    """Fields by number, from the one after `position`; empty ones at the end are left out."""
    last = max(number for number, value in fields.items() if value)
    return "".join(f"|{fields.get(number, '')}" for number in range(position + 1, last + 1))
