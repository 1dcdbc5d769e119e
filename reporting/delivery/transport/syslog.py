"""Sends DICOM Audit Messages by syslog over TLS: RFC 5424 in frames of RFC 5425 (PS3.15 A.6).

Syslog has no acknowledgment. Messages written to a connection that then broke may be lost, so
they are sent again on the next one: an audit repository recognizes two copies of a line by its
hash.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from reporting.delivery.transport.tls import TlsFiles, connected

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

    def _connected(self) -> AbstractContextManager[Any]:
        return connected(
            "The audit repository", self.host, self.port, tls=self.tls, timeout_s=self.timeout_s
        )

    def _close(self, connection: ssl.SSLSocket) -> None:
        """Wait for an objection, then announce the end (RFC 5425 4.4).

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
