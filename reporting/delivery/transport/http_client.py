"""Sends one HTTP request to a destination: with a time limit and a token where needed.

Redirects are not followed (they would carry credentials elsewhere) and proxies of the environment
are not used: only the settings count.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx

from reporting.delivery import DeliveryPostponed, DeliveryRefused
from reporting.delivery.transport.oauth import TokenCache
from reporting.delivery.transport.tls import TlsFiles, client_context, connection_failure

CHUNK_BYTES = 128 * 1024
SLOWEST_BYTES_PER_S = 100_000
"""A server that takes less is given up, so that an attempt always ends."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
LONGEST_WAIT_S = 86_400.0
"""A Retry-After beyond a day is taken for a day."""
UNAUTHORIZED = 401
FORBIDDEN = 403
WRONG_ADDRESS = (404, 410)
NOT_SUPPORTED = (405, 501)
TRY_AGAIN = (408, 425, 429)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a server, at most MAX_ANSWER_BYTES of it."""

    status: int
    body: bytes
    retry_after_s: float | None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is sent: its length, and its bytes as often as needed (a new token sends them again)."""

    length: int
    chunks: Callable[[], Iterable[bytes]]

    @classmethod
    def of(cls, content: bytes) -> Body:
        """A body of bytes in memory."""
        return cls(length=len(content), chunks=lambda: (content,))


NOTHING = Body.of(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEndpoint:
    """How to talk to one server."""

    name: str
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    tokens: TokenCache | None = None
    tls: TlsFiles | None = None
    clock: Callable[[], float] = time.monotonic

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Body = NOTHING
    ) -> Answer:
        """The answer, whatever its status; a refused token is renewed once.

        Raises DeliveryPostponed when there is none, DeliveryRefused when it cannot be asked for.
        """
        with self._client() as client:
            token = self.tokens.token(client) if self.tokens else ""
            answer = self._send(client, token, method, url, headers, body)
            if answer.status == UNAUTHORIZED and self.tokens:
                token = self.tokens.token(client, instead_of=token)
                answer = self._send(client, token, method, url, headers, body)
            return answer

    def _client(self) -> httpx.Client:
        return httpx.Client(
            verify=client_context(self.tls or TlsFiles()),
            timeout=self.timeout_s,
            trust_env=False,
            http2=False,
        )

    def _send(
        self,
        client: httpx.Client,
        token: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> Answer:
        deadline = self.clock() + self.timeout_s + body.length / SLOWEST_BYTES_PER_S
        sent = {**self.headers, **headers, "Content-Length": str(body.length)}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        try:
            with client.stream(
                method, url, headers=sent, content=self._until(deadline, _in_chunks(body))
            ) as response:
                read_until = self.clock() + self.timeout_s
                content = _joined(self._until(read_until, response.iter_bytes()))
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            raise _no_answer(self.name, err) from err
        return Answer(
            status=response.status_code, body=content, retry_after_s=_retry_after_s(response)
        )

    def _until(self, deadline: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self.clock() > deadline:
                raise httpx.ReadTimeout("too slow")
            yield chunk


def raise_for_status(name: str, answer: Answer) -> None:
    """Raises for statuses that mean the same in every HTTP protocol; returns for all others."""
    if answer.status in (UNAUTHORIZED, FORBIDDEN):
        raise DeliveryRefused(
            f"{name} refuses our credentials ({answer.status}): check them and their rights.",
            code="credentials_refused",
        )
    if answer.status in NOT_SUPPORTED:
        raise DeliveryRefused(
            f"{name} does not support this request at its address ({answer.status}): check the "
            "URL, and that the server takes FHIR transactions or STOW-RS there.",
            code="wrong_address",
        )
    if answer.status in WRONG_ADDRESS or 300 <= answer.status < 400:
        raise DeliveryRefused(
            f"{name} is not at this address ({answer.status}): check the URL.",
            code="wrong_address",
        )
    if answer.status in TRY_AGAIN or answer.status >= 500:
        raise DeliveryPostponed(
            f"{name} cannot take it now ({answer.status}).",
            code=f"http_{answer.status}",
            after_s=answer.retry_after_s,
        )


def _in_chunks(body: Body) -> Iterator[bytes]:
    for part in body.chunks():
        view = memoryview(part)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


def _joined(chunks: Iterable[bytes]) -> bytes:
    """The content, cut off at MAX_ANSWER_BYTES."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            break
    return bytes(content[:MAX_ANSWER_BYTES])


def _no_answer(name: str, err: httpx.HTTPError | httpx.InvalidURL) -> Exception:
    if isinstance(err, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return DeliveryRefused(f"The URL of {name} cannot be used.", code="wrong_address")
    root = _root_of(err)
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError):
        return connection_failure(name, root)
    if isinstance(err, httpx.ConnectTimeout | httpx.ConnectError):
        return connection_failure(name, root if isinstance(root, OSError) else TimeoutError())
    return DeliveryPostponed(f"{name} does not answer ({type(err).__name__}).", code="no_answer")


def _root_of(err: BaseException) -> BaseException:
    while (before := err.__cause__ or err.__context__) is not None:
        err = before
    return err


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds, or a date measured against the server's own clock (RFC 9110 10.2.3)."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said), LONGEST_WAIT_S)
    until, now = _date(said), _date(response.headers.get("Date", ""))
    if until is None or now is None:
        return None
    return min(max((until - now).total_seconds(), 0.0), LONGEST_WAIT_S)


def _date(said: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(said)
    except ValueError:
        return None
    return found if found.tzinfo else None
