"""What every object of ours says: who made it, from what, and for what."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import pytest
from pydicom import Dataset, dcmread

from pipeline.domain import RESEARCH_USE_ONLY
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID
from reporting.dicom.common_modules import (
    InstanceReference,
    common_instance_references,
    evidence,
    part10_bytes,
    series_description,
)
from reporting.results import DICOM_KINDS, ResultKind
from tests.findings import MODEL, make_field_findings
from tests.reporting.headers import ISSUED_AT
from tests.reporting.made import context_for, made
from tests.reporting.sources import make_source

FIELD = make_field_findings()


@pytest.fixture(scope="module", params=sorted(DICOM_KINDS))
def object_(request: pytest.FixtureRequest) -> Dataset:
    return made(request.param, FIELD)


class TestEveryObject:
    def test_it_is_for_research(self, object_: Dataset) -> None:
        assert object_.ContentQualification == "RESEARCH"
        assert "RESEARCH USE ONLY" in object_.SeriesDescription

    def test_the_software_is_the_device(self, object_: Dataset) -> None:
        assert object_.Manufacturer == "smearlink"
        assert object_.DeviceSerialNumber == MODEL.sha256
        assert list(object_.SoftwareVersions) == ["smearlink 0.1.0", "smearlink-resnet50 1.0.0"]

    def test_device_and_software_contributed(self, object_: Dataset) -> None:
        acquisition, processing = object_.ContributingEquipmentSequence

        assert acquisition.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert acquisition.ManufacturerModelName == "Scope 1"
        assert processing.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert MODEL.sha256 in processing.ContributionDescription
        assert MODEL.execution_provider in processing.ContributionDescription
        assert RESEARCH_USE_ONLY in processing.ContributionDescription

    def test_times_are_those_of_the_source_s_zone(self, object_: Dataset) -> None:
        here = ISSUED_AT.astimezone(timezone(timedelta(hours=9)))
        date, time = object_.InstanceCreationDate, object_.InstanceCreationTime

        assert datetime.strptime(f"{date}{time}+0900", "%Y%m%d%H%M%S%z") == here

    def test_the_file_names_our_implementation(self, object_: Dataset) -> None:
        assert object_.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert object_.file_meta.ImplementationVersionName == "SMEARLINK"

    def test_it_lies_in_the_study_of_its_source_and_in_a_series_of_its_own(
        self, object_: Dataset
    ) -> None:
        assert object_.StudyInstanceUID == FIELD.study_uid
        assert object_.SeriesInstanceUID != FIELD.series_uid
        assert object_.SeriesNumber >= 9001


def test_a_device_without_a_name_is_not_invented() -> None:
    source = make_source("microscopic", FIELD, is_full=False)

    [processing] = made(ResultKind.GALLERY, FIELD, source=source).ContributingEquipmentSequence

    assert processing.Manufacturer == "smearlink"


@pytest.mark.parametrize("kind", sorted(DICOM_KINDS))
@pytest.mark.parametrize("version", [1, 2, 9_999])
@pytest.mark.parametrize("field", [None, 9_999])
def test_a_description_fits(kind: ResultKind, version: int, field: int | None) -> None:
    """LO holds 64 characters (PS3.5 6.2)."""
    assert len(series_description(kind, context_for(version=version), field)) <= 64


def test_two_versions_of_one_second_are_told_apart() -> None:
    moments = [ISSUED_AT.replace(microsecond=part) for part in (0, 7000, 120000)]

    times = [
        str(made(ResultKind.GALLERY, FIELD, issued_at=moment).SeriesTime) for moment in moments
    ]

    assert times == sorted(set(times))


def reference(study: str, series: str, instance: str) -> InstanceReference:
    return InstanceReference(
        study_uid=study, series_uid=series, sop_class_uid="1.2", sop_instance_uid=instance
    )


def test_evidence_is_grouped_and_each_instance_stands_once() -> None:
    listed = [
        reference("1.2", "1.2.3", "1.2.3.2"),
        reference("1.1", "1.1.3", "1.1.3.1"),
        reference("1.2", "1.2.3", "1.2.3.1"),
        reference("1.2", "1.2.3", "1.2.3.2"),
    ]

    studies = evidence(listed)

    assert [
        (
            study.StudyInstanceUID,
            series.SeriesInstanceUID,
            [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence],
        )
        for study in studies
        for series in study.ReferencedSeriesSequence
    ] == [("1.1", "1.1.3", ["1.1.3.1"]), ("1.2", "1.2.3", ["1.2.3.1", "1.2.3.2"])]


def test_other_studies_stand_apart() -> None:
    module = common_instance_references(
        "1.1", [reference("1.2", "1.2.3", "1.2.3.1"), reference("1.1", "1.1.3", "1.1.3.1")]
    )

    assert module.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.1.3"
    [other] = module.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == "1.2"


def test_the_same_dataset_gives_the_same_file() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"

    assert part10_bytes(dataset) == part10_bytes(dataset)
    assert dcmread(io.BytesIO(part10_bytes(dataset))).SOPInstanceUID == "1.2.3"
