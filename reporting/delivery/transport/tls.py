"""TLS as BCP 195 (RFC 9325) requires, in both directions: 1.2 and 1.3, forward secrecy, AEAD.

PS3.15 B.12 calls this the BCP 195 RFC 9325 Secure Transport Connection Profile.
A client context is made for each connection, so new certificates count from the next one on;
a server takes its context from `ServerContexts`, which watches the files.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import NeedsReview
from reporting.delivery import DeliveryPostponed, DeliveryRefused

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of 1.3 are all in order (RFC 9325 section 4.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one end. Without `ca_certificates` the system's are trusted."""

    certificate: Path | None = None
    private_key: Path | None = None
    """None when the certificate's file holds it too."""
    ca_certificates: Path | None = None


class _RecordingSocket(ssl.SSLSocket):
    """Tells its context which TLS fault ended it: libraries that own the socket keep that back."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLError as err:
            self._record(err)
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """In TLS 1.3 a server refuses our certificate only here (RFC 8446 4.4.2.4)."""
        try:
            return super().read(len, buffer)
        except ssl.SSLError as err:
            self._record(err)
            raise

    def _record(self, err: ssl.SSLError) -> None:
        context = self.context
        if isinstance(context, ClientContext) and not isinstance(err, _ENDS_OR_WAITS):
            context.failure = err


_ENDS_OR_WAITS = (
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLZeroReturnError,
    ssl.SSLEOFError,
    ssl.SSLSyscallError,
)


class ClientContext(ssl.SSLContext):
    """A context for one connection, which remembers why TLS failed on it."""

    sslsocket_class = _RecordingSocket
    failure: ssl.SSLError | None = None


def client_context(files: TlsFiles) -> ClientContext:
    """A context that checks the server's certificate and name, and shows ours if there is one.

    Raises DeliveryRefused `tls_files` when a file cannot be used.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if files.ca_certificates is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    try:
        _load(context, files)
    except NeedsReview as err:
        raise DeliveryRefused(err.message, code=err.code) from err
    return context


@contextmanager
def connected(
    name: str, host: str, port: int, *, tls: TlsFiles | None, timeout_s: float
) -> Iterator[socket.socket]:
    """A connection to a destination, within TLS where its files are given.

    An OSError within the block counts as the connection's failure. Raises DeliveryPostponed
    `tls_failed` or `peer_unreachable`, DeliveryRefused `tls_files`.
    """
    context = client_context(tls) if tls else None
    try:
        with socket.create_connection((host, port), timeout_s) as plain:
            if context is None:
                yield plain
                return
            with context.wrap_socket(plain, server_hostname=host) as secured:
                yield secured
    except OSError as err:
        raise connection_failure(name, err) from err


def connection_failure(name: str, err: OSError) -> DeliveryPostponed:
    """Why a connection could not be made or broke: TLS, or anything below it."""
    is_tls = isinstance(err, ssl.SSLError)
    what = "does not pass the TLS check" if is_tls else "cannot be reached"
    code = "tls_failed" if is_tls else "peer_unreachable"
    return DeliveryPostponed(f"{name} {what} ({_explained(err)}).", code=code)


_CAUSES: tuple[tuple[type[OSError], str], ...] = (
    (ConnectionRefusedError, "nothing listens at its port: check host and port, and that it runs"),
    (socket.gaierror, "its host has no address: check the name and the resolver"),
    (TimeoutError, "no answer in time: check the address and the firewalls"),
    (ConnectionError, "it closed the connection: check its log, and whether it expects TLS"),
)
"""What to look at, the most specific first."""


def _explained(err: OSError) -> str:
    """OpenSSL's word for the rule that was broken, or what to look at."""
    if isinstance(err, ssl.SSLError):
        return f"{type(err).__name__}: {err.reason}" if err.reason else type(err).__name__
    known = next((words for kind, words in _CAUSES if isinstance(err, kind)), None)
    return known or err.strerror or type(err).__name__


def server_context(files: TlsFiles, *, require_client_certificate: bool) -> ssl.SSLContext:
    """A context that shows our certificate and, where asked, takes only known clients."""
    if files.certificate is None:
        raise _unusable("a TLS server needs a certificate", "name it in the settings")
    if require_client_certificate and files.ca_certificates is None:
        raise _unusable(
            "client certificates are required but no CA is named",
            "name the CA that issued them as ca_certificates",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    _load(context, files)
    if require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class ServerContexts:
    """Gives a server its context, and a new one once the files have changed.

    Files that cannot be used (half written, key and certificate of different ages) leave the
    context that works in place; `problem` then says why.
    """

    def __init__(self, files: TlsFiles, *, require_client_certificate: bool) -> None:
        self._files = files
        self._require_client_certificate = require_client_certificate
        self._lock = threading.Lock()
        self._seen = _fingerprint(files)
        self._context = self._build()
        self.problem: NeedsReview | None = None

    def current(self) -> ssl.SSLContext:
        """The context for the next connection."""
        with self._lock:
            found = _fingerprint(self._files)
            if found != self._seen:
                self._seen = found
                self._renew()
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self._build()
        except NeedsReview as err:
            self.problem = err
        else:
            self.problem = None

    def _build(self) -> ssl.SSLContext:
        return server_context(
            self._files, require_client_certificate=self._require_client_certificate
        )


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        if files.ca_certificates is not None:
            context.load_verify_locations(cafile=files.ca_certificates)
        if files.certificate is not None:
            context.load_cert_chain(files.certificate, files.private_key, password=_no_password)
    except (OSError, ValueError) as err:
        # ssl.SSLError is an OSError; its text names the rule, never the key.
        raise _unusable(
            f"a TLS file cannot be used ({type(err).__name__})",
            "check that each is PEM, readable, and that key and certificate belong together",
        ) from err


def _no_password() -> str:
    """Keeps OpenSSL from asking on the terminal of a service."""
    raise ValueError("the private key is encrypted")


def _fingerprint(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(
        _file_identity(path)
        for path in (files.certificate, files.private_key, files.ca_certificates)
        if path is not None
    )


def _file_identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _unusable(what: str, how_to_fix: str) -> NeedsReview:
    return NeedsReview(f"{what}: {how_to_fix}.", code="tls_files")
