"""Fixes three races of pynetdicom 3.0 between the threads of an association, and has the reactor
notice what happens at once.

Each association has a reactor thread that reads messages of the peer. pynetdicom pauses it while a
sender waits for a response, but reports the pause a moment too early: on a busy machine the
reactor then consumes the response ("Received unexpected C-STORE service message"), and the sender
waits until its timeout. A storage commitment report that arrives meanwhile clears the pause, and a
sender waits forever.

The reactor also reads a rejection and closes the connection, at times before the requesting thread
has checked the connection: that thread then reports an abort and leaves the rejection unread.

A report (N-EVENT-REPORT) is answered by a thread of its own, which could put its answer between the
command and the data set of a message that another thread was sending.

The reactor looks for something to do once in a millisecond, so each C-STORE waited two or three of
them for nothing: for its request to be taken, and for its response. Here it waits for the
connection and for the sender instead, and looks as seldom as nothing happens.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE

_LONGEST_WAIT_S = 0.005
"""Of the reactor, which also looks after timers and whether it is to end."""
_READABLE = select.POLLIN | select.POLLPRI


class Checkpoint(threading.Event):
    """Where the reactor waits while paused; knows whether it has arrived there."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._is_open = True
        self._is_holding = False

    @property
    def is_holding(self) -> bool:
        """True while a thread waits here, until the checkpoint is opened."""
        with self._changed:
            return self._is_holding and not self._is_open

    def is_set(self) -> bool:
        """As `threading.Event.is_set`."""
        return self._is_open

    def set(self) -> None:
        """As `threading.Event.set`."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """As `threading.Event.clear`."""
        with self._changed:
            self._is_open = False

    def wait(self, timeout: float | None = None) -> bool:
        """Called by the reactor: returns once the checkpoint is open."""
        with self._changed:
            self._is_holding = True
            is_open = self._changed.wait_for(lambda: self._is_open, timeout)
            self._is_holding = False
            return is_open


class PausableAssociation(Association):
    """Reports its reactor as paused only once it is."""

    _reactor_checkpoint: Checkpoint

    @property
    def _is_paused(self) -> bool:
        return self._reactor_checkpoint.is_holding or self._kill or not self.is_alive()

    @_is_paused.setter
    def _is_paused(self, _failure_summary: bool) -> None:
        """Pynetdicom's own opinion."""


def fix_reactor_pause(association: Association) -> None:
    """Fix the pauses of an association that was just made."""
    association._reactor_checkpoint = Checkpoint()
    association.__class__ = PausableAssociation


def recover_rejection(association: Association) -> None:
    """Mark an association as rejected if its rejection was left unread.

    For one that does not stand; one that broke off without a word stays as it is.
    """
    if not association.is_aborted:
        return
    answer: object = association.dul.receive_pdu(wait=False)
    if isinstance(answer, A_ASSOCIATE) and answer.result:
        association.acceptor.primitive = answer
        association.is_aborted, association.is_rejected = False, True


class WholeMessages(DIMSEServiceProvider):
    """Sends the pieces of one message after each other, whichever threads send."""

    _sending: threading.Lock

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """As pynetdicom's."""
        with self._sending:
            super().send_msg(primitive, context_id)


def send_whole_messages(association: Association) -> None:
    """Let no message of an association that was just made fall into another one."""
    provider = cast(WholeMessages, association.dimse)
    provider._sending = threading.Lock()
    provider.__class__ = WholeMessages


def one_message(association: Association) -> AbstractContextManager[Any]:
    """While it is open, no other thread sends a message on this association."""
    return cast(WholeMessages, association.dimse)._sending


class PromptReactor(DULServiceProvider):
    """Waits for what comes next, from the peer or from the sender, instead of sleeping."""

    _woken: socket.socket
    _wake: socket.socket

    def send_pdu(self, primitive: Any) -> None:
        """As pynetdicom's; the reactor takes it at once."""
        super().send_pdu(primitive)
        with suppress(OSError):  # woken already, or the association has ended
            self._wake.send(b"\0")

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state != "Sta13":
            self._wait()
        return super()._is_transport_event()

    def _wait(self) -> None:
        connection = self.socket.socket if self.socket else None
        if connection is None or getattr(connection, "pending", int)():
            return
        poll = select.poll()
        try:
            poll.register(connection, _READABLE)
            poll.register(self._woken, _READABLE)
            poll.poll(1000 * _LONGEST_WAIT_S)
            self._woken.recv(4096)
        except BlockingIOError:
            return  # the connection, or nothing
        except (OSError, ValueError):
            time.sleep(_LONGEST_WAIT_S)  # it is being closed


@contextmanager
def prompt_reactor(association: Association) -> Iterator[None]:
    """Has the reactor of an established association notice at once what happens."""
    reactor = cast(PromptReactor, association.dul)
    with _connected_pair() as (woken, wake):
        reactor._woken, reactor._wake = woken, wake
        reactor.__class__ = PromptReactor
        reactor._run_loop_delay = 0.0
        yield


@contextmanager
def _connected_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that block nobody."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs
