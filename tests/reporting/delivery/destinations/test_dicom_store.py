"""C-STORE to real pynetdicom peers on loopback, well behaved and not."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from listener.demo.mock_servers import LOOPBACK, MockPacs
from listener.storage.commitment_reports import CommitmentReports
from pipeline.errors import Defect, NeedsReview, Rejected, RetryLater
from reporting.delivery import (
    CommitmentReport,
    DeliveryPostponed,
    DeliveryRefused,
    Receipt,
    Reporter,
)
from reporting.delivery.destinations import dicom_store
from reporting.delivery.destinations.dicom_store import DicomDestination, read_commitment_report
from reporting.delivery.destinations.storage_commitment import SameAssociationReports
from reporting.delivery.destinations.transfer_syntax import transcode
from reporting.delivery.transport.tls import TlsFiles, server_context
from reporting.results import Result, ResultKind
from tests.acceptance.standins import (
    CommittingPacs,
    FaultyPacs,
    Serve,
    TcpPeer,
    closed_port,
    hangs_up,
    says_nothing,
)
from tests.certificates import make_authority
from tests.listener.house import until
from tests.reporting.delivery.labelled import make_bundle, make_picture, picture_pixels
from tests.reporting.delivery.strict_peer import strict_peer

PATIENCE_S = 0.3
"""Long enough for loopback, short enough for a test of what never answers."""
LONG_S = 60.0
"""Waited only by a test that fails."""


def destination_at(port: int, **changed: Any) -> DicomDestination:
    given = {"name": "pacs", "ae_title": "STANDIN", "host": LOOPBACK, "port": port, **changed}
    return DicomDestination(**given)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[MockPacs]:
    with MockPacs(tmp_path / "pacs") as server:
        yield server


class TestThingsThatGoWrong:
    def test_a_result_without_the_label_is_never_sent(self, pacs: MockPacs) -> None:
        unlabelled = make_picture()
        content = unlabelled.content.replace(b"RESEARCH USE", b"ROUTINE  USE")
        content = content.replace(b"RESEARCH", b"PRODUCT ")
        bad = Result(
            kind=unlabelled.kind,
            name=unlabelled.name,
            media_type=unlabelled.media_type,
            uid=unlabelled.uid,
            content=content,
        )

        with pytest.raises(Defect):
            destination_at(pacs.port).deliver([make_picture("first"), bad])

        assert pacs.stored == ()

    def test_nobody_listening_is_tried_later(self) -> None:
        with pytest.raises(RetryLater) as told:
            destination_at(closed_port()).deliver([make_picture()])

        assert told.value.code == "peer_unreachable"

    def test_a_host_without_an_address_is_tried_later(self) -> None:
        with pytest.raises(RetryLater) as told:
            destination_at(104, host="no-such-host.invalid").deliver([make_picture()])

        assert told.value.code == "peer_unknown"

    @pytest.mark.parametrize("serve", [says_nothing, hangs_up])
    def test_a_peer_that_is_not_dicom_is_tried_later(self, serve: Serve) -> None:
        with TcpPeer(serve) as peer, pytest.raises(RetryLater) as told:
            destination_at(peer.port, timeout_s=PATIENCE_S).deliver([make_picture()])

        assert told.value.code == "peer_unreachable"

    def test_a_pacs_that_takes_bytes_and_never_answers_is_tried_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dicom_store, "allow_for", _give_up_soon)
        with FaultyPacs(tmp_path, hangs=True) as pacs, pytest.raises(DeliveryPostponed) as told:
            destination_at(pacs.port).deliver([make_picture("a"), make_picture("b")])

        assert told.value.receipt == Receipt()
        assert {one.reason for one in told.value.refused} == {
            "no answer",
            "the association ended before it was sent",
        }

    def test_a_pacs_that_stops_reading_is_given_up(self) -> None:
        """More than the socket's buffers hold: only the limit on the socket can end it."""
        large = make_picture(side=2048)

        with (
            TcpPeer(_accepts_association_then_stops_reading) as peer,
            pytest.raises(DeliveryPostponed),
        ):
            destination_at(peer.port, timeout_s=PATIENCE_S).deliver([large])

    def test_a_wrong_called_title_needs_a_person(self) -> None:
        with (
            strict_peer(SecondaryCaptureImageStorage) as port,
            pytest.raises(NeedsReview) as told,
        ):
            destination_at(port, ae_title="SOMEONE").deliver([make_picture()])

        assert told.value.code == "association_rejected"
        assert "good" in told.value.message

    def test_a_peer_without_our_sop_classes_needs_a_person(self, tmp_path: Path) -> None:
        with (
            FaultyPacs(tmp_path, contexts=[build_context(Verification)]) as pacs,
            pytest.raises(NeedsReview) as told,
        ):
            destination_at(pacs.port).deliver([make_picture()])

        assert told.value.code == "contexts_refused"

    def test_unusable_tls_files_need_a_person(self, tmp_path: Path) -> None:
        absent = TlsFiles(ca_certificates=tmp_path / "absent.pem")

        with pytest.raises(DeliveryRefused) as told:
            destination_at(closed_port(), tls=absent).deliver([make_picture()])

        assert told.value.code == "tls_files"


class TestStatuses:
    def test_success(self, pacs: MockPacs) -> None:
        results = [make_picture("a"), make_picture("b")]

        receipt = destination_at(pacs.port).deliver(results)

        assert receipt == Receipt(accepted=tuple(one.uid for one in results))
        assert {path.stem for path in pacs.stored} == {one.uid for one in results}

    @pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0xB123, 0x0111])
    def test_a_warning_is_success_with_a_note(self, tmp_path: Path, status: int) -> None:
        picture = make_picture()
        with FaultyPacs(tmp_path, statuses=[status]) as pacs:
            receipt = destination_at(pacs.port).deliver([picture])

        assert receipt.accepted == (picture.uid,)
        assert f"0x{status:04X}" in receipt.warnings[0]

    @pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213])
    def test_out_of_resources_is_tried_later(self, tmp_path: Path, status: int) -> None:
        with (
            FaultyPacs(tmp_path, statuses=[status]) as pacs,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(pacs.port).deliver([make_picture("a"), make_picture("b")])

        assert told.value.receipt.accepted == (make_picture("b").uid,)
        assert [one.status for one in told.value.refused] == [f"0x{status:04X}"]

    @pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0122, 0x0124, 0x4711])
    def test_what_it_cannot_take_needs_a_person(self, tmp_path: Path, status: int) -> None:
        with (
            FaultyPacs(tmp_path, statuses=[0x0000, status]) as pacs,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(pacs.port).deliver([make_picture("a"), make_picture("b")])

        assert told.value.receipt.accepted == (make_picture("a").uid,)
        assert f"0x{status:04X}" in told.value.message

    def test_later_outweighs_review_so_that_nothing_is_parked_too_early(
        self, tmp_path: Path
    ) -> None:
        with (
            FaultyPacs(tmp_path, statuses=[0xC000, 0xA700]) as pacs,
            pytest.raises(RetryLater),
        ):
            destination_at(pacs.port).deliver([make_picture("a"), make_picture("b")])


class OutOfStepPacs(FaultyPacs):
    """Answers the n-th message as if it had been another."""

    def __init__(self, folder: Path, *, shift: int, nth: int) -> None:
        super().__init__(folder)
        self._shift, self._left = shift, nth

    def handlers(self) -> list[object]:
        return [*super().handlers(), (evt.EVT_DIMSE_RECV, self._shift_id)]

    def _shift_id(self, event: evt.Event) -> None:
        self._left -= 1
        if self._left == 0:
            event.message.command_set.MessageID += self._shift


class TestResponsesToAnotherMessage:
    @pytest.mark.parametrize("shift", [1, -1, 100])
    def test_nothing_counts_from_there_on(self, tmp_path: Path, shift: int) -> None:
        """What was answered in step stays accepted; the rest is sent again."""
        pictures = [make_picture(name) for name in ("a", "b", "c")]
        with (
            OutOfStepPacs(tmp_path, shift=shift, nth=2) as pacs,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(pacs.port).deliver(pictures)

        assert told.value.receipt.accepted == (pictures[0].uid,)
        assert [one.reason for one in told.value.refused] == [
            "the response is to another message",
            "the association ended before it was sent",
        ]


class TestWhatIsSent:
    def test_only_the_wanted_kinds(self, pacs: MockPacs) -> None:
        gallery = make_picture("g", kind=ResultKind.GALLERY)
        wanted = frozenset({ResultKind.GALLERY})

        receipt = destination_at(pacs.port, kinds=wanted).deliver(
            [make_picture("a"), gallery, make_bundle()]
        )

        assert receipt.accepted == (gallery.uid,)

    def test_nothing_wanted_opens_no_association(self) -> None:
        assert destination_at(closed_port()).deliver([make_bundle()]) == Receipt()

    def test_the_preferred_syntax_is_used(self, tmp_path: Path) -> None:
        jpeg = make_picture(syntax=JPEGBaseline8Bit)
        with FaultyPacs(tmp_path) as pacs:
            destination_at(
                pacs.port, transfer_syntaxes=(ExplicitVRLittleEndian, JPEGBaseline8Bit)
            ).deliver([jpeg])
            destination_at(
                pacs.port, transfer_syntaxes=(JPEGBaseline8Bit, ExplicitVRLittleEndian)
            ).deliver([jpeg])

        assert [syntax for _, syntax in pacs.received] == [ExplicitVRLittleEndian, JPEGBaseline8Bit]

    @pytest.mark.parametrize("only", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
    def test_a_peer_that_refuses_jpeg_gets_rgb(self, tmp_path: Path, only: str) -> None:
        jpeg = make_picture(syntax=JPEGBaseline8Bit)
        contexts = [build_context(SecondaryCaptureImageStorage, only)]
        preference = (JPEGBaseline8Bit, RLELossless, ExplicitVRLittleEndian)

        with FaultyPacs(tmp_path, contexts=contexts) as pacs:
            destination_at(pacs.port, transfer_syntaxes=preference).deliver([jpeg])
            stored = dcmread(pacs.stored[0])

        assert stored.file_meta.TransferSyntaxUID == only
        assert stored.SOPInstanceUID == jpeg.uid
        assert stored.PhotometricInterpretation == "RGB"
        assert stored.LossyImageCompression == "01"
        difference = pixel_array(stored).astype(int) - picture_pixels().astype(int)
        assert np.abs(difference).max() <= 12

    def test_uncompressed_pixels_arrive_exactly(self, pacs: MockPacs) -> None:
        destination_at(pacs.port).deliver([make_picture()])

        assert np.array_equal(pixel_array(dcmread(pacs.stored[0])), picture_pixels())

    @pytest.mark.parametrize("target", [RLELossless, JPEG2000Lossless, ImplicitVRLittleEndian])
    def test_a_lossless_syntax_keeps_every_pixel(self, target: UID) -> None:
        again = dcmread(BytesIO(transcode(make_picture().content, target)))

        assert again.file_meta.TransferSyntaxUID == target
        assert np.array_equal(pixel_array(again), picture_pixels())


@contextmanager
def listening_until_reported(pacs: CommittingPacs) -> Iterator[None]:
    """A destination lingers until the report of the PACS was answered, and no longer."""
    wait_for = SameAssociationReports.wait_for

    def until_reported(
        reports: SameAssociationReports, transaction_uid: str, uids: Sequence[str], _: float
    ) -> CommitmentReport | None:
        until(lambda: pacs.report_status)
        return wait_for(reports, transaction_uid, uids, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SameAssociationReports, "wait_for", until_reported)
        yield


class TestCommitment:
    def test_a_report_on_the_same_association_ends_it(self, tmp_path: Path) -> None:
        picture = make_picture()
        with CommittingPacs(tmp_path) as pacs:
            receipt = destination_at(
                pacs.port, storage_commitment=True, commitment_linger_s=LONG_S
            ).deliver([picture])

        transaction = str(pacs.requests[0].TransactionUID)
        assert receipt == Receipt(accepted=(picture.uid,), transaction_uid=transaction)
        assert pacs.report_status == [0x0000]

    def test_without_a_report_it_is_awaited(self, tmp_path: Path) -> None:
        picture = make_picture()
        with CommittingPacs(tmp_path, reports=False) as pacs:
            receipt = destination_at(
                pacs.port, storage_commitment=True, commitment_linger_s=0.05
            ).deliver([picture])

        assert receipt.awaits_commitment
        assert receipt.accepted == (picture.uid,)

    def test_a_report_on_a_new_association_can_be_read(self, tmp_path: Path) -> None:
        picture = make_picture()
        with (
            _report_taker() as (port, reports, arrived),
            CommittingPacs(tmp_path, report_to=(LOOPBACK, port)) as pacs,
        ):
            receipt = destination_at(
                pacs.port, storage_commitment=True, commitment_linger_s=0.0
            ).deliver([picture])
            assert arrived.wait(60)

        assert reports == [
            CommitmentReport(
                transaction_uid=receipt.transaction_uid, committed=(picture.uid,), failed=()
            )
        ]

    def test_what_is_not_kept_is_sent_again(self, tmp_path: Path) -> None:
        kept, lost = make_picture("kept"), make_picture("lost")
        with (
            CommittingPacs(tmp_path, refuses={lost.uid: 0x0112}) as pacs,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(pacs.port, storage_commitment=True, commitment_linger_s=LONG_S).deliver(
                [kept, lost]
            )

        assert told.value.receipt.accepted == (kept.uid,)
        assert [one.uid for one in told.value.refused] == [lost.uid]

    @pytest.mark.parametrize("named", [["a"], ["a", "c"], []])
    def test_what_a_report_does_not_name_is_still_awaited(
        self, tmp_path: Path, named: list[str]
    ) -> None:
        pictures = {name: make_picture(name) for name in ("a", "b", "c")}
        wanted = {pictures[name].uid for name in named}
        ledger = CommitmentReports(tmp_path / "ledger")
        with CommittingPacs(tmp_path, names=[wanted]) as pacs, listening_until_reported(pacs):
            receipt = destination_at(pacs.port, storage_commitment=True, ledger=ledger).deliver(
                list(pictures.values())
            )

        assert receipt.accepted == tuple(one.uid for one in pictures.values())
        assert set(receipt.awaiting) == set(receipt.accepted) - wanted
        ledger.keep(
            CommitmentReport(transaction_uid=receipt.transaction_uid, committed=receipt.awaiting),
            destinations=["pacs"],
        )

    def test_reports_on_single_instances_are_added_up(self, tmp_path: Path) -> None:
        pictures = [make_picture(name) for name in ("a", "b", "c")]
        ledger = CommitmentReports(tmp_path / "ledger")
        with CommittingPacs(tmp_path, names=[{one.uid} for one in pictures]) as pacs:
            receipt = destination_at(
                pacs.port, storage_commitment=True, commitment_linger_s=LONG_S, ledger=ledger
            ).deliver(pictures)

        assert receipt.accepted == tuple(one.uid for one in pictures)
        assert not receipt.awaits_commitment
        assert list((tmp_path / "ledger").iterdir()) == []

    def test_instances_that_were_never_sent_are_not_believed(self, tmp_path: Path) -> None:
        picture = make_picture()
        with (
            CommittingPacs(tmp_path, names=[set()], also=["1.2.3.4"]) as pacs,
            listening_until_reported(pacs),
        ):
            receipt = destination_at(pacs.port, storage_commitment=True).deliver([picture])

        assert receipt.awaiting == receipt.accepted == (picture.uid,)

    def test_a_failure_beside_unnamed_instances(self, tmp_path: Path) -> None:
        lost, unnamed = make_picture("lost"), make_picture("unnamed")
        with (
            CommittingPacs(tmp_path, refuses={lost.uid: 0x0112}, names=[{lost.uid}]) as pacs,
            listening_until_reported(pacs),
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(pacs.port, storage_commitment=True).deliver([lost, unnamed])

        assert told.value.receipt.awaiting == told.value.receipt.accepted == (unnamed.uid,)
        assert [one.uid for one in told.value.refused] == [lost.uid]

    def test_a_request_that_is_not_taken_stays_open(self, tmp_path: Path) -> None:
        with CommittingPacs(tmp_path, action_status=0x0110) as pacs:
            receipt = destination_at(pacs.port, storage_commitment=True).deliver([make_picture()])

        assert receipt.awaits_commitment
        assert "0x0110" in receipt.warnings[0]

    def test_a_duplicate_transaction_is_under_way(self, tmp_path: Path) -> None:
        with CommittingPacs(tmp_path, action_status=0x0131) as pacs:
            receipt = destination_at(
                pacs.port, storage_commitment=True, commitment_linger_s=0.05
            ).deliver([make_picture()])

        assert receipt.awaits_commitment
        assert receipt.warnings == ()

    def test_asking_again_is_another_transaction(self, tmp_path: Path) -> None:
        picture = make_picture()
        with CommittingPacs(tmp_path) as pacs:
            destination = destination_at(
                pacs.port, storage_commitment=True, commitment_linger_s=LONG_S
            )
            first = destination.deliver([picture])
            second = destination.request_commitment([picture])

        assert not second.awaits_commitment
        assert first.transaction_uid != second.transaction_uid

    def test_asking_a_peer_that_never_commits_is_tried_later(self, pacs: MockPacs) -> None:
        with pytest.raises(RetryLater) as told:
            destination_at(pacs.port, storage_commitment=True).request_commitment([make_picture()])

        assert told.value.code == "commitment_not_requested"

    def test_a_report_without_a_transaction_is_rejected(self) -> None:
        with pytest.raises(Rejected):
            read_commitment_report(Dataset())


class TestReporter:
    def made(self, **changed: Any) -> DicomDestination:
        return destination_at(104, **{"host": "localhost", "storage_commitment": True, **changed})

    @pytest.mark.parametrize(
        "reporter",
        [
            Reporter(ae_title="STANDIN", address="127.0.0.1"),
            Reporter(ae_title=" STANDIN ", address="127.0.0.1"),
            Reporter(ae_title="STANDIN", address="::ffff:127.0.0.1"),
            Reporter(ae_title="STANDIN", address="192.0.2.7", is_bound=True),
        ],
    )
    def test_it_is_known_by_title_and_address_or_by_title_and_binding(
        self, reporter: Reporter
    ) -> None:
        assert self.made().is_reporter(reporter)

    @pytest.mark.parametrize(
        "reporter",
        [
            Reporter(ae_title="STRANGER", address="127.0.0.1"),
            Reporter(ae_title="standin", address="127.0.0.1"),
            Reporter(ae_title="STANDIN2", address="127.0.0.1"),
            Reporter(ae_title="", address="127.0.0.1"),
            Reporter(ae_title="STRANGER", address="127.0.0.1", is_bound=True),
            Reporter(ae_title="STANDIN", address="192.0.2.7"),
            Reporter(ae_title="STANDIN", address="127.0.0.2"),
            Reporter(ae_title="STANDIN", address=""),
            Reporter(ae_title="STANDIN", address="localhost"),
            Reporter(ae_title="STANDIN", address="::2"),
        ],
    )
    def test_anybody_else_is_a_stranger(self, reporter: Reporter) -> None:
        assert not self.made().is_reporter(reporter)

    def test_nobody_reports_for_a_destination_that_does_not_commit(self) -> None:
        reporter = Reporter(ae_title="STANDIN", address="127.0.0.1")

        assert not self.made(storage_commitment=False).is_reporter(reporter)

    def test_nobody_reports_for_a_host_without_an_address(self) -> None:
        reporter = Reporter(ae_title="STANDIN", address="127.0.0.1")

        assert not self.made(host="no-such-host.invalid").is_reporter(reporter)


def test_check_says_that_the_peer_answers(pacs: MockPacs) -> None:
    assert "answers C-ECHO" in destination_at(pacs.port).check()


def _give_up_soon(association: Association, _timeout_s: float, _size_bytes: int) -> None:
    association.dimse_timeout = PATIENCE_S


def _accepts_association_then_stops_reading(connection: socket.socket) -> None:
    """Plays the acceptor by hand: an A-ASSOCIATE-AC for every context, then silence."""
    head = connection.recv(6, socket.MSG_WAITALL)
    body = connection.recv(struct.unpack(">I", head[2:6])[0], socket.MSG_WAITALL)
    identifiers = [
        body[at + 4]
        for at in range(68, len(body) - 4)
        if body[at] == 0x20 and body[at + 1] == 0 and body[at + 8 : at + 9] == b"\x30"
    ]
    syntax = b"1.2.840.10008.1.2.1"
    sub_item = b"\x40\x00" + struct.pack(">H", len(syntax)) + syntax
    contexts = b"".join(
        b"\x21\x00" + struct.pack(">H", 4 + len(sub_item)) + bytes([one, 0, 0, 0]) + sub_item
        for one in identifiers
    )
    application = b"1.2.840.10008.3.1.1.1"
    user = b"\x51\x00\x00\x04" + struct.pack(">I", 16384)
    uid = b"1.2.3"
    user += b"\x52\x00" + struct.pack(">H", len(uid)) + uid
    answer = (
        body[:68]
        + b"\x10\x00"
        + struct.pack(">H", len(application))
        + application
        + contexts
        + b"\x50\x00"
        + struct.pack(">H", len(user))
        + user
    )
    connection.sendall(b"\x02\x00" + struct.pack(">I", len(answer)) + answer)


@contextmanager
def _report_taker() -> Iterator[tuple[int, list[CommitmentReport], threading.Event]]:
    """Our listener's part: takes an N-EVENT-REPORT on an association that the PACS opens."""
    reports: list[CommitmentReport] = []
    arrived = threading.Event()

    def take(event: evt.Event) -> tuple[int, None]:
        reports.append(read_commitment_report(event.event_information))
        arrived.set()
        return 0x0000, None

    entity = AE(ae_title="SMEARLINK")
    entity.add_supported_context(StorageCommitmentPushModel)
    server = entity.start_server(
        (LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)]
    )
    try:
        yield server.server_address[1], reports, arrived
    finally:
        server.shutdown()


class TestTls:
    def test_both_ends_show_certificates(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        context = server_context(authority.issue("pacs"), require_client_certificate=True)

        with _tls_server(context) as port:
            destination = destination_at(port, host="localhost", tls=authority.issue("smearlink"))

            assert destination.deliver([make_picture()]).accepted == (make_picture().uid,)

    def test_a_pacs_of_an_unknown_authority_gets_nothing(self, tmp_path: Path) -> None:
        ours, theirs = make_authority(tmp_path / "ours"), make_authority(tmp_path / "theirs")
        context = server_context(theirs.issue("pacs"), require_client_certificate=False)
        trusting = TlsFiles(ca_certificates=ours.ca_certificates)

        with _tls_server(context) as port, pytest.raises(RetryLater) as told:
            destination_at(port, host="localhost", tls=trusting).deliver([make_picture()])

        assert told.value.code == "tls_failed"
        assert "TLS" in told.value.message

    def test_a_pacs_without_tls_is_a_tls_failure(self, tmp_path: Path, pacs: MockPacs) -> None:
        tls = TlsFiles(ca_certificates=make_authority(tmp_path / "ca").ca_certificates)

        with pytest.raises(RetryLater) as told:
            destination_at(pacs.port, host="localhost", tls=tls).deliver([make_picture()])

        assert told.value.code == "tls_failed"

    def test_a_certificate_of_another_host_is_a_tls_failure(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        context = server_context(authority.issue("pacs"), require_client_certificate=False)

        with _tls_server(context) as port, pytest.raises(RetryLater) as told:
            destination_at(port, host="127.1", tls=authority.issue("smearlink")).deliver(
                [make_picture()]
            )

        assert told.value.code == "tls_failed"

    def test_a_pacs_that_wants_another_certificate_is_a_tls_failure(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        context = server_context(authority.issue("pacs"), require_client_certificate=True)
        nameless = TlsFiles(ca_certificates=authority.ca_certificates)

        with _tls_server(context) as port, pytest.raises(RetryLater) as told:
            destination_at(port, host="localhost", tls=nameless).deliver([make_picture()])

        assert told.value.code == "tls_failed"

    def test_nobody_listening_is_no_tls_failure(self, tmp_path: Path) -> None:
        tls = make_authority(tmp_path).issue("smearlink")

        with pytest.raises(RetryLater) as told:
            destination_at(closed_port(), host="localhost", tls=tls).deliver([make_picture()])

        assert told.value.code == "peer_unreachable"


@contextmanager
def _tls_server(context: ssl.SSLContext) -> Iterator[int]:
    entity = AE(ae_title="STANDIN")
    entity.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    server = entity.start_server(
        (LOOPBACK, 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)],
    )
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
