"""Reads from the results of one version what the next version has to say that it replaces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import BytesIO

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from pipeline.errors import Defect
from reporting.results import DocumentReference, PreviousVersion, Result, ResultKind

KINDS_READ = frozenset({ResultKind.STRUCTURED_REPORT, ResultKind.FHIR_BUNDLE})
"""The results that are looked at."""


def read_previous_version(results: Iterable[Result]) -> PreviousVersion:
    """What these results of one version leave behind: its SR, and its FHIR Media in use.

    Raises Defect when a result is not what its kind says.
    """
    try:
        return _read(results)
    except (InvalidDicomError, AttributeError, LookupError, TypeError, ValueError) as err:
        raise Defect(
            "A result of the version before cannot be read; restore it from a backup.",
            code="result_damaged",
        ) from err


def _read(results: Iterable[Result]) -> PreviousVersion:
    report: DocumentReference | None = None
    media: tuple[str, ...] = ()
    for result in results:
        if result.kind is ResultKind.STRUCTURED_REPORT:
            report = _reference(result.content)
        elif result.kind is ResultKind.FHIR_BUNDLE:
            media = _media_in_use(result.content)
    return PreviousVersion(structured_report=report, media_ids=media)


def _reference(content: bytes) -> DocumentReference:
    header = dcmread(
        BytesIO(content),
        specific_tags=["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"],
    )
    return DocumentReference(
        study_uid=str(header.StudyInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
    )


def _media_in_use(content: bytes) -> tuple[str, ...]:
    resources = [entry["resource"] for entry in json.loads(content)["entry"]]
    return tuple(
        resource["id"]
        for resource in resources
        if resource["resourceType"] == "Media" and resource["status"] == "completed"
    )
