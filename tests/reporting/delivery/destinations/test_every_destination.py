"""Every destination sends only what is wanted, and nothing without the research-use label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from pipeline.errors import Defect
from reporting.delivery import Destination
from reporting.delivery.destinations.dicom_store import DicomDestination
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.delivery.destinations.folder import FolderDestination
from reporting.delivery.destinations.hl7_mllp import Hl7Destination
from reporting.delivery.destinations.stow_rs import StowDestination
from reporting.research_label import check_instances, check_labels
from reporting.results import DICOM_KINDS, Result, ResultKind
from tests.acceptance.standins import closed_port
from tests.reporting.delivery.labelled import make_bundle, make_message, make_picture


def unlabelled(result: Result) -> Result:
    content = result.content
    for words in (b"RESEARCH USE", b"RESEARCH", b"HRESCH"):
        content = content.replace(words, b"X" * len(words))
    return replace(result, content=content)


PICTURE, BUNDLE, MESSAGE = make_picture(), make_bundle(), make_message()


def destinations(folder: Path) -> list[tuple[Destination, Result]]:
    """One of every way out, with what it wants; nobody listens at any of them."""
    port = closed_port()
    url = f"http://127.0.0.1:{port}"
    return [
        (DicomDestination(name="d", ae_title="X", host="127.0.0.1", port=port), PICTURE),
        (StowDestination(name="s", url=url), PICTURE),
        (FhirDestination(name="f", url=url), BUNDLE),
        (FolderDestination(name="o", path=folder / "out"), PICTURE),
        (Hl7Destination(name="h", host="127.0.0.1", port=port), MESSAGE),
    ]


@pytest.mark.parametrize("way", range(5))
def test_no_way_out_takes_what_has_no_label(way: int, tmp_path: Path) -> None:
    """It fails before it even tries to connect: that nobody listens is never found out."""
    destination, result = destinations(tmp_path)[way]

    with pytest.raises(Defect) as told:
        destination.deliver([unlabelled(result)])

    assert told.value.code == "research_label_missing"
    assert list(tmp_path.rglob("*.*")) == []


def test_one_bad_result_holds_all_back() -> None:
    with pytest.raises(Defect):
        check_labels([PICTURE, unlabelled(make_picture("b"))], frozenset(ResultKind))


def test_what_is_not_wanted_is_left_aside() -> None:
    kinds = frozenset({ResultKind.FHIR_BUNDLE})

    assert check_labels([PICTURE, BUNDLE, MESSAGE], kinds) == (BUNDLE,)


def test_an_instance_is_checked_and_parsed_at_once() -> None:
    (instance,) = check_instances([PICTURE, BUNDLE], DICOM_KINDS)

    assert instance.uid == PICTURE.uid == instance.dataset.SOPInstanceUID
    assert instance.sop_class_uid == SecondaryCaptureImageStorage
    assert "PixelData" not in instance.dataset
    with pytest.raises(Defect):
        check_instances([PICTURE, unlabelled(make_picture("b"))], DICOM_KINDS)
    with pytest.raises(Defect):
        check_instances([replace(PICTURE, content=b"no object")], DICOM_KINDS)
