"""A Key Object Selection "For Research" that names the whole set and its sources."""

from __future__ import annotations

from pipeline.domain import RESEARCH_USE_ONLY
from reporting.results import ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import read, results_of
from tests.reporting.sources import make_source

FIELD = make_field_findings()
RESULTS = results_of(
    make_smear_findings([FIELD]),
    {FIELD.sop_instance_uid: make_source("slide_coordinates", FIELD)},
)
SELECTION = read(RESULTS[-1])
OTHERS = {one.uid: one.kind for one in RESULTS[:-1]}


def referenced() -> dict[str, str]:
    """Value type by instance, of everything that the selection names."""
    return {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: item.ValueType
        for item in SELECTION.ContentSequence
        if "ReferencedSOPSequence" in item
    }


def test_it_comes_last_as_it_names_the_others() -> None:
    assert RESULTS[-1].kind is ResultKind.KEY_OBJECTS


def test_its_title_is_for_research() -> None:
    [title] = SELECTION.ConceptNameCodeSequence

    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113009", "DCM")


def test_it_names_every_result_and_every_source() -> None:
    assert set(referenced()) == {*OTHERS, FIELD.sop_instance_uid}


def test_images_are_named_as_images() -> None:
    images = {ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY, ResultKind.SEGMENTATION}

    for uid, kind in OTHERS.items():
        assert referenced()[uid] == ("IMAGE" if kind in images else "COMPOSITE")


def test_the_evidence_is_complete() -> None:
    listed = {
        one.ReferencedSOPInstanceUID
        for study in SELECTION.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }

    assert listed == set(referenced())


def test_the_description_begins_with_the_label() -> None:
    texts = [one.TextValue for one in SELECTION.ContentSequence if one.ValueType == "TEXT"]

    assert any(one.startswith(RESEARCH_USE_ONLY) for one in texts)
