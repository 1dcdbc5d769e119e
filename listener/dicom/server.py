"""The DICOM listener: C-ECHO, C-STORE and storage commitment reports, one thread per association.

    Acceptor (one event loop): connections, TLS, A-ASSOCIATE-RQ
        └─► slot, thread ─► association: negotiation, messages, deadlines
                                └─► StoreScp: inbox, status, audit, work queue

Success is sent when the inbox says that the image is durable, and not before.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from ipaddress import ip_network
from typing import Any

from config.sections import DicomSettings
from listener.dicom.ae_title_access import (
    AccessPolicy,
    Caller,
    PeerBinding,
    Rejection,
    rejection_of_caller,
)
from listener.dicom.associate_request import parse_head
from listener.dicom.association import (
    ConnectionState,
    Deadlines,
    End,
    ScpPolicy,
    certificate_subject,
    serve_association,
)
from listener.dicom.association_slots import Holder, Shares, admit
from listener.dicom.reception import SafeAudit, actor_of
from listener.dicom.store_scp import StoreScp
from listener.dicom.unassociated_connections import Acceptor, AcceptorCounts, Connection
from listener.dicom.upper_layer import reject
from listener.storage.inbox import Inbox, StoredInstance
from pipeline.errors import RetryLater
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport, Reporter
from reporting.delivery.transport.tls import ServerContexts, TlsFiles

MAX_UNASSOCIATED = 256
"""Connections that have not associated yet."""
_BACKLOG = 1024
_GRACE_STEP_S = 0.05
"""How often a stop looks which of the busy associations have become idle."""
_THREAD_TROUBLE_S = 10.0
"""How long the listener counts as unable to serve after a thread could not be started."""


class DicomListener:
    """Listens from `start` to `stop`; the callbacks run on the associations' threads."""

    def __init__(
        self,
        settings: DicomSettings,
        inbox: Inbox,
        on_received: Callable[[StoredInstance], None],
        audit: AuditSink,
        *,
        on_commitment: Callable[[Reporter, CommitmentReport], None] | None = None,
        may_report: Callable[[Reporter], bool] = lambda _: True,
        on_association_released: Callable[[Collection[StoredInstance]], None] | None = None,
        max_associations: int | None = None,
        max_unassociated: int = MAX_UNASSOCIATED,
    ) -> None:
        """`max_associations` is what the process can afford, where that is less than the
        settings allow.
        """
        self._settings = settings
        self._inbox = inbox
        self._on_received = on_received
        self._audit = SafeAudit(audit)
        self._on_commitment = on_commitment
        self._may_report = may_report
        self._on_association_released = on_association_released
        self._max_unassociated = max_unassociated
        total = min(settings.max_associations, max_associations or settings.max_associations)
        self._shares = Shares(total=total, per_peer=settings.max_associations_per_peer or total)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._associations: dict[ConnectionState, threading.Thread] = {}
        self._thread_failed_at: float | None = None
        self._policy = _policy(settings, self._stopping.is_set)
        self._server: socket.socket | None = None
        self._acceptor: Acceptor | None = None

    @property
    def port(self) -> int:
        """The port in use, also when the settings say 0."""
        if self._server is None:
            raise RuntimeError("the listener was not started")
        return int(self._server.getsockname()[1])

    def counts(self) -> dict[str, int]:
        """What happened to connections that never became associations, by reason."""
        return asdict(self._acceptor.counts if self._acceptor is not None else AcceptorCounts())

    def start(self) -> None:
        """Binds and listens; returns when a peer can connect. OSError when the port is taken."""
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._acceptor = Acceptor(
            self._server,
            on_request=self._begin,
            on_failure=self._record_failure,
            timeout_s=self._settings.acse_timeout_s,
            max_connections=self._max_unassociated,
            tls_context=_tls_context(self._settings),
        )
        self._acceptor.start()

    def stop(self, grace_s: float) -> None:
        """Takes no more connections, lets messages in progress be answered, then hangs up."""
        self._stopping.set()
        if self._server is not None and self._acceptor is not None:
            self._acceptor.stop()
            self._server.close()
        self._drain(grace_s)

    def check_accepting(self) -> None:
        """Raises RetryLater when peers cannot associate now."""
        if self._acceptor is None or not self._acceptor.is_turning:
            raise RetryLater("The DICOM listener accepts no connection", code="dicom_not_accepting")
        failed_at = self._thread_failed_at
        if failed_at is not None and time.monotonic() - failed_at < _THREAD_TROUBLE_S:
            raise RetryLater("No thread can be started", code="dicom_no_thread")

    def _begin(self, connection: Connection, request: bytes) -> bytes | None:
        """Starts the association that a whole A-ASSOCIATE-RQ asks for, or returns the rejection.

        Runs on the acceptor's thread: only the fixed part of the request is parsed here.
        """
        head = parse_head(request)
        caller = Caller(
            ae_title=head.calling_ae_title,
            address=connection.address,
            certificate_subject=certificate_subject(connection.socket),
        )
        rejection = rejection_of_caller(head, caller, self._policy.access)
        if rejection is None:
            state = ConnectionState(
                socket=connection.socket, caller=caller, started_at=time.monotonic()
            )
            state.resting_since = state.started_at
            if self._start_thread(state, request):
                return None
            rejection = Rejection.TOO_MANY_ASSOCIATIONS
        self._audit.record(
            Event.ASSOCIATION_REJECTED,
            actor=actor_of(caller),
            outcome=Outcome.MINOR_FAILURE,
            code=rejection.name.lower(),
        )
        return reject(*rejection.value)

    def _start_thread(self, state: ConnectionState, request: bytes) -> bool:
        """Serves the association on a thread of its own, if there is room; closes it afterwards."""
        with self._lock:
            if not self._find_room(state.caller):
                return False
            thread = threading.Thread(
                target=self._run, args=(state, request), name="dicom-association", daemon=True
            )
            self._associations[state] = thread
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._thread_failed_at = time.monotonic()
            with self._lock:
                del self._associations[state]
            return False
        self._thread_failed_at = None
        return True

    def _find_room(self, caller: Caller) -> bool:
        """Whether the caller gets a slot; hangs up on who gives one up for it."""
        now = time.monotonic()
        states = [state for state in self._associations if not state.is_displaced]
        if len(self._associations) - len(states) >= self._shares.total:
            return False  # as many threads again are still ending
        holders = [
            Holder(
                address=state.caller.address,
                ae_title=state.caller.ae_title,
                age_s=now - state.started_at,
                resting_s=state.resting_s(now),
                has_carried=state.has_carried,
            )
            for state in states
        ]
        admission = admit(caller.address, caller.ae_title, holders, self._shares)
        if admission.displaced is not None:
            displaced = states[admission.displaced]
            displaced.is_displaced = True
            _shutdown_socket(displaced)
        return admission.is_granted

    def _run(self, state: ConnectionState, request: bytes) -> None:
        try:
            self._serve(state, request)
        finally:
            with self._lock:
                del self._associations[state]
            state.socket.close()

    def _serve(self, state: ConnectionState, request: bytes) -> None:
        """The boundary of an association's thread: whatever goes wrong in it is recorded here."""
        scp = StoreScp(
            self._inbox,
            self._audit,
            caller=state.caller,
            on_received=self._on_received,
            on_commitment=self._on_commitment,
            may_report=self._may_report,
            bound_aes=self._policy.access.bound_aes,
        )
        try:
            end = serve_association(state, self._policy, scp, request)
            self._record_end(state, end)
            if end is End.RELEASED and scp.firsts and self._on_association_released:
                self._on_association_released(scp.firsts.values())
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            self._audit.record(
                Event.DEFECT_MET,
                actor=actor_of(state.caller),
                outcome=Outcome.SERIOUS_FAILURE,
                step="association",
                error_type=type(err).__name__,
            )

    def _record_end(self, state: ConnectionState, end: End) -> None:
        event, outcome = _ENDS[end]
        about: dict[str, Any] = {"code": state.problem} if state.problem else {}
        if state.deviations:
            about["reasons"] = list(state.deviations)
        self._audit.record(event, actor=actor_of(state.caller), outcome=outcome, **about)

    def _record_failure(self, connection: Connection, code: str) -> None:
        """A connection that came to nothing before its association."""
        self._audit.record(
            Event.ASSOCIATION_ABORTED,
            actor=actor_of(Caller(ae_title="", address=connection.address, certificate_subject="")),
            outcome=Outcome.MINOR_FAILURE,
            code=code,
        )

    def _drain(self, grace_s: float) -> None:
        """Hangs up on idle associations at once, on busy ones when they are done or `grace_s` is
        over; then waits for the threads.
        """
        deadline = time.monotonic() + grace_s
        while busy := self._hang_up_on(lambda state: not state.is_busy):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            busy[0].join(min(remaining, _GRACE_STEP_S))
        for thread in self._hang_up_on(lambda _: True):
            thread.join()

    def _hang_up_on(self, chosen: Callable[[ConnectionState], bool]) -> list[threading.Thread]:
        """Hangs up on those chosen; returns the threads of all."""
        with self._lock:
            associations = list(self._associations.items())
        for state, _ in associations:
            if chosen(state):
                _shutdown_socket(state)
        return [thread for _, thread in associations]


_ENDS: dict[End, tuple[Event, Outcome]] = {
    End.RELEASED: (Event.ASSOCIATION_RELEASED, Outcome.SUCCESS),
    End.REFUSED: (Event.ASSOCIATION_REJECTED, Outcome.MINOR_FAILURE),
    End.ABORTED_BY_PEER: (Event.ASSOCIATION_ABORTED, Outcome.MINOR_FAILURE),
    End.ABORTED_BY_US: (Event.ASSOCIATION_ABORTED, Outcome.MINOR_FAILURE),
    End.LOST: (Event.ASSOCIATION_ABORTED, Outcome.MINOR_FAILURE),
    End.STOPPED: (Event.ASSOCIATION_ABORTED, Outcome.SUCCESS),
}


def _shutdown_socket(state: ConnectionState) -> None:
    """Wakes the association's thread with an end of stream; it closes the socket itself."""
    with suppress(OSError):
        # Not SSLSocket.shutdown, which would take the TLS state from under its thread.
        socket.socket.shutdown(state.socket, socket.SHUT_RDWR)


def _policy(settings: DicomSettings, is_stopping: Callable[[], bool]) -> ScpPolicy:
    return ScpPolicy(
        access=_access(settings),
        deadlines=Deadlines(
            acse_s=settings.acse_timeout_s,
            dimse_s=settings.dimse_timeout_s,
            idle_s=settings.idle_timeout_s,
        ),
        max_pdu_bytes=settings.max_pdu_bytes,
        max_message_bytes=2 * settings.max_object_mb * 2**20,
        is_stopping=is_stopping,
    )


def _access(settings: DicomSettings) -> AccessPolicy:
    called = {settings.ae_title, *settings.extra_called_aes} if settings.require_called_ae else ()
    return AccessPolicy(
        called_aes=frozenset(called),
        calling_aes=frozenset(settings.allowed_calling_aes),
        bindings=tuple(
            PeerBinding(
                ae_title=peer.ae_title,
                networks=tuple(ip_network(text, strict=False) for text in peer.addresses),
                certificate_subject=peer.certificate_subject,
            )
            for peer in settings.peers
        ),
    )


def _tls_context(settings: DicomSettings) -> Callable[[], ssl.SSLContext] | None:
    tls = settings.tls
    if not tls.enabled:
        return None
    files = TlsFiles(
        certificate=tls.certificate,
        private_key=tls.private_key,
        ca_certificates=tls.ca_certificates,
    )
    contexts = ServerContexts(files, require_client_certificate=tls.require_client_certificate)
    return contexts.current
