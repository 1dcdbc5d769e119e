"""Builds the pictures of a smear in FHIR: ImagingStudy by UID, and Media for people to look at.

An EHR that takes no ImagingStudy (the European laboratory profile forbids the link) still finds
the annotated images through `DiagnosticReport.media` and `Observation.derivedFrom`.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from config import codes
from config.codes import Concept
from pipeline.domain import Call
from reporting.fhir.elements import (
    Element,
    SmearReport,
    dicom_identifier,
    identifier,
    reference,
    research_note,
    resource,
)
from reporting.results import DICOM_MEDIA_TYPE, ObjectReference, ResultKind

OBJECT_MODALITY: Mapping[ResultKind, Concept] = {
    ResultKind.PRESENTATION_STATE: codes.MODALITY_PRESENTATION_STATE,
    ResultKind.STRUCTURED_REPORT: codes.MODALITY_STRUCTURED_REPORT,
    ResultKind.BULK_ANNOTATIONS: codes.MODALITY_ANNOTATION,
    ResultKind.SEGMENTATION: codes.MODALITY_SEGMENTATION,
    ResultKind.KEY_OBJECTS: codes.MODALITY_KEY_OBJECTS,
}
"""Modality of what we make; our pictures are Secondary Captures of modality OT."""

MOST_FIELD_PICTURES = 12
"""Annotated fields that become a Media, those with most leukemic calls first; every image stands
in the ImagingStudy. A smear may have 400 fields, nobody leafs through so many in an EHR, and
servers cap what one transaction may update (Medplum at 50 resources); as many again may have to be
withdrawn from the version before."""


def build_imaging_studies(report: SmearReport) -> Iterator[Element]:
    """One for each DICOM study: the images that came in and the objects that we made."""
    for study_uid in report.study_uids:
        series = [*_source_series(report, study_uid), *_made_series(report, study_uid)]
        yield resource(
            "ImagingStudy",
            report.imaging_study_id(study_uid),
            identifier=[
                dicom_identifier(study_uid),
                *(identifier(a, kind=codes.ACCESSION) for a in report.origin.accessions),
            ],
            status="available",
            subject=report.subject,
            started=report.origin.study_started_at.get(study_uid, ""),
            numberOfSeries=len(series),
            numberOfInstances=sum(s["numberOfInstances"] for s in series),
            note=research_note(),
            series=series,
        )


def build_media(report: SmearReport, gallery_picture: bytes | None) -> Iterator[Element]:
    """The gallery with its pixels, so that any EHR shows it; then annotated fields by their UID.

    A picture keeps its id from version to version, so that the new one replaces the old.
    `gallery_picture` is a PNG, or None.
    """
    for image in report.images:
        if image.kind is ResultKind.GALLERY:
            yield _media(report, image, gallery_picture)
    for image in _most_suspicious_fields(report):
        yield _media(report, image, None)


def build_replaced_media(report: SmearReport, current: Iterable[Element]) -> Iterator[Element]:
    """Pictures of the version before that this one does not show: they must not stay current."""
    previous = report.context.previous
    shown = {media["id"] for media in current}
    for media_id in previous.media_ids if previous else ():
        if media_id not in shown:
            title = f"Replaced by version {report.context.version}, research use only"
            yield resource(
                "Media",
                media_id,
                status="entered-in-error",
                subject=report.subject,
                content={"contentType": DICOM_MEDIA_TYPE, "title": title},
                note=research_note(),
            )


def _media_id(report: SmearReport, image: ObjectReference) -> str:
    """By what the picture shows: the smear, or one frame of one source image."""
    if image.source is None:
        return report.resource_id("media", image.kind)
    return report.resource_id("media", image.kind, image.source, str(image.frame))


def _most_suspicious_fields(report: SmearReport) -> Sequence[ObjectReference]:
    """Fields by leukemic calls, then by referred cells, then in their own order."""
    calls: dict[tuple[str | None, int | None], Counter[Call]] = {
        (field.sop_instance_uid, field.frame): Counter(cell.call for cell in field.cells)
        for field in report.smear.fields
    }

    def rank(image: ObjectReference) -> tuple[int, int, int]:
        seen = calls.get((image.source, image.frame), Counter())
        return -seen[Call.LEUKEMIC], -seen[Call.REFERRED], image.instance_number

    annotated = [i for i in report.images if i.kind is ResultKind.ANNOTATED_FIELD]
    return sorted(annotated, key=rank)[:MOST_FIELD_PICTURES]


def _media(report: SmearReport, image: ObjectReference, inline: bytes | None) -> Element:
    return resource(
        "Media",
        _media_id(report, image),
        identifier=[dicom_identifier(image.sop_instance_uid)],
        partOf=[reference("ImagingStudy", report.imaging_study_id(image.study_instance_uid))],
        status="entered-in-error" if report.status == "entered-in-error" else "completed",
        type={"coding": [codes.IMAGE.fhir]},
        subject=report.subject,
        createdDateTime=report.issued,
        device=reference("Device", report.device_id),
        content=_content(report, image, inline),
        note=research_note(),
    )


def _content(report: SmearReport, image: ObjectReference, inline: bytes | None) -> Element:
    about = {"title": _title(image), "creation": report.issued}
    if inline is None:
        return {
            "contentType": DICOM_MEDIA_TYPE,
            "url": f"urn:oid:{image.sop_instance_uid}",
            **about,
        }
    return {"contentType": "image/png", "data": base64.b64encode(inline).decode(), **about}


def _title(image: ObjectReference) -> str:
    if image.kind is ResultKind.GALLERY:
        return "Gallery of the smear's cells, research use only"
    return f"Annotated field {image.instance_number}, research use only"


def _source_series(report: SmearReport, study_uid: str) -> Iterator[Element]:
    by_series: dict[str, dict[str, str]] = {}
    for field in report.smear.fields:
        if field.study_uid == study_uid:
            instances = by_series.setdefault(field.series_uid, {})
            instances[field.sop_instance_uid] = report.origin.sop_classes[field.sop_instance_uid]
    for series_uid, instances in by_series.items():
        modality = codes.MODALITY.get(report.origin.modalities[series_uid], codes.MODALITY_OTHER)
        yield _series(series_uid, modality, instances, "Source images")


def _made_series(report: SmearReport, study_uid: str) -> Iterator[Element]:
    by_series: dict[str, list[ObjectReference]] = {}
    for image in report.images:
        if image.study_instance_uid == study_uid:
            by_series.setdefault(image.series_instance_uid, []).append(image)
    for series_uid, images in by_series.items():
        kind = images[0].kind
        yield _series(
            series_uid,
            OBJECT_MODALITY.get(kind, codes.MODALITY_OTHER),
            {image.sop_instance_uid: image.sop_class_uid for image in images},
            f"{kind.replace('_', ' ').capitalize()}, research use only",
        )


def _series(
    series_uid: str, modality: Concept, instances: Mapping[str, str], description: str
) -> Element:
    """`instances` maps SOP Instance UIDs to SOP Class UIDs."""
    return {
        "uid": series_uid,
        "modality": modality.fhir,
        "description": description,
        "numberOfInstances": len(instances),
        "instance": [
            {
                "uid": uid,
                "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class}"},
            }
            for uid, sop_class in instances.items()
        ],
    }
