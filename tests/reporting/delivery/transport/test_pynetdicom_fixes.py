"""An answer is the sender's: pynetdicom's reactor never takes it, however slow it is to pause.

And a rejection counts as one, however slow the sender is to look for it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket

from listener.demo.mock_servers import MockPacs
from reporting.delivery.transport import pynetdicom_fixes
from reporting.delivery.transport.pynetdicom_fixes import (
    Checkpoint,
    PromptReactor,
    fix_reactor_pause,
    one_message,
    prompt_reactor,
    recover_rejection,
    send_whole_messages,
)
from tests.reporting.delivery.strict_peer import strict_peer

SET_ASIDE_S = 0.5
JOIN_S = 60.0
"""Only waited for in full when a promise is broken."""


class SlowCheckpoint(threading.Event):
    """A reactor that a busy machine sets aside between passing here and looking for messages."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.has_passed = threading.Event()
        self.goes_on = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        result = super().wait(timeout)
        self.has_passed.set()
        self.goes_on.wait(SET_ASIDE_S)
        return result


def test_the_answer_reaches_the_sender_when_the_reactor_is_slow_to_pause(tmp_path: Path) -> None:
    with MockPacs(tmp_path) as pacs:
        association = associate(pacs)
        slow = association._reactor_checkpoint = SlowCheckpoint()
        association.dimse.send_msg = sending_slowly(  # type: ignore[method-assign]
            association, slow.goes_on
        )
        slow.has_passed.wait()

        fix_reactor_pause(association)
        answer = association.send_c_echo()
        association.release()

        assert answer.get("Status") == 0x0000


class SlowToLook(threading.Event):
    """Tells a sender that the line stands only after it was closed again."""

    def __init__(self, line: AssociationSocket) -> None:
        super().__init__()
        self._line = line

    def wait(self, timeout: float | None = None) -> bool:
        told = super().wait(timeout)
        give_up = time.monotonic() + 60
        while self._line._is_connected and time.monotonic() < give_up:
            time.sleep(0.01)
        return told


@pytest.fixture
def slow_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine: the reactor has read the answer before the sender looks."""
    begin = AssociationSocket.__init__

    def slowly(line: AssociationSocket, *arguments: Any, **options: Any) -> None:
        begin(line, *arguments, **options)
        line._ready = SlowToLook(line)

    monkeypatch.setattr(AssociationSocket, "__init__", slowly)


@pytest.mark.usefixtures("slow_to_look")
def test_a_rejection_that_pynetdicom_overlooks_counts() -> None:
    with strict_peer(Verification) as port:
        association = asking(port)
        is_seen = association.is_rejected
        assert not is_seen, "pynetdicom has mended it: drop our way round it"

        recover_rejection(association)

    assert association.is_rejected
    assert not association.is_aborted
    answer = association.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)


def test_a_line_that_broke_off_is_no_rejection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        hanging_up = threading.Thread(target=lambda: server.accept()[0].close())
        hanging_up.start()
        association = asking(server.getsockname()[1])
        hanging_up.join()

    recover_rejection(association)

    assert association.is_aborted
    assert not association.is_rejected


def asking(port: int) -> Association:
    entity = AE()
    entity.acse_timeout = 60
    entity.add_requested_context(Verification)
    return entity.associate("127.0.0.1", port, ae_title="SOMEBODY")


def sending_slowly(
    association: Association, reactor_goes_on: threading.Event
) -> Callable[..., None]:
    """Comes back after the answer is there and the reactor has had the time to look for it."""
    send, received = association.dimse.send_msg, association.dimse.msg_queue

    def slowly(*message: Any) -> None:
        send(*message)
        while received.empty():
            time.sleep(0.01)
        reactor_goes_on.set()
        give_up = time.monotonic() + SET_ASIDE_S
        while not received.empty() and time.monotonic() < give_up:
            time.sleep(0.01)

    return slowly


def test_what_is_said_of_a_pause_by_others_holds_no_sender_up(tmp_path: Path) -> None:
    """As pynetdicom does when it has answered a report that came in the midst of sending."""
    with MockPacs(tmp_path) as pacs:
        association = associate(pacs)
        fix_reactor_pause(association)
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.001)

        association._is_paused = False
        answer = association.send_c_echo()
        association.release()

        assert answer.get("Status") == 0x0000


def test_an_association_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    with MockPacs(tmp_path) as pacs:
        association = associate(pacs)
        fix_reactor_pause(association)
        association.abort()
        association.join()

        assert association._is_paused


def test_a_checkpoint_knows_whether_somebody_waits_at_it() -> None:
    checkpoint = Checkpoint()
    reactor = threading.Thread(target=checkpoint.wait)
    checkpoint.clear()

    nobody = checkpoint.is_holding
    reactor.start()
    while not checkpoint.is_holding:
        time.sleep(0.001)
    checkpoint.set()
    was_let_go = not checkpoint.is_holding
    reactor.join()

    assert (nobody, was_let_go) == (False, True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reactor that would wait for minutes, were it not woken."""
    monkeypatch.setattr(pynetdicom_fixes, "_LONGEST_WAIT_S", 300.0)


@pytest.mark.usefixtures("patient")
def test_a_reactor_is_woken_by_the_sender() -> None:
    with waiting_reactor() as (reactor, waiting, _peer):
        reactor.send_pdu(P_DATA())

        waiting.join(JOIN_S)
        assert not waiting.is_alive()
        reactor.send_pdu(P_DATA())  # the second time as well
        assert len(reactor.to_provider_queue.queue) == 2


@pytest.mark.usefixtures("patient")
def test_a_reactor_is_woken_by_the_peer() -> None:
    with waiting_reactor() as (_reactor, waiting, peer):
        peer.send(b"response")

        waiting.join(JOIN_S)
        assert not waiting.is_alive()


@pytest.mark.usefixtures("patient")
def test_a_reactor_is_woken_by_the_end_of_the_connection() -> None:
    with waiting_reactor() as (_reactor, waiting, peer):
        peer.close()

        waiting.join(JOIN_S)
        assert not waiting.is_alive()


def test_objects_are_stored_and_the_reactor_ends_with_its_association(tmp_path: Path) -> None:
    with MockPacs(tmp_path) as pacs:
        association = associate(pacs)
        fix_reactor_pause(association)
        with prompt_reactor(association):
            answers = [association.send_c_echo().Status for _ in range(20)]
            association.release()
        association.dul.join(JOIN_S)

    assert answers == [0x0000] * 20
    assert not association.dul.is_alive()


def test_a_reactor_whose_association_is_aborted_ends(tmp_path: Path) -> None:
    with MockPacs(tmp_path) as pacs:
        association = associate(pacs)
        with prompt_reactor(association):
            association.abort()
        association.dul.join(JOIN_S)

    assert not association.dul.is_alive()


def test_an_answer_does_not_fall_into_a_message_that_is_being_sent(tmp_path: Path) -> None:
    """Another thread answers a report between the command and the data set of a C-STORE."""
    sent: list[int] = []
    with MockPacs(tmp_path) as pacs:
        association = associate(pacs)
        send_whole_messages(association)
        answer = C_ECHO()
        answer.MessageIDBeingRespondedTo = 7
        answer.AffectedSOPClassUID = Verification
        answer.Status = 0x0000
        answering = threading.Thread(target=association.dimse.send_msg, args=(answer, 1))

        def send_pdu(piece: P_DATA) -> None:
            sent.append(piece.presentation_data_value_list[0][0])
            if len(sent) == 1:
                answering.start()
                answering.join(SET_ASIDE_S)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(association.dul, "send_pdu", send_pdu)
            with one_message(association):
                for _ in range(2):
                    piece = P_DATA()
                    piece.presentation_data_value_list.append((9, b""))
                    association.dul.send_pdu(piece)
            answering.join(JOIN_S)
        association.abort()

    assert sent == [9, 9, 1]


@contextmanager
def waiting_reactor() -> Iterator[tuple[PromptReactor, threading.Thread, socket.socket]]:
    """A reactor without a loop, a thread that waits in it, and the other end of its connection."""
    reactor: Any = PromptReactor.__new__(PromptReactor)
    ours, peer = socket.socketpair()
    woken, wake = socket.socketpair()
    with ours, peer, woken, wake:
        woken.setblocking(False)
        reactor._woken, reactor._wake = woken, wake
        reactor.socket = SimpleNamespace(socket=ours)
        reactor.to_provider_queue = Queue()
        waiting = threading.Thread(target=reactor._wait, daemon=True)
        waiting.start()
        yield reactor, waiting, peer


def associate(pacs: MockPacs) -> Association:
    entity = AE(ae_title="DEVICE")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
    assert association.is_established
    return association
