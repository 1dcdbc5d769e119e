"""Keeps pynetdicom's own thread from taking the answer that a sender waits for, or losing it.

Each association has a thread, its reactor, that looks for messages of the peer. pynetdicom 3.0
pauses it while we wait for an answer, but says that it is paused a moment before it is: on a busy
machine the reactor then takes the answer ("Received unexpected C-STORE service message"), and the
sender waits out its time limit for an answer that has come. A report of storage commitment that
comes meanwhile makes it say the contrary, and a sender waits for ever.

The reactor also reads a rejection and closes the line, at times before the thread that asked has
looked whether the line stands: that one then says aborted, and leaves the rejection unread.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE


class Checkpoint(threading.Event):
    """Where the reactor waits while it is closed, and which knows whether it does."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._is_open = True
        self._is_holding = False

    @property
    def is_holding(self) -> bool:
        """True when somebody waits here, and will until it is opened."""
        with self._changed:
            return self._is_holding and not self._is_open

    def is_set(self) -> bool:
        return self._is_open

    def set(self) -> None:
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._is_open = False

    def wait(self, timeout: float | None = None) -> bool:
        """As the reactor calls it: come back when it is open."""
        with self._changed:
            self._is_holding = True
            is_open = self._changed.wait_for(lambda: self._is_open, timeout)
            self._is_holding = False
            return is_open


class PausableAssociation(Association):
    """Says that its reactor is paused when it is, and not a moment earlier."""

    _reactor_checkpoint: Checkpoint

    @property
    def _is_paused(self) -> bool:
        return self._reactor_checkpoint.is_holding or self._kill or not self.is_alive()

    @_is_paused.setter
    def _is_paused(self, _failure_summary: bool) -> None:
        """Pynetdicom's own opinion."""


def fix_reactor_pause(association: Association) -> None:
    """Have the pauses of an association be true from here on; for one that was just made."""
    association._reactor_checkpoint = Checkpoint()
    association.__class__ = PausableAssociation


def recover_rejection(association: Association) -> None:
    """Have an association that was rejected say so, with the answer as its acceptor's.

    For one that does not stand; one that broke off without a word stays as it is.
    """
    if not association.is_aborted:
        return
    answer: object = association.dul.receive_pdu(wait=False)
    if isinstance(answer, A_ASSOCIATE) and answer.result:
        association.acceptor.primitive = answer
        association.is_aborted, association.is_rejected = False, True
