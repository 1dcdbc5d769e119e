"""Masks, annotations and pictures of a reviewed smear show what people decided, and say so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from highdicom.ann import MicroscopyBulkSimpleAnnotations
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array

from pipeline.domain import Call, CellFinding, SmearFindings, SmearId
from pipeline.findings.review import Act, ReviewEvent, cell_key, field_key, fold
from pipeline.findings.review import review_smear as reviewed_by
from pipeline.findings.smear_summary import decision_words, gather_smear
from reporting.documents.pdf_report import build_pdf_report
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.documents.test_pdf_report import cards_of
from tests.reporting.headers import make_context, make_headers
from tests.reporting.made import read, results_of
from tests.reporting.pdf_reader import printed_text
from tests.reporting.reviews import READER
from tests.reporting.sources import make_source

FIELD = make_field_findings(calls=(Call.LEUKEMIC, Call.NORMAL, Call.NORMAL, Call.REFERRED))
CELLS = [cell_key(FIELD, one.cell) for one in FIELD.cells]
ADDED = make_cell_finding(replace(make_cell(1, 60, 400, radius=30), index=10_000), Call.NORMAL)


def act(revision: int, what: Act, *cells: int, to: str = "", **given: object) -> ReviewEvent:
    return ReviewEvent(
        id=f"act{revision}",
        revision=revision,
        at=datetime(2026, 11, 28, tzinfo=UTC),
        reviewer=READER,
        act=what,
        cells=tuple(CELLS[number - 1] for number in cells),
        to=to,
        **given,  # type: ignore[arg-type]
    )


REVIEW = (
    act(1, Act.RECLASSIFY, 1, to="monocyte"),
    act(2, Act.NOT_A_CELL, 2),
    act(3, Act.CONFIRM, 3, to="lymphocyte"),
    act(4, Act.ADD_CELL, to="blast", fields=(field_key(FIELD),), added=ADDED),
)
"""Afterwards: a monocyte that the network called a blast, a lymphocyte, a blast that it missed,
and the cell that it referred.
"""


def reviewed(*events: ReviewEvent) -> SmearFindings:
    return reviewed_by(gather_smear(SmearId("smear-1"), [FIELD]), fold(events))


def only(smear: SmearFindings, kind: ResultKind) -> Dataset:
    source = make_source("slide_coordinates", FIELD)
    [result] = results_of(smear, {str(FIELD.sop_instance_uid): source}, kind)
    return read(result)


def masks(segmentation: Dataset) -> dict[str, np.ndarray]:
    labels = [str(one.SegmentLabel) for one in segmentation.SegmentSequence]
    frames = pixel_array(segmentation)
    return dict(zip(labels, frames if frames.ndim == 3 else frames[None], strict=True))


def at(mask: np.ndarray, finding: CellFinding) -> bool:
    box = finding.cell.box
    return bool(mask[box.y + box.height // 2, box.x + box.width // 2])


def test_the_masks_are_of_the_classes_that_people_gave() -> None:
    made = masks(only(reviewed(*REVIEW), ResultKind.SEGMENTATION))

    first, struck, third, referred = FIELD.cells
    blasts, normal = made["White cells leukemic (research)"], made["White cells normal (research)"]
    assert at(normal, first)
    assert not at(blasts, first)
    assert at(blasts, ADDED)
    assert at(normal, third)
    assert at(made["White cells referred (research)"], referred)
    assert not any(at(mask, struck) for mask in made.values())


def test_the_annotations_are_of_the_classes_that_people_gave() -> None:
    annotations = only(reviewed(*REVIEW), ResultKind.BULK_ANNOTATIONS)

    groups = MicroscopyBulkSimpleAnnotations.from_dataset(annotations).get_annotation_groups()
    counts = {one.label: one.number_of_annotations for one in groups}
    assert counts == {
        "White cells leukemic (research)": 1,
        "White cells normal (research)": 2,
        "White cells referred (research)": 1,
    }


@pytest.mark.parametrize(
    ("events", "blasts", "normal"),
    [
        ((), "AUTOMATIC", "AUTOMATIC"),
        (REVIEW[2:3], "AUTOMATIC", "SEMIAUTOMATIC"),
        (REVIEW, "SEMIAUTOMATIC", "SEMIAUTOMATIC"),
    ],
)
def test_what_people_took_part_in_is_not_called_automatic(
    events: tuple[ReviewEvent, ...], blasts: str, normal: str
) -> None:
    smear = reviewed(*events)
    segments = only(smear, ResultKind.SEGMENTATION).SegmentSequence
    groups = only(smear, ResultKind.BULK_ANNOTATIONS).AnnotationGroupSequence

    types = {str(one.SegmentLabel): one.SegmentAlgorithmType for one in segments}
    assert types["White cells leukemic (research)"] == blasts
    assert types["White cells normal (research)"] == normal
    assert [one.AnnotationGroupGenerationType for one in groups[:2]] == [blasts, normal]


def test_an_excluded_field_has_no_masks() -> None:
    excluded = reviewed(
        act(1, Act.EXCLUDE_FIELD, fields=(field_key(FIELD),)),
    )
    source = make_source("slide_coordinates", FIELD)

    made = results_of(
        excluded,
        {str(FIELD.sop_instance_uid): source},
        ResultKind.SEGMENTATION,
        ResultKind.BULK_ANNOTATIONS,
    )

    assert made == []


def test_each_cell_says_whose_word_it_is() -> None:
    [field] = reviewed(*REVIEW).fields

    words = {one.cell.index: decision_words(one) for one in field.cells}

    assert words == {
        1: "by a person; network: blast",
        3: "confirmed by a person",
        4: "",
        10_000: "by a person; network: lymphocyte",
    }


def test_the_printed_report_says_whose_word_it_is() -> None:
    pages = {
        name: printed_text(
            build_pdf_report(
                smear,
                headers=make_headers(smear),
                cards=cards_of(smear),
                context=make_context(),
            ).content
        )
        for name, smear in (("found", reviewed()), ("reviewed", reviewed(*REVIEW)))
    }

    assert "by a person; network: blast" in pages["reviewed"]
    assert "cells found by software, reviewed by a person" in pages["reviewed"]
    assert "by a person" not in pages["found"]
    assert "cells found and counted by software" in pages["found"]
