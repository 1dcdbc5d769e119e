"""The DICOM listener: C-ECHO, C-STORE and storage commitment reports, one thread a connection.

    accept loop ──► connection (listener.association): TLS, negotiation, messages, deadlines
                        └──► listener.receiver: inbox, status, audit, word to the work queue

Success is answered when the inbox says that the image is durable, and not before.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import ip_network

from config.sections import DicomSettings
from listener.dicom.association import ConnectionState, Deadlines, End, ScpPolicy, serve_association
from listener.dicom.connections import Connections
from listener.dicom.negotiation import AccessPolicy, Caller, PeerBinding
from listener.dicom.store_scp import StoreScp, actor_of
from listener.storage.inbox import Inbox, ReceivedImage
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport
from reporting.delivery.transport.tls import ServerContexts, TlsFiles

_ACCEPT_PAUSE_S = 0.1
"""After accept() failed for want of descriptors: time for connections to end."""
_BACKLOG = 128


class DicomListener:
    """Listens from `start` to `stop`; the callbacks run on connection threads."""

    def __init__(
        self,
        settings: DicomSettings,
        inbox: Inbox,
        on_received: Callable[[ReceivedImage], None],
        audit: AuditSink,
        *,
        on_commitment: Callable[[CommitmentReport], None] | None = None,
        on_association_released: Callable[[Collection[ReceivedImage]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._on_received = on_received
        self._audit = audit
        self._on_commitment = on_commitment
        self._on_association_released = on_association_released
        self._stopping = threading.Event()
        self._connections = Connections(max_associations=settings.max_associations)
        self._house = self._build_house()
        self._server: socket.socket | None = None
        self._accepting: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port in use, also when the settings say 0."""
        if self._server is None:
            raise RuntimeError("the listener was not started")
        return int(self._server.getsockname()[1])

    def start(self) -> None:
        """Bind and listen; returns when a peer can connect. OSError when the port is taken."""
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._accepting = threading.Thread(
            target=self._accept_all, args=(self._server,), name="dicom-accept", daemon=True
        )
        self._accepting.start()

    def stop(self, grace_s: float) -> None:
        """Take no more connections, let messages in hand be answered, then hang up."""
        self._stopping.set()
        if self._server is not None and self._accepting is not None:
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._accepting.join()
            self._server.close()
        self._connections.drain(grace_s)

    def _build_house(self) -> ScpPolicy:
        settings = self._settings
        return ScpPolicy(
            access=_access(settings),
            deadlines=Deadlines(
                acse_s=settings.acse_timeout_s,
                dimse_s=settings.dimse_timeout_s,
                idle_s=settings.idle_timeout_s,
            ),
            max_pdu_bytes=settings.max_pdu_bytes,
            max_message_bytes=2 * settings.max_object_mb * 2**20,
            tls_context=_tls_context(settings),
            take_slot=self._connections.take_slot,
            is_stopping=self._stopping.is_set,
        )

    def _accept_all(self, server: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, address = server.accept()
            except OSError:
                self._stopping.wait(_ACCEPT_PAUSE_S)
                continue
            stranger = Caller(ae_title="", address=str(address[0]), certificate_subject="")
            self._connections.add(ConnectionState(socket=sock, caller=stranger), self._serve)

    def _serve(self, progress: ConnectionState) -> None:
        """The boundary of a connection's thread: whatever happens in it is recorded here."""
        receiver = StoreScp(
            self._inbox,
            self._audit,
            on_received=self._on_received,
            on_commitment=self._on_commitment,
            committing_aes=frozenset(tie.ae_title for tie in self._house.access.ties),
        )
        try:
            end = serve_association(progress, self._house, receiver)
            self._record_end(progress, end)
            if end is End.RELEASED and receiver.firsts and self._on_association_released:
                self._on_association_released(receiver.firsts.values())
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            self._audit.record(
                Event.DEFECT_MET,
                actor=actor_of(progress.caller),
                outcome=Outcome.SERIOUS_FAILURE,
                step="association",
                error_type=type(err).__name__,
            )

    def _record_end(self, progress: ConnectionState, end: End) -> None:
        """One event an association; none for a connection that closed without a word."""
        if end is End.LOST and progress.problem == "peer_gone" and not progress.has_slot:
            return
        event, outcome = _ENDS[end]
        about = {"code": progress.problem} if progress.problem else {}
        self._audit.record(event, actor=actor_of(progress.caller), outcome=outcome, **about)


_ENDS: dict[End, tuple[Event, Outcome]] = {
    End.RELEASED: (Event.ASSOCIATION_RELEASED, Outcome.SUCCESS),
    End.REFUSED: (Event.ASSOCIATION_REJECTED, Outcome.MINOR_FAILURE),
    End.ABORTED_BY_PEER: (Event.ASSOCIATION_ABORTED, Outcome.MINOR_FAILURE),
    End.ABORTED_BY_US: (Event.ASSOCIATION_ABORTED, Outcome.MINOR_FAILURE),
    End.LOST: (Event.ASSOCIATION_ABORTED, Outcome.MINOR_FAILURE),
    End.STOPPED: (Event.ASSOCIATION_ABORTED, Outcome.SUCCESS),
}


def _access(settings: DicomSettings) -> AccessPolicy:
    called = {settings.ae_title, *settings.extra_called_aes} if settings.require_called_ae else ()
    return AccessPolicy(
        called_aes=frozenset(called),
        calling_aes=frozenset(settings.allowed_calling_aes),
        ties=tuple(
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
