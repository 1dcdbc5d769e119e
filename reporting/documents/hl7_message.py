"""Builds one smear's report as an HL7 v2.5.1 ORU^R01 message, for laboratories without FHIR.

The same measurements and sentences as in the FHIR Bundle. Segments are written by field number, so
that each can be read beside its table in chapters 2, 3, 4 and 7 of the standard.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from pydicom import Dataset

from config import codes
from config.codes import Concept
from pipeline.domain import RESEARCH_USE_ONLY, SmearFindings, SOPInstanceUID
from reporting.content.identifiers import BusinessIdentifier, SmearOrigin, origin_of
from reporting.content.measurements import Measurement, Share, measurements_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.content.sign_off import (
    HL7_OBSERVATION_STATUS,
    HL7_RESULT_STATUS,
    comments_in_words,
    review_in_words,
    sign_off_of,
)
from reporting.derived_uids import derived_id
from reporting.documents.hl7_fields import (
    ENCODING_CHARACTERS,
    SUBCOMPONENT,
    ce,
    ce_local,
    cx,
    ed,
    ei,
    fields_after,
    nm,
    segment,
    si,
    st,
    ts,
    ts_of_iso,
    xcn,
)
from reporting.results import ObjectReference, ReportContext, Result, ResultKind

MEDIA_TYPE = "x-application/hl7-v2+er7"
APPLICATION = "SMEARLINK"

NOT_OBTAINED = "X"

MOST_ST_CHARACTERS = 199
"""ST ends there (2.A.75); longer words are TX."""


def build_message(
    smear: SmearFindings,
    *,
    headers: Mapping[SOPInstanceUID, Dataset],
    image_uids: Sequence[ObjectReference],
    context: ReportContext,
    pdf: bytes | None = None,
) -> Result:
    """The message in UTF-8, segments ended by carriage returns, without MLLP framing.

    Sending and receiving names (MSH-3 to MSH-6) are the destination's to fill. Raises
    `NeedsReview` when the headers name two patients.
    """
    message_id = derived_id("hl7-message", smear.smear_id, smear.model.key, str(context.version))
    origin = origin_of(headers)
    order = _order_numbers(smear, origin)
    segments = [
        _msh(message_id, context),
        _sft(smear, context),
        *_pid(origin),
        _orc(order, origin, context),
        _obr(smear, order, origin, context),
        *_notes(smear, context),
        *_observations(smear, image_uids, origin, context, pdf if context.hl7_pdf else None),
        *_specimens(origin),
    ]
    return Result(
        kind=ResultKind.HL7_MESSAGE,
        name=f"{message_id}.hl7",
        media_type=MEDIA_TYPE,
        uid=message_id,
        content="".join(f"{line}\r" for line in segments).encode(),
    )


def _msh(message_id: str, context: ReportContext) -> str:
    """Message header; MSH-1 is the separator itself, so the numbers run one ahead."""
    return f"MSH|{ENCODING_CHARACTERS}" + fields_after(
        2,
        {
            3: st(APPLICATION),
            7: ts(context.issued_at),
            9: "ORU^R01^ORU_R01",
            10: st(message_id.replace("-", "")[:20]),
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
        f"{model.calibration_note}"
    )
    return segment(
        "SFT",
        {
            1: "smearlink",
            2: st(context.software_version),
            3: "smearlink",
            4: st(model.sha256[:20]),
            5: st(f"{RESEARCH_USE_ONLY}. {network}"),
        },
    )


def _pid(origin: SmearOrigin) -> Iterator[str]:
    """The patient by identifier alone; no PATIENT group without an identifier (PID-3 is required).

    The name is sent as not given, or as a pseudonym's.
    """
    if origin.patient:
        name = "^^^^^^S" if origin.is_pseudonymised else "^^^^^^U"
        yield segment("PID", {1: si(1), 3: cx(origin.patient), 5: name})


def _order_numbers(smear: SmearFindings, origin: SmearOrigin) -> tuple[str, str]:
    """Placer and filler order number (ORC-2 and 3, OBR-2 and 3).

    The placer's is the order's or, where images carry none, the accession number. The filler's is
    the report's own: two smears of one order are two results, and versions of one report are one.
    """
    placers = origin.placer_orders or origin.accessions
    report_id = derived_id("diagnostic-report", smear.smear_id, smear.model.name)
    filler = ei(BusinessIdentifier(value=report_id, assigner=APPLICATION))
    return ei(placers[0]) if placers else "", filler


def _orc(order: tuple[str, str], origin: SmearOrigin, context: ReportContext) -> str:
    """Common order: observations to follow (HL7 table 0119)."""
    placer, filler = order
    return segment(
        "ORC",
        {1: "RE", 2: placer, 3: filler, 9: ts(context.issued_at), 12: _physicians(origin)},
    )


def _obr(
    smear: SmearFindings, order: tuple[str, str], origin: SmearOrigin, context: ReportContext
) -> str:
    placer, filler = order
    return segment(
        "OBR",
        {
            1: si(1),
            2: placer,
            3: filler,
            4: ce(codes.DIFFERENTIAL_PANEL),
            7: _observed_at(origin, context),
            16: _physicians(origin),
            18: st(origin.accessions[0].value) if origin.accessions else "",
            22: ts(context.issued_at),
            24: st(codes.HEMATOLOGY_SECTION.code),
            25: HL7_RESULT_STATUS[sign_off_of(smear)],
        },
    )


def _observed_at(origin: SmearOrigin, context: ReportContext) -> str:
    """OBR-7, required in a result: when the images were taken or, unknown, when they were read."""
    return ts_of_iso(origin.acquired_at) or ts(context.issued_at)


def _physicians(origin: SmearOrigin) -> str:
    """OBR-16 and ORC-12: who asked, as the images name them."""
    return "~".join(xcn(physician) for physician in origin.physicians)


def _notes(smear: SmearFindings, context: ReportContext) -> Iterator[str]:
    sentences = [
        RESEARCH_USE_ONLY,
        *review_in_words(smear, least_cells=context.min_cells_for_percent),
        *findings_in_words(smear, least_cells=context.min_cells_for_percent),
        LIMITS,
        *comments_in_words(smear),
    ]
    for number, sentence in enumerate(sentences, start=1):
        yield segment("NTE", {1: si(number), 2: "L", 3: st(sentence)})


def _observations(
    smear: SmearFindings,
    image_uids: Sequence[ObjectReference],
    origin: SmearOrigin,
    context: ReportContext,
    pdf: bytes | None,
) -> Iterator[str]:
    """One OBX per measurement, its parts after it under the same sub-id (OBX-4)."""
    measurements = [
        *measurements_of(smear, least_cells=context.min_cells_for_percent),
        *_pictures(smear, image_uids),
    ]
    status = HL7_OBSERVATION_STATUS[sign_off_of(smear)]
    numbered = [
        (group, part)
        for group, measurement in enumerate(measurements, start=1)
        for part in (measurement, *measurement.parts)
    ]
    for number, (group, measurement) in enumerate(numbered, start=1):
        yield _obx(number, group, measurement, status, origin, context)
    if pdf is not None:
        yield _pdf_obx(len(numbered) + 1, len(measurements) + 1, pdf, status, context)


def _pictures(smear: SmearFindings, image_uids: Sequence[ObjectReference]) -> Iterator[Measurement]:
    """Where the pictures lie: the studies, and in them our gallery."""
    for uid in sorted({field.study_uid for field in smear.fields}):
        yield Measurement(name="dicom-study", title="DICOM Study Instance UID", value=uid)
    for image in image_uids:
        if image.kind is ResultKind.GALLERY:
            yield Measurement(
                name="dicom-gallery",
                title="Gallery, SOP Instance UID",
                value=image.sop_instance_uid,
            )


def _obx(
    number: int,
    group: int,
    measurement: Measurement,
    status: str,
    origin: SmearOrigin,
    context: ReportContext,
) -> str:
    kind, value = _value(measurement)
    code = measurement.code
    return segment(
        "OBX",
        {
            1: si(number),
            2: kind,
            3: ce(code) if code else ce_local(measurement.name, measurement.title),
            4: si(group),
            5: value,
            6: _unit(measurement),
            11: status if kind else NOT_OBTAINED,
            14: ts_of_iso(origin.acquired_at),
            19: ts(context.issued_at),
        },
    )


def _value(measurement: Measurement) -> tuple[str, str]:
    """OBX-2 and OBX-5: data type and value, both empty where there is none."""
    match measurement.value:
        case Share() as share:
            return "NM", nm(share.percent)
        case Concept() as concept:
            return "CE", ce(concept)
        case int() as count:
            return "NM", nm(count)
        case str() as words:
            text = st(words)
            return ("ST" if len(text) <= MOST_ST_CHARACTERS else "TX"), text
        case None:
            return "", ""


def _unit(measurement: Measurement) -> str:
    """OBX-6 in UCUM, of every number."""
    if isinstance(measurement.value, Share):
        return ce(codes.PERCENT)
    return ce(measurement.unit) if measurement.unit and measurement.value is not None else ""


def _pdf_obx(number: int, group: int, pdf: bytes, status: str, context: ReportContext) -> str:
    return segment(
        "OBX",
        {
            1: si(number),
            2: "ED",
            3: ce(codes.LABORATORY_REPORT),
            4: si(group),
            5: ed(APPLICATION, "application", "pdf", base64.b64encode(pdf).decode("ascii")),
            11: status,
            19: ts(context.issued_at),
        },
    )


def _specimens(origin: SmearOrigin) -> Iterator[str]:
    """One SPM per specimen or, where none is named, one for the smear itself.

    SPM-2 is a pair of identifiers: ours to give is the filler's alone.
    """
    names = [ei(one, SUBCOMPONENT) for one in origin.specimens or origin.containers] or [""]
    for number, name in enumerate(names, start=1):
        yield segment(
            "SPM",
            {1: si(number), 2: f"^{name}" if name else "", 4: ce(codes.BLOOD_SMEAR)},
        )
