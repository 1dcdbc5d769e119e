"""A PACS that wants it is told which objects an amended report replaces, once and only those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from listener.demo.mock_servers import LOOPBACK, MockPacs
from listener.queue.jobs import DeliveryAttempt
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.receipts import DeliveryState
from listener.storage.results import ResultsFolder
from listener.workflow.delivery import Sender
from listener.workflow.destinations import DestinationQueue, Destinations
from pipeline.domain import SmearId
from pipeline.errors import RetryLater
from reporting.delivery.destinations.dicom_store import DicomDestination
from reporting.results import Result, ResultKind
from tests.fakes import RecordingAudit
from tests.reporting.delivery.labelled import make_bundle, make_picture

SMEAR = SmearId("1.2.3")
NOW = datetime(2026, 11, 24, 20, tzinfo=UTC)
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


class Site:
    """Reports of one smear, and a PACS that gets them."""

    def __init__(self, root: Path, pacs: MockPacs) -> None:
        self.results = ResultsFolder(root / "results", worker_id="w1")
        self.commitments = CommitmentReports(root / "commitments")
        self.pacs = pacs

    def report(self, version: int, *results: Result) -> None:
        self.results.smear(SMEAR).publish(
            results,
            version=version,
            issued_at=NOW,
            model_sha256="a" * 64,
            software_version="0.1.0",
            sources=[],
            destinations=["pacs"],
        )

    def deliver(self, version: int, *, rejects: bool = True, port: int = 0) -> None:
        pacs = DicomDestination(
            name="pacs",
            ae_title="STANDIN",
            host=LOOPBACK,
            port=port or self.pacs.port,
            rejects_replaced=rejects,
            timeout_s=60,
        )
        Sender(
            results=self.results,
            destinations=Destinations([DestinationQueue(destination=pacs)]),
            commitments=self.commitments,
            audit=RecordingAudit(),
            clock=lambda: NOW,
        ).deliver(DeliveryAttempt(smear_id=SMEAR, version=version, destination="pacs"))

    @property
    def notes(self) -> list[Dataset]:
        stored = (dcmread(path) for path in self.pacs.stored)
        return [one for one in stored if one.SOPClassUID == KEY_OBJECTS]

    @property
    def states(self) -> dict[str, DeliveryState]:
        lines = self.results.smear(SMEAR).receipts("pacs").latest().values()
        return {line.uid: line.state for line in lines}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with MockPacs(tmp_path / "pacs") as pacs:
        yield Site(tmp_path, pacs)


def rejected(note: Dataset) -> list[str]:
    """The instances in the evidence, and the same in the content."""
    evidence = [
        str(item.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    content = [
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]
    assert sorted(evidence) == sorted(content)
    return sorted(evidence)


def uids(results: Sequence[Result]) -> list[str]:
    return sorted(one.uid for one in results)


class TestNothingIsRejected:
    def test_by_a_first_report(self, site: Site) -> None:
        site.report(1, make_picture("a"))

        site.deliver(1)

        assert site.notes == []

    def test_unless_the_site_wants_it(self, site: Site) -> None:
        site.report(1, make_picture("a"))
        site.deliver(1, rejects=False)
        site.report(2, make_picture("b"))

        site.deliver(2, rejects=False)

        assert site.notes == []

    def test_that_the_new_report_still_has(self, site: Site) -> None:
        kept = make_picture("kept")
        site.report(1, kept)
        site.deliver(1)
        site.report(2, kept, make_picture("more"))

        site.deliver(2)

        assert site.notes == []

    def test_that_the_pacs_never_got(self, site: Site) -> None:
        site.report(1, make_picture("a"))
        site.report(2, make_picture("b"))

        site.deliver(2)

        assert site.notes == []

    def test_that_is_no_dicom_object(self, site: Site) -> None:
        site.report(1, make_bundle("one"))
        site.deliver(1)
        site.report(2, make_bundle("two"))

        site.deliver(2)

        assert site.notes == []

    def test_before_the_new_report_has_arrived(self, site: Site) -> None:
        site.report(1, make_picture("a"))
        site.deliver(1)
        site.report(2, make_picture("b"))

        with pytest.raises(RetryLater):
            site.deliver(2, port=1)

        assert site.notes == []
        assert set(site.states.values()) == {DeliveryState.CONFIRMED}


class TestRejection:
    def test_it_names_what_is_replaced_and_nothing_else(self, site: Site) -> None:
        old, kept = [make_picture("a"), make_picture("b")], make_picture("kept")
        site.report(1, *old, kept)
        site.deliver(1)
        site.report(2, kept, make_picture("c"))

        site.deliver(2)

        [note] = site.notes
        assert rejected(note) == uids(old)
        title = note.ConceptNameCodeSequence[0]
        assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
        assert note.ContentQualification == "RESEARCH"
        assert "RESEARCH USE ONLY" in note.SeriesDescription
        assert note.StudyInstanceUID == dcmread(site.pacs.stored[0]).StudyInstanceUID
        assert {site.states[uid] for uid in uids(old)} == {DeliveryState.REJECTED}

    def test_a_replay_sends_no_second_note(self, site: Site) -> None:
        site.report(1, make_picture("a"))
        site.deliver(1)
        site.report(2, make_picture("b"))

        for _ in range(3):
            site.deliver(2)

        assert len(site.notes) == 1

    def test_each_version_rejects_the_one_before(self, site: Site) -> None:
        versions = [[make_picture(f"{v}{n}") for n in "ab"] for v in range(1, 4)]
        for number, results in enumerate(versions, start=1):
            site.report(number, *results)
            site.deliver(number)

        assert sorted(map(rejected, site.notes)) == sorted([uids(versions[0]), uids(versions[1])])

    def test_what_two_versions_left_goes_in_one_note(self, site: Site) -> None:
        first, second = make_picture("a"), make_picture("b")
        site.report(1, first)
        site.deliver(1)
        site.report(2, first, second)
        site.deliver(2)
        site.report(3, make_picture("c"))

        site.deliver(3)

        assert [rejected(note) for note in site.notes] == [uids([first, second])]

    def test_pictures_and_documents_are_told_apart(self, site: Site) -> None:
        site.report(1, make_picture("a"), make_picture("b", kind=ResultKind.GALLERY))
        site.deliver(1)
        site.report(2, make_picture("c"))

        site.deliver(2)

        types = [item.ValueType for item in site.notes[0].ContentSequence]
        assert types == ["CODE", "CODE", "TEXT", "IMAGE", "IMAGE"]
