"""Checks before a result leaves that it says it is for research use only (law 3).

Each kind is opened and checked in its own way; what cannot be opened has no label.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from config.codes import HEALTHCARE_RESEARCH
from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.errors import Defect
from reporting.results import DICOM_KINDS, Result, ResultKind
from reporting.top_level_elements import read_top_level

LABEL = "RESEARCH USE ONLY"
LABEL_TAGS = tuple(
    map(Tag, ("ContentQualification", "SeriesDescription", "BurnedInAnnotation", "ImageComments"))
)
SENDER_TAGS = tuple(map(Tag, ("SOPClassUID", "SOPInstanceUID", "BitsAllocated")))
BURNED_IN = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY})


def check_label(result: Result) -> None:
    """Raise Defect(code="research_label_missing") unless the content itself carries the label."""
    is_labelled = _IS_LABELLED[result.kind]
    if not is_labelled(result):
        raise _missing(result.kind)


def _missing(kind: ResultKind) -> Defect:
    return Defect(
        f"A {kind} does not say that it is for research use only; nothing without the label may "
        "leave. Report this as a defect.",
        code="research_label_missing",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutgoingInstance:
    """A DICOM result that carries the label, parsed once for everything that sends it."""

    result: Result
    dataset: Dataset
    """File meta information and the attributes that a sender needs, without pixels."""

    @property
    def uid(self) -> str:
        """Identity of the result."""
        return self.result.uid

    @property
    def sop_class_uid(self) -> str:
        """SOP Class of the object."""
        return str(self.dataset.SOPClassUID)


def check_labels(results: Sequence[Result], kinds: frozenset[ResultKind]) -> tuple[Result, ...]:
    """The results of these kinds; raises Defect before anything is sent if one has no label."""
    wanted = tuple(result for result in results if result.kind in kinds)
    for result in wanted:
        check_label(result)
    return wanted


def check_instances(
    results: Sequence[Result], kinds: frozenset[ResultKind]
) -> tuple[OutgoingInstance, ...]:
    """The same for DICOM objects, each with its data set."""
    return tuple(_checked_instance(result) for result in results if result.kind in kinds)


def _checked_instance(result: Result) -> OutgoingInstance:
    dataset = _read(result, (*LABEL_TAGS, *SENDER_TAGS))
    if dataset is None or not _is_dataset_labelled(dataset, result.kind):
        raise _missing(result.kind)
    return OutgoingInstance(result=result, dataset=dataset)


def _is_dicom_labelled(result: Result) -> bool:
    dataset = _read(result, LABEL_TAGS)
    return dataset is not None and _is_dataset_labelled(dataset, result.kind)


def _read(result: Result, wanted: Sequence[BaseTag]) -> Dataset | None:
    """These attributes of a result; None when it is no DICOM object."""
    if (plain := read_top_level(result.content, wanted)) is not None:
        return plain
    last = max(wanted)
    try:
        return read_partial(
            BytesIO(result.content),
            stop_when=lambda tag, _vr, _length: tag > last,
            specific_tags=[*wanted],
        )
    except (InvalidDicomError, EOFError, ValueError, KeyError):
        return None


def _is_dataset_labelled(dataset: Dataset, kind: ResultKind) -> bool:
    """Content Qualification, series description, and for pictures the burned-in banner."""
    return (
        dataset.get("ContentQualification") == "RESEARCH"
        and LABEL in str(dataset.get("SeriesDescription", ""))
        and (kind not in BURNED_IN or _says_it_is_burned_in(dataset))
    )


def _says_it_is_burned_in(dataset: Dataset) -> bool:
    return dataset.get("BurnedInAnnotation") == "YES" and LABEL in str(
        dataset.get("ImageComments", "")
    )


def _is_bundle_labelled(result: Result) -> bool:
    """Every resource of the bundle carries the research label."""
    try:
        bundle = json.loads(result.content)
        resources = [entry["resource"] for entry in bundle["entry"]]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(resources) and all(_is_resource_labelled(resource) for resource in resources)


def _is_resource_labelled(resource: Mapping[str, Any]) -> bool:
    labels: Iterable[Mapping[str, Any]] = resource.get("meta", {}).get("security", [])
    return any(
        label.get("system") == HEALTHCARE_RESEARCH.system.url
        and label.get("code") == HEALTHCARE_RESEARCH.code
        for label in labels
    )


def _is_table_labelled(result: Result) -> bool:
    """The header has the column, and every line fills it."""
    try:
        lines = csv.DictReader(StringIO(result.content.decode("utf-8-sig")), strict=True)
        return "research_use_only" in (lines.fieldnames or ()) and all(
            LABEL in (line["research_use_only"] or "").upper() for line in lines
        )
    except (UnicodeDecodeError, csv.Error):
        return False


def _is_document_labelled(result: Result) -> bool:
    """The document information of a PDF, where a string is Latin or UTF-16 with a mark."""
    words = RESEARCH_USE_ONLY
    return result.content.startswith(b"%PDF-") and (
        words.encode("latin-1") in result.content or words.encode("utf-16-be") in result.content
    )


def _is_message_labelled(result: Result) -> bool:
    """HL7 v2: a note that says so."""
    try:
        segments = result.content.decode("utf-8").split("\r")
    except UnicodeDecodeError:
        return False
    return segments[0].startswith("MSH|") and any(
        segment.startswith("NTE|") and LABEL in segment for segment in segments
    )


_IS_LABELLED: Mapping[ResultKind, Callable[[Result], bool]] = {
    **dict.fromkeys(DICOM_KINDS, _is_dicom_labelled),
    ResultKind.FHIR_BUNDLE: _is_bundle_labelled,
    ResultKind.TABLE: _is_table_labelled,
    ResultKind.PDF_REPORT: _is_document_labelled,
    ResultKind.HL7_MESSAGE: _is_message_labelled,
}
