"""The report after TID 1500, read by highdicom, which knows the templates, and item by item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom import Dataset

from config.codes import CELL_TYPE
from config.dicom_codes import LEUKEMIC_PROBABILITY, MOST_SUSPICIOUS_PROBABILITY
from pipeline.domain import (
    RESEARCH_USE_ONLY,
    Call,
    CellKind,
    CellType,
    PersonDecision,
    QualityFlag,
    ReferralReason,
)
from reporting.dicom.sr_measurement_groups import MOST_CELLS
from reporting.results import DocumentReference, PreviousVersion, ResultKind
from tests.findings import (
    MODEL,
    make_cell,
    make_cell_finding,
    make_field_findings,
    make_smear_findings,
)
from tests.reporting.made import made, read, results_of
from tests.reporting.reviews import READER, SIGNED_AT, commented, reviewed
from tests.reporting.sources import make_source

FIELD = make_field_findings()
SUGGESTION = "Type suggested by the network"
FINDING_WORDS = {
    Call.LEUKEMIC: "Blast cell",
    Call.NORMAL: "Lymphocyte",
    Call.REFERRED: "Referred to an expert",
}
PROBABILITY = LEUKEMIC_PROBABILITY.display
MOST_SUSPICIOUS = MOST_SUSPICIOUS_PROBABILITY.dicom


def report_of(field=FIELD, **changed: Any) -> Dataset:
    return made(ResultKind.STRUCTURED_REPORT, field, **changed)


def items(dataset: Dataset) -> list[Dataset]:
    """All content items of a tree."""
    found = []
    for item in dataset.get("ContentSequence", ()):
        found += [item, *items(item)]
    return found


def named(dataset: Dataset, meaning: str) -> list[Dataset]:
    return [
        item
        for item in items(dataset)
        if "ConceptNameCodeSequence" in item
        and item.ConceptNameCodeSequence[0].CodeMeaning == meaning
    ]


def numbers(dataset: Dataset, meaning: str) -> list[float]:
    return [float(one.MeasuredValueSequence[0].NumericValue) for one in named(dataset, meaning)]


class TestReadByHighdicom:
    @pytest.fixture(scope="class")
    def content(self):
        return Comprehensive3DSR.from_dataset(report_of()).content

    def test_each_cell_is_a_planar_region_with_measurements(self, content) -> None:
        groups = content.get_planar_roi_measurement_groups()

        assert len(groups) == len(FIELD.cells)
        for group in groups:
            assert group.reference_type == hd.sr.CodedConcept("111030", "DCM", "Image Region")
            assert len(group.get_measurements()) == 4
            assert group.tracking_uid

    def test_the_smear_is_a_group_without_a_region(self, content) -> None:
        [group] = content.get_image_measurement_groups()

        assert group.tracking_identifier == "smear"
        [first] = group.get_measurements(name=hd.sr.CodedConcept(*MOST_SUSPICIOUS))
        [border] = first.referenced_coordinates
        assert len(border.value) == 5

    def test_the_observer_is_a_device(self, content) -> None:
        [observer] = content.get_observer_contexts()

        assert observer.observer_type.meaning == "Device"


def coordinates_of(group: Dataset) -> list[Dataset]:
    """As OHIF 3.12 looks for them: of the group, else of figures inferred from a single item."""
    own = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    figures = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    single = [item.ContentSequence[0] for item in figures if len(item.get("ContentSequence", ()))]
    return own or [one for one in single if one.ValueType == "SCOORD"]


class TestEveryGroupHasCoordinates:
    """A group without them ends the reading of the whole report in OHIF 3.12."""

    @pytest.mark.parametrize(
        "field",
        [
            FIELD,
            make_field_findings(calls=()),
            make_field_findings(flags=frozenset({QualityFlag.OUT_OF_FOCUS})),
            make_field_findings(flags=frozenset({QualityFlag.NOT_A_SMEAR}), is_usable=False),
        ],
        ids=["cells", "no_cells", "poor", "unusable"],
    )
    def test_of_a_smear_of_one_field(self, field) -> None:
        groups = named(report_of(field), "Measurement Group")

        assert groups
        assert all(len(coordinates_of(group)) == 1 for group in groups)

    def test_the_smear_s_are_the_field_of_its_most_suspicious_cell(self) -> None:
        calm, worse = (
            make_field_findings(sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{n}", calls=calls)
            for n, calls in ((1, [Call.NORMAL]), (2, [Call.NORMAL, Call.LEUKEMIC]))
        )
        sources = {one.sop_instance_uid: make_source("microscopic", one) for one in (calm, worse)}
        [report] = results_of(
            make_smear_findings([calm, worse]), sources, ResultKind.STRUCTURED_REPORT
        )

        [smear, first, *_] = named(read(report), "Measurement Group")

        [border] = coordinates_of(smear)
        [image] = border.ContentSequence
        sop = image.ReferencedSOPSequence[0]
        assert sop.ReferencedSOPInstanceUID == worse.sop_instance_uid
        assert numbers(smear, MOST_SUSPICIOUS[2]) == numbers(first, PROBABILITY)

    def test_a_poor_field_s_are_its_border(self) -> None:
        field = make_field_findings(flags=frozenset({QualityFlag.OUT_OF_FOCUS}))

        [_, group, *_] = named(report_of(field), "Measurement Group")

        [border] = coordinates_of(group)
        points = np.array(border.GraphicData).reshape(-1, 2)
        assert points.min(axis=0).tolist() == [0, 0]
        assert points.max(axis=0).tolist() == [field.width, field.height]
        assert numbers(group, "White cells found in the field") == [len(field.cells)]

    def test_a_smear_without_a_cell_has_the_border_of_its_first_field(self) -> None:
        """OHIF passes over a figure that was inferred from several regions, and then ends."""
        fields = [
            make_field_findings(sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{n}", calls=())
            for n in (1, 2)
        ]
        sources = {one.sop_instance_uid: make_source("microscopic", one) for one in fields}
        [report] = results_of(make_smear_findings(fields), sources, ResultKind.STRUCTURED_REPORT)

        [counted] = named(read(report), "White cells counted")

        [border] = counted.ContentSequence
        [image] = border.ContentSequence[0].ReferencedSOPSequence
        assert image.ReferencedSOPInstanceUID == next(iter(sources))


class TestWhatItSays:
    def test_it_begins_with_the_label(self) -> None:
        [comment] = named(report_of(), "Comment")

        assert comment.TextValue.startswith(RESEARCH_USE_ONLY)
        assert MODEL.sha256 in comment.TextValue

    def test_nobody_has_verified_it(self) -> None:
        report = report_of()

        assert report.VerificationFlag == "UNVERIFIED"
        assert report.PreliminaryFlag == "PRELIMINARY"
        assert report.CompletionFlagDescription == RESEARCH_USE_ONLY

    def test_the_counts_are_those_of_the_smear(self) -> None:
        smear = make_smear_findings([FIELD])
        report = report_of()

        assert numbers(report, "White cells counted") == [smear.white_cells_counted]
        assert numbers(report, "Cells called leukemic") == [smear.leukemic_count]
        assert numbers(report, "Cells called normal") == [smear.normal_count]
        assert smear.leukemic_fraction is not None
        [share] = numbers(report, "Blasts/Leukocytes in Blood")
        assert share == round(100 * smear.leukemic_fraction.value)
        assert numbers(report, "Cells found") == [len(FIELD.cells)]
        assert named(report, "Grade of the smear, for reading order only")

    def test_no_percentage_of_few_cells(self) -> None:
        report = report_of(min_cells_for_percent=50)

        assert numbers(report, "Blasts/Leukocytes in Blood") == []
        assert numbers(report, "Cells called leukemic") == [1]

    def test_no_share_is_made_up_when_nothing_was_counted(self) -> None:
        report = report_of(make_field_findings(calls=[Call.REFERRED]))

        assert numbers(report, "White cells counted") == [0]
        assert numbers(report, "Blasts/Leukocytes in Blood") == []

    def test_each_cell_has_its_figures(self) -> None:
        report = report_of()
        by_index = {
            int(named(group, "Tracking Identifier")[0].TextValue.split()[-1]): group
            for group in named(report, "Measurement Group")
            if named(group, "Image Region")
        }

        assert set(by_index) == {one.cell.index for one in FIELD.cells}
        for one in FIELD.cells:
            group = by_index[one.cell.index]
            [probability] = numbers(group, PROBABILITY)
            assert probability == pytest.approx(one.prediction.leukemic_probability, abs=1e-6)
            [area] = numbers(group, "Area")
            assert area == pytest.approx(one.cell.shape.area_um2, rel=1e-5)
            [finding] = named(group, "Finding")
            assert finding.ConceptCodeSequence[0].CodeMeaning == FINDING_WORDS[one.call]
            suggested = [c.ConceptCodeSequence[0].CodeValue for c in named(group, SUGGESTION)]
            is_referred = one.call is Call.REFERRED
            assert suggested == ([CELL_TYPE[one.cell_type].code] if is_referred else [])

    def test_regions_lie_on_their_cells(self) -> None:
        report = report_of()
        regions = named(report, "Image Region")
        boxes = {(one.cell.box.x, one.cell.box.y) for one in FIELD.cells}

        for one in regions:
            points = np.array(one.GraphicData).reshape(-1, 2)
            np.testing.assert_array_equal(points[0], points[-1])
            corner = points.min(axis=0) - 0.5
            assert min(abs(corner - box).max() for box in boxes) <= 2.0
            [image] = one.ContentSequence
            sop = image.ReferencedSOPSequence[0]
            assert sop.ReferencedSOPInstanceUID == FIELD.sop_instance_uid

    def test_the_specimen_is_the_subject(self) -> None:
        report = report_of()

        assert named(report, "Specimen Identifier")[0].TextValue == "SPEC-1"
        assert named(report, "Specimen Container Identifier")[0].TextValue == "SLIDE-9"

    def test_without_a_specimen_none_is_named(self) -> None:
        source = make_source("microscopic", FIELD, is_full=False)

        assert named(report_of(source=source), "Subject Class") == []

    def test_a_poor_field_is_told(self) -> None:
        field = make_field_findings(flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=False)

        [flag] = named(report_of(field), "Field quality flag")

        assert flag.ConceptCodeSequence[0].CodeValue == "OUTOFFOCUS"


def test_the_evidence_names_every_source() -> None:
    fields = [
        make_field_findings(sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}")
        for number in (1, 2)
    ]
    sources = {one.sop_instance_uid: make_source("microscopic", one) for one in fields}
    [result] = results_of(make_smear_findings(fields), sources, ResultKind.STRUCTURED_REPORT)

    [study] = read(result).CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence} == set(sources)


def test_a_crowded_smear_lists_the_most_suspicious_cells() -> None:
    calls = (Call.LEUKEMIC, *(Call.NORMAL,) * 2)
    field = make_field_findings(width=2400, height=2400, calls=calls * 90)

    report = report_of(field)

    regions = [
        group for group in named(report, "Measurement Group") if named(group, "Image Region")
    ]
    assert len(regions) == MOST_CELLS < len(field.cells)
    listed = [numbers(group, PROBABILITY)[0] for group in regions]
    assert listed == sorted(listed, reverse=True)
    assert (
        f"{MOST_CELLS} of {len(field.cells)} cells listed" in named(report, "Comment")[0].TextValue
    )


def test_a_smudge_is_a_smudge() -> None:
    smudge = make_cell_finding(
        make_cell(1, 90, 90, kind=CellKind.SMUDGE_CELL),
        Call.REFERRED,
        cell_type=CellType.MYELOBLAST,
        reasons=[ReferralReason.SMUDGE_CELL],
    )

    report = report_of(make_field_findings(cells=[smudge]))

    [group] = [g for g in named(report, "Measurement Group") if named(g, "Image Region")]
    assert named(group, "Finding")[0].ConceptCodeSequence[0].CodeMeaning == "Smudge cell"
    assert numbers(report, "Smudge cells among the cells referred") == [1]


def test_a_later_version_names_the_one_that_it_replaces() -> None:
    first = report_of()
    replaced = DocumentReference(
        study_uid=first.StudyInstanceUID,
        series_uid=first.SeriesInstanceUID,
        sop_class_uid=first.SOPClassUID,
        sop_instance_uid=first.SOPInstanceUID,
    )

    second = report_of(
        version=2, previous=PreviousVersion(structured_report=replaced, media_ids=())
    )

    [study] = second.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [document] = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    assert second.SeriesNumber > first.SeriesNumber
    assert second.SeriesDate


def test_a_cell_keeps_its_tracking_uid_in_an_amended_report() -> None:
    first, second = (
        {
            one.UID
            for group in named(report_of(version=version), "Measurement Group")
            if named(group, "Image Region")
            for one in named(group, "Tracking Unique Identifier")
        }
        for version in (1, 2)
    )

    assert first == second


def test_a_reviewer_is_an_observer_beside_the_device_and_verifies_by_signing() -> None:
    field = make_field_findings()
    sources = {str(field.sop_instance_uid): make_source("slide_coordinates", field)}
    smear = reviewed(make_smear_findings([field]))

    [result] = results_of(smear, sources, ResultKind.STRUCTURED_REPORT)

    report = read(result)
    observers = [c.ConceptCodeSequence[0].CodeValue for c in named(report, "Observer Type")]
    assert observers == ["121007", "121006"]
    assert str(named(report, "Person Observer Name")[0].PersonName) == "Jana Meyer"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("VERIFIED", "FINAL")
    [verifier] = report.VerifyingObserverSequence
    assert str(verifier.VerifyingObserverName) == "Jana Meyer"
    assert verifier.VerificationDateTime == "20261123081500+0000"


def test_a_corrected_cell_shows_both_classes() -> None:
    decision = PersonDecision(
        to="lymphocyte",
        reviewer=READER,
        at=SIGNED_AT,
        reason="reactive",
        model_type=CellType.MYELOBLAST,
        model_call=Call.LEUKEMIC,
    )
    corrected = replace(make_cell_finding(make_cell(1, 90, 90)), decision=decision)

    report = report_of(make_field_findings(cells=[corrected]))

    [group] = [g for g in named(report, "Measurement Group") if named(g, "Image Region")]
    assert named(group, "Finding")[0].ConceptCodeSequence[0].CodeMeaning == "Lymphocyte"
    assert named(group, SUGGESTION)[0].ConceptCodeSequence[0].CodeMeaning == "Blast cell"
    assert named(group, "Decided by")[0].TextValue == "Jana Meyer"


def test_comments_stand_at_the_end_of_the_statement() -> None:
    sources = {str(FIELD.sop_instance_uid): make_source("slide_coordinates", FIELD)}
    smear = commented(make_smear_findings([FIELD]), ("核仁 <b>&", ()))

    [result] = results_of(smear, sources, ResultKind.STRUCTURED_REPORT)

    statements = [str(one.TextValue) for one in items(read(result)) if "TextValue" in one]
    assert sum(one.endswith("on the smear: 核仁 <b>&") for one in statements) == 1
