"""DICOM Audit Messages by syslog over TLS: RFC 5424 in the frames of RFC 5425 (PS3.15 A.6).

Syslog knows no acknowledgment. What was written to a connection that then broke may be lost on
the way, so it is sent again on the next one: an audit repository tells two copies of a line by
its hash.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pipeline.errors import NeedsReview
from reporting.delivery import DeliveryPostponed, DeliveryRefused
from reporting.delivery.transport.tls import TlsFiles, client_context

SECURITY_FACILITY = 10
"""PS3.15 A.6.1: facility 10, security/authorization messages."""
NOTICE, WARNING = 5, 4
"""Severities (RFC 5424 table 2): done as asked, and not."""
MESSAGE_ID = "DICOM+RFC3881"
"""PS3.15 A.6.1: the MSGID of a message by the schema of A.5.1."""
OBJECTION_S = 0.5
"""How long a receiver is listened to before a connection ends."""
BYTE_ORDER_MARK = "\ufeff".encode()
"""Says that UTF-8 follows (RFC 5424 6.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogMessage:
    """One message before it is framed."""

    time: str
    """RFC 3339, microseconds at most."""
    is_failure: bool
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogReceiver:
    """An audit record repository."""

    host: str
    port: int
    tls: TlsFiles
    timeout_s: float = 10.0
    hostname: str = "-"
    """Ours (RFC 5424 6.2.4)."""

    def send(self, messages: Iterable[SyslogMessage]) -> int:
        """Send all on one connection; how many. Raises DeliveryPostponed or DeliveryRefused."""
        count = 0
        with self._connected() as connection:
            for message in messages:
                connection.sendall(framed(message, hostname=self.hostname))
                count += 1
            self._close(connection)
        return count

    def check(self) -> str:
        """Whether a TLS connection is taken; sends nothing."""
        with self._connected() as connection:
            return f"{self.host}:{self.port} takes {connection.version()}"

    @contextmanager
    def _connected(self) -> Iterator[ssl.SSLSocket]:
        try:
            context = client_context(self.tls)
        except NeedsReview as err:
            raise DeliveryRefused(err.message, code=err.code) from err
        try:
            with (
                socket.create_connection((self.host, self.port), self.timeout_s) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as connection,
            ):
                yield connection
        except OSError as err:
            is_tls = isinstance(err, ssl.SSLError)
            what = "does not pass the TLS check" if is_tls else "cannot be reached"
            raise DeliveryPostponed(
                f"The audit repository {what} ({type(err).__name__}).",
                code="tls_failed" if is_tls else "peer_unreachable",
            ) from err

    def _close(self, connection: ssl.SSLSocket) -> None:
        """Hear an objection if there is one, then say that no more comes (RFC 5425 4.4).

        In TLS 1.3 a server refuses our certificate only after the handshake (RFC 8446 4.4.2.4),
        when messages may be on their way already; a receiver that is content says nothing.
        """
        connection.settimeout(min(OBJECTION_S, self.timeout_s))
        with suppress(TimeoutError):
            connection.recv(1)
        # It need not answer our close in kind: by then it has read what we sent.
        with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError, TimeoutError):
            connection.unwrap()


def framed(message: SyslogMessage, *, hostname: str) -> bytes:
    """The message with its length before it (RFC 5425 4.3)."""
    priority = 8 * SECURITY_FACILITY + (WARNING if message.is_failure else NOTICE)
    header = f"<{priority}>1 {message.time} {hostname} smearlink - {MESSAGE_ID} - "
    whole = header.encode("ascii") + BYTE_ORDER_MARK + message.content
    return b"%d %b" % (len(whole), whole)
