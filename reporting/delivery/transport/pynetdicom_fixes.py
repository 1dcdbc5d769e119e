"""Fixes two races of pynetdicom 3.0 between its reactor thread and the thread that sends.

Each association has a reactor thread that reads messages of the peer. pynetdicom pauses it while a
sender waits for a response, but reports the pause a moment too early: on a busy machine the
reactor then consumes the response ("Received unexpected C-STORE service message"), and the sender
waits until its timeout. A storage commitment report that arrives meanwhile clears the pause, and a
sender waits forever.

The reactor also reads a rejection and closes the connection, at times before the requesting thread
has checked the connection: that thread then reports an abort and leaves the rejection unread.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE


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
