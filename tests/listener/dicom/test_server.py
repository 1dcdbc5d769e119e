"""The listener on loopback: bad peers first, then what every honest one may rely on."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from listener.dicom import association_slots
from listener.storage.filesystem import LocalDisk
from listener.storage.inbox import Inbox, InboxLimits, StoredInstance
from pipeline.errors import RetryLater
from reporting.audit.trail import Event
from reporting.delivery import CommitmentReport, Reporter
from tests.builders import (
    PHI_TEXTS,
    build_image,
    dataset_bytes,
    every_kind,
    with_patient,
)
from tests.certificates import make_authority
from tests.fakes import RecordingAudit
from tests.listener.house import until
from tests.listener.peers import (
    PATIENCE_S,
    RawPeer,
    ask,
    association_request,
    listening,
    pdu,
    store,
    store_command,
    stored_bytes,
)

ABORT, REJECT, GONE = 7, 3, 0


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


@pytest.fixture
def audit() -> RecordingAudit:
    return RecordingAudit()


class TestHostilePeers:
    """Whatever a peer says, it is answered or hung up on, and the next one is served."""

    @pytest.mark.parametrize(
        "junk",
        [
            b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
            bytes(64),
            b"\x01\x00\xff\xff\xff\xff" + bytes(64),
            b"\x04\x00\x00\x00\x00\x06" + bytes(6),
            b"\x05\x00\x00\x00\x00\x04" + bytes(4),
            b"\x01\x00\x00\x00\x00\x10" + bytes(16),
            b"\x01\x00\x00\x00\x00\x50" + b"\xff" * 80,
        ],
        ids=["http", "zeros", "4-gb-request", "data", "release", "short-request", "noise"],
    )
    def test_junk_instead_of_a_request_is_aborted(self, inbox: Inbox, junk: bytes) -> None:
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.say(junk)

            kind, _ = peer.hear()

            assert kind == ABORT

    @pytest.mark.parametrize("said", [b"", b"\x01", b"\x01\x00\x00\x00\x01\x00" + bytes(80)])
    def test_a_peer_that_stops_in_its_request_is_hung_up_on(
        self, inbox: Inbox, said: bytes
    ) -> None:
        with listening(inbox, acse_timeout_s=0.1) as listener, RawPeer(listener.port) as peer:
            peer.say(said)

            kind, _ = peer.hear()

            assert kind in (ABORT, GONE)

    def test_half_open_connections_take_no_slot(self, inbox: Inbox) -> None:
        with listening(inbox, max_associations=1) as listener:
            strangers = [RawPeer(listener.port) for _ in range(80)]
            for stranger in strangers:
                stranger.say(association_request(SecondaryCaptureImageStorage)[:20])

            responses = store(listener.port, build_image())

            assert responses[0].Status == 0x0000
            for stranger in strangers:
                stranger.sock.close()

    def test_a_pdu_longer_than_announced_is_aborted(self, inbox: Inbox) -> None:
        with listening(inbox, max_pdu_bytes=16384) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(pdu(bytes(60_000_000)[:20000]))

            kind, body = peer.hear()

            assert (kind, body[3]) == (ABORT, 6)

    @pytest.mark.parametrize(
        "message",
        [
            pdu(b"\xff" * 40, is_command=True),
            pdu(b"\x00\x00\x00\x01\xff\xff\xff\xff", is_command=True),
            pdu(bytes(20_000), is_command=True),
            pdu(b"dataset without a command"),
            pdu(b"", is_command=True, context_id=99),
            b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\xff\x01\x03\x00\x00",
            b"\x01\x00\x00\x00\x00\x04\x00\x00\x00\x00",
            b"\x99\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        ],
        ids=[
            "noise",
            "torn-element",
            "huge-command",
            "dataset-first",
            "unknown-context",
            "value-longer-than-pdu",
            "second-request",
            "unknown-pdu",
        ],
    )
    def test_a_malformed_message_is_aborted(self, inbox: Inbox, message: bytes) -> None:
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(message)

            kind, _ = peer.hear()

            assert kind == ABORT

    def test_a_dataset_without_end_is_cut_off(self, tmp_path: Path) -> None:
        inbox = Inbox(tmp_path, limits=InboxLimits(max_object_bytes=2**20))
        with listening(inbox, max_object_mb=1) as listener, RawPeer(listener.port) as peer:
            image = build_image()
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(pdu(store_command(image), is_command=True))
            with suppress(ConnectionError):  # the abort may have come, and the end after it
                for _ in range(3 * 8 + 1):
                    peer.say(pdu(bytes(120_000), is_last=False))

            kind, _ = peer.hear()

            assert kind == ABORT
            assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_peer_silent_within_a_message_is_hung_up_on(self, inbox: Inbox) -> None:
        with listening(inbox, dimse_timeout_s=0.1) as listener, RawPeer(listener.port) as peer:
            image = build_image()
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(pdu(store_command(image), is_command=True))
            peer.say(pdu(dataset_bytes(image)[:1000], is_last=False))

            kind, _ = peer.hear()

            assert kind in (ABORT, GONE)
            assert list(inbox.waiting()) == []

    def test_a_silent_tls_peer_blocks_nobody(self, inbox: Inbox, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        files = authority.issue("listener")
        tls = {
            "enabled": True,
            "certificate": files.certificate,
            "private_key": files.private_key,
            "require_client_certificate": False,
        }
        client = ssl.create_default_context(cafile=str(files.ca_certificates))
        with listening(inbox, tls=tls) as listener, RawPeer(listener.port):
            association = ask(listener.port, tls_args=(client, "127.0.0.1"))

            assert association.is_established
            assert association.send_c_echo().Status == 0x0000
            association.release()

    def test_old_tls_is_not_spoken(self, inbox: Inbox, tmp_path: Path) -> None:
        files = make_authority(tmp_path).issue("listener")
        tls = {
            "enabled": True,
            "certificate": files.certificate,
            "private_key": files.private_key,
            "require_client_certificate": False,
        }
        client = ssl.create_default_context(cafile=str(files.ca_certificates))
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.maximum_version = ssl.TLSVersion.TLSv1_1
        client.set_ciphers("ALL:@SECLEVEL=0")
        with (
            listening(inbox, tls=tls) as listener,
            RawPeer(listener.port) as peer,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            client.wrap_socket(peer.sock, server_hostname="127.0.0.1")


class TestWhoMayCall:
    def test_an_unknown_called_ae_is_rejected_with_reason_7(self, inbox: Inbox) -> None:
        with listening(inbox) as listener:
            association = ask(listener.port, called="ELSEWHERE")

            assert association.is_rejected
            assert _rejection(association) == (1, 1, 7)

    def test_a_calling_ae_not_on_the_list_is_rejected_with_reason_3(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        with listening(inbox, audit, allowed_calling_aes=["SCOPE1"]) as listener:
            association = ask(listener.port, calling="STRANGER")
            welcome = ask(listener.port, calling="SCOPE1")

            assert _rejection(association) == (1, 1, 3)
            assert welcome.is_established
            welcome.release()
        assert [one.fields["code"] for one in audit.of(Event.ASSOCIATION_REJECTED)] == [
            "calling_ae_unknown"
        ]

    def test_an_ae_tied_to_another_address_is_rejected(self, inbox: Inbox) -> None:
        peers = [
            {"ae_title": "SCOPE1", "addresses": ["10.0.0.0/8"]},
            {"ae_title": "SCOPE2", "addresses": ["127.0.0.0/8"]},
        ]
        with listening(inbox, peer=peers) as listener:
            elsewhere = ask(listener.port, calling="SCOPE1")
            here = ask(listener.port, calling="SCOPE2")

            assert elsewhere.is_rejected
            assert here.is_established
            here.release()

    def test_an_ae_tied_to_a_certificate_must_show_it(self, inbox: Inbox, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        files = authority.issue("listener")
        settings: dict[str, Any] = {
            "tls": {
                "enabled": True,
                "certificate": files.certificate,
                "private_key": files.private_key,
                "ca_certificates": files.ca_certificates,
            },
            "peer": [{"ae_title": "SCOPE1", "certificate_subject": "CN=scope1"}],
        }
        with listening(inbox, **settings) as listener:
            established = {}
            for name in ("scope1", "scope2"):
                shown = authority.issue(name)
                client = ssl.create_default_context(cafile=str(files.ca_certificates))
                client.load_cert_chain(str(shown.certificate), str(shown.private_key))
                association = ask(listener.port, calling="SCOPE1", tls_args=(client, "127.0.0.1"))
                established[name] = association.is_established
                association.release() if association.is_established else None

        assert established == {"scope1": True, "scope2": False}

    def test_one_association_too_many_is_rejected_for_now(self, inbox: Inbox) -> None:
        with listening(inbox, max_associations=1) as listener, RawPeer(listener.port) as second:
            first = ask(listener.port)
            second.say(association_request(SecondaryCaptureImageStorage))
            kind, body = second.hear()
            first.release()

            assert (kind, *body[1:]) == (REJECT, 2, 3, 2)

    def test_a_slot_is_free_again_when_a_peer_vanishes(self, inbox: Inbox) -> None:
        ended = threading.Event()

        class Watching(RecordingAudit):
            def record(self, event: Event, **_: Any) -> None:
                ended.set()

        with listening(inbox, Watching(), max_associations=1) as listener:
            with RawPeer(listener.port) as peer:
                peer.associate(SecondaryCaptureImageStorage)
            assert ended.wait(PATIENCE_S)
            responses = _until_welcome(listener.port)

            assert responses[0].Status == 0x0000

    def test_ten_associations_at_once_are_all_served(self, inbox: Inbox) -> None:
        images = [build_image(number=number) for number in range(1, 31)]
        with listening(inbox) as listener, ThreadPoolExecutor(10) as devices:
            answers = list(
                devices.map(lambda number: store(listener.port, *images[number::10]), range(10))
            )

        assert {answer.Status for some in answers for answer in some} == {0x0000}
        assert set(inbox.waiting()) == {image.SOPInstanceUID for image in images}


def _rejection(association: Association) -> tuple[int | None, int | None, int | None]:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    answer = association.acceptor.primitive
    assert answer is not None
    return answer.result, answer.result_source, answer.diagnostic


def _until_welcome(port: int) -> list[Dataset]:
    """The slot is given back just after the audit event."""
    while True:
        association = ask(port, (SecondaryCaptureImageStorage, ExplicitVRLittleEndian))
        if association.is_established:
            break
    responses = [association.send_c_store(build_image())]
    association.release()
    return responses


class TestBadImages:
    """Each gets the status of PS3.4 B.2.3 or PS3.7 9.1.1.1.9, an audit event, and no file."""

    @pytest.mark.parametrize(
        "uid",
        ["../../../tmp/x", "1.2.3/../../x", "1.2.3\\4", "1..2", "x" * 64, "1" * 65],
    )
    def test_a_uid_that_is_a_path_or_none_at_all(self, inbox: Inbox, uid: str) -> None:
        image = build_image()
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.store(image, command=store_command(image, uid=uid), data=dataset_bytes(image))

            assert peer.hear_status() == 0x0117
        assert list(inbox.waiting()) == []

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            ({"SOPInstanceUID": "1.2.3.4"}, 0xA900),
            ({"SOPInstanceUID": "../../x"}, 0xA900),
            ({"SOPClassUID": CTImageStorage}, 0xA900),
            ({"StudyInstanceUID": None}, 0xA900),
            ({"SeriesInstanceUID": ""}, 0xA900),
        ],
    )
    def test_a_dataset_that_is_not_what_the_command_says(
        self, inbox: Inbox, audit: RecordingAudit, change: dict[str, str], status: int
    ) -> None:
        command, image = store_command(build_image()), build_image()
        for keyword, value in change.items():
            setattr(image, keyword, value)
        with listening(inbox, audit) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.store(image, command=command, data=dataset_bytes(image))

            assert peer.hear_status() == status
        assert list(inbox.waiting()) == []
        assert [one.fields["status"] for one in audit.of(Event.IMAGE_REFUSED)] == ["0xA900"]

    @pytest.mark.parametrize("kept", [0, 7, 400, -1])
    def test_a_dataset_that_breaks_off(self, inbox: Inbox, kept: int) -> None:
        image = build_image()
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.store(image, data=dataset_bytes(image)[:kept])

            # an empty one lacks its UIDs, which is a mismatch
            assert peer.hear_status() == (0xA900 if kept == 0 else 0xC000)
        assert list(inbox.waiting()) == []

    def test_garbage_instead_of_a_dataset(self, inbox: Inbox) -> None:
        image = build_image()
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.store(image, data=bytes(range(256)) * 100)

            assert peer.hear_status() == 0xC000

    def test_an_image_over_the_limit(self, tmp_path: Path) -> None:
        inbox = Inbox(tmp_path, limits=InboxLimits(max_object_bytes=20_000))
        with listening(inbox) as listener:
            responses = store(listener.port, build_image(), build_image(number=2))

        assert [response.Status for response in responses] == [0xC010, 0xC010]

    def test_a_deflate_bomb(self, tmp_path: Path) -> None:
        bomb = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian)
        bomb.PixelData = bytes(4_000_000)
        inbox = Inbox(tmp_path, limits=InboxLimits(max_object_bytes=1_000_000))
        with listening(inbox) as listener:
            responses = store(listener.port, bomb)

        assert responses[0].Status == 0xC010
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_whole_slide_image_is_refused_in_words(self, inbox: Inbox) -> None:
        with listening(inbox) as listener:
            responses = store(
                listener.port, build_image(sop_class=VLWholeSlideMicroscopyImageStorage)
            )

        assert responses[0].Status == 0x0122
        assert "SOP class" in responses[0].ErrorComment

    def test_a_class_and_a_syntax_that_we_do_not_know_get_no_context(self, inbox: Inbox) -> None:
        private = UID("1.2.276.0.7230010.3.4.99")
        with listening(inbox) as listener:
            association = ask(
                listener.port,
                (SecondaryCaptureImageStorage, private),
                (CTImageStorage, ExplicitVRLittleEndian),
                (SecondaryCaptureImageStorage, ImplicitVRLittleEndian),
            )
            accepted = [context.transfer_syntax for context in association.accepted_contexts]
            results = {context.result for context in association.rejected_contexts}
            association.release()

        assert accepted == [[ImplicitVRLittleEndian]]
        assert results == {3, 4}

    def test_a_defect_of_ours_is_a_status_and_the_next_image_is_taken(
        self, inbox: Inbox, audit: RecordingAudit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("no such thing")

        with listening(inbox, audit) as listener:
            with monkeypatch.context() as patch:
                patch.setattr("listener.storage.inbox._check_same", broken)
                first = store(listener.port, build_image())
            second = store(listener.port, build_image())

        assert (first[0].Status, second[0].Status) == (0x0110, 0x0000)
        assert [one.fields["error_type"] for one in audit.of(Event.IMAGE_REFUSED)] == ["KeyError"]


class TestGoodImages:
    def test_echo(self, inbox: Inbox) -> None:
        with listening(inbox) as listener:
            association = ask(listener.port)

            assert association.send_c_echo().Status == 0x0000
            association.release()

    @pytest.mark.parametrize(
        "image", [image for _, image in every_kind()], ids=[name for name, _ in every_kind()]
    )
    def test_every_kind_is_kept_byte_for_byte(self, inbox: Inbox, image: Dataset) -> None:
        with listening(inbox) as listener:
            responses = store(listener.port, image)

        assert responses[0].Status == 0x0000
        assert inbox.read(image.SOPInstanceUID) == image
        if image.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
            assert stored_bytes(inbox, image.SOPInstanceUID) == dataset_bytes(image)

    @pytest.mark.parametrize(
        ("charset", "name"),
        [
            ("ISO_IR 100", "Müller^Jürgen"),
            ("ISO_IR 144", "Люкceмбypг"),
            ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
            (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ],
    )
    def test_names_in_other_characters_and_no_patient_id(
        self, inbox: Inbox, charset: str, name: str
    ) -> None:
        image = with_patient(build_image(), charset=charset)
        image.PatientID = ""
        image.PatientName = name
        with listening(inbox) as listener:
            responses = store(listener.port, image)

        assert responses[0].Status == 0x0000
        assert inbox.read_header(image.SOPInstanceUID).PatientName == image.PatientName

    def test_the_same_image_again_is_success_and_said_to_be_a_duplicate(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        seen: list[StoredInstance] = []
        with listening(inbox, audit, on_received=seen.append) as listener:
            responses = [*store(listener.port, build_image()), *store(listener.port, build_image())]

        assert [response.Status for response in responses] == [0x0000, 0x0000]
        assert [image.is_duplicate for image in seen] == [False, True]
        assert Event.IMAGE_RECEIVED_AGAIN in audit.events

    def test_the_same_uid_with_other_content_is_refused_and_the_first_kept(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        first, other = build_image(), build_image()
        other.PatientComments = "other"
        with listening(inbox, audit) as listener:
            responses = store(listener.port, first, other)

        assert [response.Status for response in responses] == [0x0000, 0xC011]
        assert "other content" in responses[1].ErrorComment
        assert inbox.read(first.SOPInstanceUID) == first
        assert [one.fields["code"] for one in audit.of(Event.IMAGE_REFUSED)] == [
            "conflicting_duplicate"
        ]

    def test_the_series_are_named_when_the_association_is_released(self, inbox: Inbox) -> None:
        told = threading.Event()
        released: list[str] = []

        def note(firsts: Collection[StoredInstance]) -> None:
            released.extend(image.series_uid for image in firsts)
            told.set()

        images = [build_image(number=one, series=1 + one // 3) for one in range(1, 5)]
        with listening(inbox, on_association_released=note) as listener:
            store(listener.port, *images)
            assert told.wait(PATIENCE_S)

        assert released == [images[0].SeriesInstanceUID, images[2].SeriesInstanceUID]

    def test_a_queue_that_fails_takes_nothing_from_the_promise(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        def refuse(_: StoredInstance) -> None:
            raise RuntimeError("database is locked")

        with listening(inbox, audit, on_received=refuse) as listener:
            responses = store(listener.port, build_image(), build_image(number=2))

        assert [response.Status for response in responses] == [0x0000, 0x0000]
        assert len(list(inbox.waiting())) == 2
        assert Event.DEFECT_MET in audit.events

    def test_nothing_of_the_patient_is_audited(self, inbox: Inbox, audit: RecordingAudit) -> None:
        other = with_patient(build_image())
        other.PatientComments = "changed"
        with listening(inbox, audit) as listener:
            store(listener.port, with_patient(build_image()), other)

        said = repr(audit.recorded)
        assert not [text for text in PHI_TEXTS if text in said]


class TestDurability:
    def test_success_is_said_after_file_and_folder_are_synced(self, tmp_path: Path) -> None:
        trace: list[str] = []
        inbox = Inbox(tmp_path, disk=_Tracing(trace))
        image = build_image()
        with listening(inbox) as listener:
            responses = store(listener.port, image)
            trace.append("reply")

        assert responses[0].Status == 0x0000
        steps = [step for index, step in enumerate(trace) if step not in trace[:index]]
        assert steps == ["create", "write", "overwrite", "sync", "publish", "sync new", "reply"]
        assert trace.index("sync") > len(trace) - 1 - trace[::-1].index("write")

    def test_a_full_disk_is_out_of_resources_until_there_is_room(self, tmp_path: Path) -> None:
        disk = _Filling()
        inbox = Inbox(tmp_path, disk=disk, limits=InboxLimits(min_free_bytes=1000))
        with listening(inbox) as listener:
            disk.free = 999
            below = store(listener.port, build_image())
            disk.free, disk.writable = 10_000, 1  # the first piece, and not the rest
            midway = store(listener.port, build_image(pixels=np.zeros((500, 500, 3), np.uint8)))
            disk.writable = 10_000
            roomy = store(listener.port, build_image())

        assert [some[0].Status for some in (below, midway, roomy)] == [0xA700, 0xA700, 0x0000]
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_peer_that_goes_away_in_the_middle_leaves_nothing(
        self, inbox: Inbox, tmp_path: Path
    ) -> None:
        image = build_image()
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(pdu(store_command(image), is_command=True))
            peer.say(pdu(dataset_bytes(image)[:5000], is_last=False))
            peer.sock.shutdown(socket.SHUT_RDWR)

        # leaving `listening` has waited for the connection's thread
        assert list((tmp_path / "inbox" / "tmp").iterdir()) == []
        assert list(inbox.waiting()) == []

    def test_a_stop_lets_the_message_in_hand_be_answered(
        self, inbox: Inbox, tmp_path: Path
    ) -> None:
        image = build_image()
        data = dataset_bytes(image)
        with listening(inbox) as listener, RawPeer(listener.port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(pdu(store_command(image), is_command=True))
            peer.say(pdu(data[:5000], is_last=False))
            until(lambda: list((tmp_path / "inbox" / "tmp").iterdir()))
            idle = ask(listener.port)
            stopping = threading.Thread(target=listener.stop, args=(PATIENCE_S,))
            stopping.start()
            peer.say(pdu(data[5000:]))

            assert peer.hear_status() == 0x0000
            assert peer.hear()[0] in (ABORT, GONE)
            stopping.join()
            idle.abort()


class TestCommitmentReports:
    def test_a_pacs_reports_on_an_association_of_its_own(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        reports: list[CommitmentReport] = []
        with listening(inbox, audit, on_commitment=lambda _, it: reports.append(it)) as listener:
            status = _report(listener.port, _report_dataset("1.2.3"))

        assert status == 0x0000
        assert [report.transaction_uid for report in reports] == ["1.2.3"]
        assert reports[0].committed == ("1.2.3.1",)

    def test_a_report_without_a_transaction_is_an_invalid_argument(self, inbox: Inbox) -> None:
        with listening(inbox, on_commitment=lambda _, __: None) as listener:
            status = _report(listener.port, _report_dataset(""))

        assert status == 0x0115

    def test_the_sender_of_a_report_is_known(self, inbox: Inbox) -> None:
        reporters: list[Reporter] = []
        peers = [{"ae_title": "PACS", "addresses": ["127.0.0.1"]}]
        with listening(
            inbox, on_commitment=lambda reporter, _: reporters.append(reporter), peer=peers
        ) as listener:
            for name in ("OTHER", "PACS"):
                _report(listener.port, _report_dataset("1.2.3"), calling=name)

        assert reporters == [
            Reporter(ae_title="OTHER", address="127.0.0.1", is_bound=False),
            Reporter(ae_title="PACS", address="127.0.0.1", is_bound=True),
        ]

    def test_a_report_of_a_stranger_is_answered_and_never_read(self, inbox: Inbox) -> None:
        """Its data set costs nothing, whatever it holds: the association goes on after it."""
        reports: list[CommitmentReport] = []
        bomb = _report_dataset("1.2.3")
        bomb.ReferencedSOPSequence = [Dataset() for _ in range(20_000)]
        with listening(
            inbox,
            on_commitment=lambda _, it: reports.append(it),
            may_report=lambda reporter: reporter.ae_title == "PACS",
        ) as listener:
            statuses = [
                _report(listener.port, dataset, calling=name)
                for name, dataset in (("STRANGER", bomb), ("PACS", _report_dataset("1.2.3")))
            ]

        assert statuses == [0x0124, 0x0000]
        assert len(reports) == 1


def _report_dataset(transaction_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = SecondaryCaptureImageStorage
    item.ReferencedSOPInstanceUID = "1.2.3.1"
    report = Dataset()
    report.TransactionUID = transaction_uid
    report.ReferencedSOPSequence = [item]
    return report


def _report(port: int, report: Dataset, *, calling: str = "PACS") -> int:
    entity = AE(ae_title=calling)
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate(
        "127.0.0.1",
        port,
        ae_title="SMEARLINK",
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
    )
    assert association.is_established
    response, _ = association.send_n_event_report(
        report, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    return int(response.Status)


class _Tracing(LocalDisk):
    """Notes what is asked of the disk, and whose folder it was."""

    def __init__(self, trace: list[str]) -> None:
        self._trace = trace

    def create(self, path: Path) -> int:
        self._trace.append("create")
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> None:
        self._trace.append("write")
        super().write(descriptor, data)

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        self._trace.append("overwrite")
        super().overwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._trace.append("sync")

    def publish(self, source: Path, target: Path) -> None:
        super().publish(source, target)
        self._trace.append("publish")

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self._trace.append(f"sync {folder.name}")


class _Filling(LocalDisk):
    """A disk with as much room as it is told."""

    free = 10_000
    writable = 10_000

    def free_bytes(self, folder: Path) -> int:
        return self.free

    def write(self, descriptor: int, data: memoryview) -> None:
        self.writable -= 1
        if self.writable < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, data)


class TestManyPeers:
    def test_a_holder_of_all_associations_makes_room_for_a_device(
        self, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(association_slots, "REST_S", 0.0)
        with listening(inbox, max_associations=4) as listener:
            held = [RawPeer(listener.port) for _ in range(4)]
            for one in held:
                one.associate(SecondaryCaptureImageStorage, calling="HOLDER")

            responses = store(listener.port, build_image())

            assert responses[0].Status == 0x0000
            for one in held:
                one.sock.close()

    def test_a_command_in_drips_holds_no_place(
        self, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(association_slots, "REST_S", 0.0)
        with listening(inbox, max_associations=3) as listener:
            held = [RawPeer(listener.port) for _ in range(3)]
            for one in held:
                one.associate(SecondaryCaptureImageStorage, calling="HOLDER")
                one.say(pdu(b"", is_command=True, is_last=False))

            responses = store(listener.port, build_image())

            assert responses[0].Status == 0x0000
            for one in held:
                one.sock.close()

    def test_where_no_thread_can_be_started_peers_are_told_so_and_health_knows(
        self, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with listening(inbox) as listener:
            listener.check_accepting()
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", _no_more_threads)
                with RawPeer(listener.port) as peer:
                    peer.say(association_request(SecondaryCaptureImageStorage))
                    kind, body = peer.hear()
            with pytest.raises(RetryLater, match="thread"):
                listener.check_accepting()
            responses = store(listener.port, build_image())

            assert (kind, *body[1:]) == (REJECT, 2, 3, 2)
            assert responses[0].Status == 0x0000
            listener.check_accepting()

    def test_a_listener_that_has_stopped_is_not_healthy(self, inbox: Inbox) -> None:
        with listening(inbox) as listener:
            pass

        with pytest.raises(RetryLater, match="accepts no connection"):
            listener.check_accepting()

    def test_small_faults_of_a_request_are_noted_in_the_trail(
        self, inbox: Inbox, audit: RecordingAudit
    ) -> None:
        request = association_request(SecondaryCaptureImageStorage, calling="CAM")
        padded = request.replace(b"CAM".ljust(16), b"CAM".ljust(16, b"\0"))
        with listening(inbox, audit) as listener, RawPeer(listener.port) as peer:
            peer.say(padded)
            accepted, _ = peer.hear()
            peer.say(b"\x05\0\0\0\0\x04\0\0\0\0")
            peer.hear()

        (released,) = audit.of(Event.ASSOCIATION_RELEASED)
        assert accepted == 2
        assert released.actor is not None
        assert released.actor.ae_title == "CAM"
        assert released.fields["reasons"] == ["nul_padded_ae_title"]


def _no_more_threads(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
