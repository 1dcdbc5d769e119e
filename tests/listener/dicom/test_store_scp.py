"""Whatever goes wrong with an image or a report has a status, and an event that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

from listener.dicom.ae_title_access import Caller
from listener.dicom.dimse import Command, CommandField, Status
from listener.dicom.reception import Answer, status_of
from listener.dicom.store_scp import StoreScp
from listener.dicom.upper_layer import AssociationEnded, ConnectionLost
from listener.storage.inbox import Inbox, StoredInstance
from pipeline.errors import Defect, NeedsReview, Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import Event, Outcome
from reporting.delivery import CommitmentReport, Reporter
from reporting.delivery.destinations.storage_commitment import EVENT_SUCCESSFUL
from tests.builders import build_image, dataset_bytes
from tests.fakes import RecordingAudit

CALLER = Caller(ae_title="DEVICE", address="127.0.0.1", certificate_subject="")
IMAGE = build_image()


def store_request(uid: str = IMAGE.SOPInstanceUID, sop_class: str = IMAGE.SOPClassUID) -> Command:
    return Command(
        field=CommandField.C_STORE_RQ,
        message_id=1,
        has_dataset=True,
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        event_type_id=0,
    )


def report_request(event_type_id: int = EVENT_SUCCESSFUL) -> Command:
    return Command(
        field=CommandField.N_EVENT_REPORT_RQ,
        message_id=1,
        has_dataset=True,
        sop_class_uid="1.2.840.10008.1.20.1",
        sop_instance_uid="1.2.840.10008.1.20.1.1",
        event_type_id=event_type_id,
    )


def report() -> Dataset:
    committed = Dataset()
    committed.ReferencedSOPClassUID = IMAGE.SOPClassUID
    committed.ReferencedSOPInstanceUID = IMAGE.SOPInstanceUID
    dataset = Dataset()
    dataset.TransactionUID = "1.2.3"
    dataset.ReferencedSOPSequence = [committed]
    return dataset


@pytest.fixture
def audit() -> RecordingAudit:
    return RecordingAudit()


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


def make_receiver(
    inbox: Inbox,
    audit: RecordingAudit,
    *,
    on_received: Callable[[StoredInstance], None] = lambda _: None,
    on_commitment: Callable[[Reporter, CommitmentReport], None] | None = None,
    may_report: Callable[[Reporter], bool] = lambda _: True,
    bound_aes: frozenset[str] = frozenset(),
) -> StoreScp:
    return StoreScp(
        inbox,
        audit,
        caller=CALLER,
        on_received=on_received,
        on_commitment=on_commitment,
        may_report=may_report,
        bound_aes=bound_aes,
    )


def offered(receiver: StoreScp, command: Command, *pieces: bytes) -> Answer:
    return receiver.store(command, ExplicitVRLittleEndian, map(memoryview, pieces))


def reported(receiver: StoreScp, command: Command, dataset: Dataset) -> Answer:
    return receiver.refuse_report(command) or receiver.report_commitment(dataset)


class FullDisk(RecordingAudit):
    """A trail that cannot be written."""

    def record(self, event: Event, **_: Any) -> None:
        raise RetryLater("No room for the audit trail", code="disk_full")


# --- what goes wrong


def test_an_audit_trail_that_cannot_be_written_takes_no_answer_away(inbox: Inbox) -> None:
    told: list[StoredInstance] = []
    receiver = make_receiver(inbox, FullDisk(), on_received=told.append)

    kept = offered(receiver, store_request(), dataset_bytes(IMAGE))
    receiver.stored()
    torn = offered(receiver, store_request("1.2.3"), dataset_bytes(IMAGE)[:1000])
    unwanted = reported(receiver, report_request(), report())

    assert kept.status is Status.SUCCESS
    assert [one.sop_instance_uid for one in told] == list(inbox.waiting())
    assert torn.status is Status.CANNOT_UNDERSTAND
    assert unwanted.status is Status.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("err", "status"),
    [
        (Rejected("no", code="invalid_uid"), 0x0117),
        (Rejected("no", code="sop_class_not_supported"), 0x0122),
        (Rejected("no", code="missing_uid"), 0xA900),
        (Rejected("no", code="uid_mismatch"), 0xA900),
        (Rejected("no", code="sop_class_mismatch"), 0xA900),
        (Rejected("no", code="object_too_large"), 0xC010),
        (Rejected("no", code="conflicting_duplicate"), 0xC011),
        (Rejected("no", code="never heard of"), 0xC000),
        (RetryLater("no", code="disk_full"), 0xA700),
        (NeedsReview("no", code="database_damaged"), 0x0110),
        (Defect("no", code="facts_too_long"), 0x0110),
    ],
)
def test_each_error_has_the_status_that_says_what_to_do(err: SmearlinkError, status: int) -> None:
    assert status_of(err) == status


def _never_read() -> Iterator[memoryview]:
    pytest.fail("a byte was read")


def test_a_class_that_is_not_analysed_is_refused_before_a_byte_is_read(
    inbox: Inbox, audit: RecordingAudit
) -> None:
    def unread() -> Iterator[memoryview]:
        yield from _never_read()

    answer = make_receiver(inbox, audit).store(
        store_request(sop_class=VLWholeSlideMicroscopyImageStorage),
        ExplicitVRLittleEndian,
        unread(),
    )

    assert answer.status is Status.SOP_CLASS_NOT_SUPPORTED
    assert "single smear fields" in answer.comment


def test_what_is_no_uid_is_refused_and_not_written_down(
    inbox: Inbox, audit: RecordingAudit
) -> None:
    answer = offered(make_receiver(inbox, audit), store_request("../Doe^Jane"), b"")

    (refusal,) = audit.of(Event.IMAGE_REFUSED)
    assert answer.status is Status.INVALID_SOP_INSTANCE
    assert refusal.fields["code"] == "invalid_uid"
    assert "Doe" not in repr(refusal)


def test_a_fault_of_our_own_is_a_serious_failure_and_tells_the_peer_nothing(
    inbox: Inbox, audit: RecordingAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr(inbox, "receive", fails)

    answer = offered(make_receiver(inbox, audit), store_request(), dataset_bytes(IMAGE))

    (refusal,) = audit.of(Event.IMAGE_REFUSED)
    assert answer == Answer(status=Status.PROCESSING_FAILURE, comment="Internal fault; send again")
    assert refusal.outcome is Outcome.SERIOUS_FAILURE
    assert (refusal.fields["code"], refusal.fields["error_type"]) == ("defect", "ValueError")
    assert "Doe" not in repr(refusal)


def test_a_peer_that_is_lost_within_an_image_leaves_nothing_and_is_not_answered(
    inbox: Inbox, audit: RecordingAudit, tmp_path: Path
) -> None:
    def breaks_off() -> Iterator[memoryview]:
        yield memoryview(dataset_bytes(IMAGE)[:1000])
        raise ConnectionLost("gone", code="peer_gone")

    receiver = make_receiver(inbox, audit)
    with pytest.raises(AssociationEnded):
        receiver.store(store_request(), ExplicitVRLittleEndian, breaks_off())

    assert list(inbox.waiting()) == []
    assert list((tmp_path / "inbox" / "tmp").iterdir()) == []
    assert receiver.firsts == {}


def test_a_queue_that_fails_is_recorded_and_harms_nobody(
    inbox: Inbox, audit: RecordingAudit
) -> None:
    def fails(_: StoredInstance) -> None:
        raise RuntimeError("database is locked: Doe^Jane")

    receiver = make_receiver(inbox, audit, on_received=fails)
    answer = offered(receiver, store_request(), dataset_bytes(IMAGE))
    receiver.stored()

    (defect,) = audit.of(Event.DEFECT_MET)
    assert answer.status is Status.SUCCESS
    assert (defect.fields["step"], defect.fields["error_type"]) == ("announce", "RuntimeError")
    assert "Doe" not in repr(defect)
    assert list(inbox.waiting()) == [IMAGE.SOPInstanceUID]


class TestReportsThatAreRefused:
    def refused(self, audit: RecordingAudit) -> dict[str, object]:
        (refusal,) = audit.of(Event.REQUEST_REFUSED)
        return refusal.fields

    def test_where_nobody_waits_for_any(self, inbox: Inbox, audit: RecordingAudit) -> None:
        answer = reported(make_receiver(inbox, audit), report_request(), report())

        assert answer.status is Status.NOT_AUTHORIZED
        assert self.refused(audit)["status"] == "0x0124"

    @pytest.mark.parametrize("event_type_id", [0, 3, 65535])
    def test_of_an_event_that_the_standard_does_not_know(
        self, inbox: Inbox, audit: RecordingAudit, event_type_id: int
    ) -> None:
        reports: list[CommitmentReport] = []
        receiver = make_receiver(inbox, audit, on_commitment=lambda _, it: reports.append(it))

        answer = reported(receiver, report_request(event_type_id), report())

        assert answer.status is Status.NO_SUCH_EVENT_TYPE
        assert reports == []

    def test_that_name_nothing(self, inbox: Inbox, audit: RecordingAudit) -> None:
        reports: list[CommitmentReport] = []
        receiver = make_receiver(inbox, audit, on_commitment=lambda _, it: reports.append(it))

        answer = reported(receiver, report_request(), Dataset())

        assert answer.status is Status.INVALID_ARGUMENT
        assert reports == []

    def test_of_a_peer_that_has_no_right_to_report(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        reports: list[CommitmentReport] = []
        receiver = make_receiver(
            inbox,
            audit,
            on_commitment=lambda _, it: reports.append(it),
            may_report=lambda reporter: reporter.is_bound,
        )

        refusal = receiver.refuse_report(report_request())

        assert refusal is not None
        assert refusal.status is Status.NOT_AUTHORIZED
        assert reports == []

    @pytest.mark.parametrize(
        ("code", "status"),
        [("commitment_not_authorized", "0x0124"), ("commitment_unknown", "0x0115")],
    )
    def test_that_the_ledger_refuses(
        self, inbox: Inbox, audit: RecordingAudit, code: str, status: str
    ) -> None:
        def refuse(_: Reporter, __: CommitmentReport) -> None:
            raise Rejected("no", code=code)

        answer = reported(
            make_receiver(inbox, audit, on_commitment=refuse), report_request(), report()
        )

        refused = self.refused(audit)
        assert f"0x{answer.status:04X}" == refused["status"] == status
        assert refused["code"] == code

    def test_that_cannot_be_kept(self, inbox: Inbox, audit: RecordingAudit) -> None:
        """The PACS hears of it, and reports again (PS3.4 J.3.3)."""

        def full(_: Reporter, __: CommitmentReport) -> None:
            raise RetryLater("the disk is full", code="disk_full")

        answer = reported(
            make_receiver(inbox, audit, on_commitment=full), report_request(), report()
        )

        assert answer.status is Status.PROCESSING_FAILURE
        assert self.refused(audit)["error_type"] == "RetryLater"


# --- what goes well


def test_an_image_is_announced_once_its_sender_need_not_wait(
    inbox: Inbox, audit: RecordingAudit
) -> None:
    told: list[str] = []
    receiver = make_receiver(
        inbox, audit, on_received=lambda image: told.append(image.sop_instance_uid)
    )

    offered(receiver, store_request(), dataset_bytes(IMAGE))
    before = list(told)
    receiver.stored()
    receiver.stored()

    assert before == []
    assert told == [IMAGE.SOPInstanceUID]
    assert [one.series_uid for one in receiver.firsts.values()] == [IMAGE.SeriesInstanceUID]


def test_a_report_is_passed_on(inbox: Inbox, audit: RecordingAudit) -> None:
    reports: list[tuple[Reporter, CommitmentReport]] = []
    receiver = make_receiver(
        inbox,
        audit,
        on_commitment=lambda reporter, it: reports.append((reporter, it)),
        bound_aes=frozenset({CALLER.ae_title}),
    )

    answer = reported(receiver, report_request(), report())

    ((reporter, kept),) = reports
    assert answer.status is Status.SUCCESS
    assert kept.committed == (IMAGE.SOPInstanceUID,)
    assert reporter == Reporter(ae_title=CALLER.ae_title, address=CALLER.address, is_bound=True)
    assert audit.events == []


def test_word_that_arrives_needs_no_event(inbox: Inbox, audit: RecordingAudit) -> None:
    told: list[StoredInstance] = []
    receiver = make_receiver(inbox, audit, on_received=told.append)
    offered(receiver, store_request(), dataset_bytes(IMAGE))
    receiver.stored()
    before = list(audit.events)

    assert before == [Event.IMAGE_RECEIVED]
    assert len(told) == 1
