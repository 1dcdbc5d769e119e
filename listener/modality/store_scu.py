"""Sends images by C-STORE as an imaging device does: the SCU of `smearlink send` and the demo."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from pydicom import FileDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)
from pynetdicom.association import Association

from pipeline.errors import NeedsReview, Rejected, RetryLater, SmearlinkError
from reporting.delivery import DeliveryPostponed, DeliveryRefused
from reporting.delivery.transport.association import Peer, allow_for, associated, context_for
from reporting.delivery.transport.tls import TlsFiles, client_context

PEER_FORM = re.compile(
    r"(?P<ae>[ -\[\]-~]{1,16})@(?P<host>[A-Za-z0-9_.\-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})"
)
MAX_CONTEXTS = 128
"""Of one association (PS3.8 9.3.2.2)."""
TIMEOUT_S = 30.0
SUCCESS = 0x0000
NOT_SUPPORTED = 0x0122
"""SOP class not supported (PS3.7 annex C); used where the receiver accepts no context for it."""
CANNOT_ENCODE = 0xC000
"""Cannot understand (PS3.4 Table B.2-1); used for what cannot be encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """Where to send: AE title, host and port."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PeerAddress:
        """Read `AET@HOST:PORT`; raises Rejected `peer_address` for anything else."""
        found = PEER_FORM.fullmatch(text)
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise Rejected(
                "Give the receiver as AET@HOST:PORT, for example SMEARLINK@127.0.0.1:11112",
                code="peer_address",
            )
        return cls(ae_title=found["ae"], host=found["host"].strip("[]"), port=int(found["port"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """The receiver's answer to one image."""

    sop_instance_uid: str
    status: int
    """Of the C-STORE response (PS3.4 Table B.2-1)."""
    comment: str

    @property
    def is_stored(self) -> bool:
        """Success, or a warning: the receiver has it."""
        return self.status == SUCCESS or self.status & 0xF000 == 0xB000


class _Kind(NamedTuple):
    """A presentation context: SOP Class and Transfer Syntax."""

    sop_class: str
    transfer_syntax: str

    @classmethod
    def of(cls, image: FileDataset) -> _Kind:
        return cls(str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID))


_PHOTOGRAPHS = tuple(
    _Kind(SecondaryCaptureImageStorage, syntax)
    for syntax in (ExplicitVRLittleEndian, JPEGBaseline8Bit)
)
"""What `listener.modality.secondary_capture` makes."""


def send_images(
    images: Iterable[FileDataset],
    peer: PeerAddress,
    *,
    calling_ae_title: str = "SMEARSEND",
    tls: TlsFiles | None = None,
    on_sent: Callable[[SentImage], None] = lambda sent: None,
) -> Iterator[SentImage]:
    """Send each image as it comes and yield the receiver's answer; one is in memory at a time.

    An image of a kind that the receiver does not accept is refused alone. Raises RetryLater
    `peer_unreachable` or `peer_unknown`, and NeedsReview `association_rejected`, `tls_failed` or
    `tls_files`; answers given before were yielded already.
    """
    sender = _Sender(peer, calling_ae_title, tls)
    with sender:
        for image in images:
            sent = sender.send(image)
            on_sent(sent)
            yield sent


class _Sender:
    """One association after another: a new kind of image needs a new negotiation."""

    def __init__(self, peer: PeerAddress, calling_ae_title: str, tls: TlsFiles | None) -> None:
        self._peer = Peer(
            ae_title=peer.ae_title,
            host=peer.host,
            port=peer.port,
            calling_ae_title=calling_ae_title,
            timeout_s=TIMEOUT_S,
            tls=tls,
        )
        self._kinds: set[_Kind] = set()
        self._association: Association | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Sender:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def send(self, image: FileDataset) -> SentImage:
        """Store one image."""
        kind = _Kind.of(image)
        if kind not in self._kinds:
            self._associate(kind)
        return _store(self._association, image, kind, self._peer)

    def _associate(self, kind: _Kind) -> None:
        """Propose every kind met so far; no association when the peer accepts none of them."""
        self._stack.close()
        if len(self._kinds) + len(_PHOTOGRAPHS) >= MAX_CONTEXTS:
            self._kinds.clear()
        self._kinds |= {kind, *_PHOTOGRAPHS}
        contexts = [context_for(*one) for one in sorted(self._kinds)]
        try:
            self._association = self._stack.enter_context(associated(self._peer, contexts))
        except DeliveryRefused as err:
            if err.code == "association_rejected":
                raise _rejected(err.message) from err
            if err.code != "contexts_refused":
                raise NeedsReview(err.message, code=err.code) from err
            self._association = None
        except DeliveryPostponed as err:
            if err.code in ("peer_unreachable", "tls_failed"):
                raise _reason(self._peer) from err
            raise RetryLater(err.message, code=err.code) from err


def _store(
    association: Association | None, image: FileDataset, kind: _Kind, peer: Peer
) -> SentImage:
    uid = str(image.SOPInstanceUID)
    if association is None or kind not in _accepted(association):
        names = ", ".join(UID(one).name for one in kind)
        return SentImage(sop_instance_uid=uid, status=NOT_SUPPORTED, comment=f"not taken: {names}")
    allow_for(association, TIMEOUT_S, len(image.get("PixelData") or b""))
    try:
        answer = association.send_c_store(image)
    except RuntimeError as err:
        raise _broken(peer, "broke off the association") from err
    except (ValueError, AttributeError):
        comment = "its data set cannot be encoded as its file meta information says"
        return SentImage(sop_instance_uid=uid, status=CANNOT_ENCODE, comment=comment)
    if "Status" not in answer:
        raise _broken(peer, "did not answer")
    return SentImage(
        sop_instance_uid=uid,
        status=int(answer.Status),
        comment=str(answer.get("ErrorComment", "")),
    )


def _accepted(association: Association) -> set[tuple[str, str]]:
    return {
        (str(one.abstract_syntax), str(one.transfer_syntax[0]))
        for one in association.accepted_contexts
    }


def _rejected(message: str) -> NeedsReview:
    """With the peer's own reason, and what to change at the command line."""
    reason, _, _ = message.partition("):")
    return NeedsReview(
        f"{reason}): check the AE title in --to, and let the receiver allow the one in --calling",
        code="association_rejected",
    )


def _broken(peer: Peer, what: str) -> RetryLater:
    return RetryLater(
        f"{peer} {what}: look into its log, then send again; what it has is not stored twice",
        code="peer_unreachable",
    )


def _reason(peer: Peer) -> SmearlinkError:
    """Why no association was established, by connecting once more step by step."""
    try:
        with socket.create_connection((peer.host, peer.port), timeout=TIMEOUT_S) as connection:
            if peer.tls is not None:
                return _tls_reason(peer, connection)
    except ConnectionRefusedError:
        return RetryLater(
            f"Nothing listens at {peer.host}:{peer.port}: check the address and the port, and that "
            f"{peer.ae_title} runs",
            code="peer_unreachable",
        )
    except TimeoutError:
        return RetryLater(
            f"{peer.host}:{peer.port} does not answer: check the address and the firewalls",
            code="peer_unreachable",
        )
    except OSError as err:
        return RetryLater(
            f"{peer.host}:{peer.port} cannot be reached ({err.strerror}): check the address and "
            "the network",
            code="peer_unreachable",
        )
    advice = "" if peer.tls is not None else ", whether it expects TLS (--tls)"
    return RetryLater(
        f"{peer} closed the connection without an answer: check its log{advice} and the AE titles "
        "that it allows",
        code="peer_unreachable",
    )


def _tls_reason(peer: Peer, connection: socket.socket) -> SmearlinkError:
    context = client_context(peer.tls or TlsFiles())
    try:
        with context.wrap_socket(connection, server_hostname=peer.host) as secured:
            secured.settimeout(1.0)
            secured.recv(1)  # with TLS 1.3 a missing client certificate is refused only now
    except ssl.SSLCertVerificationError as err:
        return NeedsReview(
            f"The certificate of {peer} is not trusted ({err.verify_message}): name its CA with "
            "--ca, and the host as the certificate has it",
            code="tls_failed",
        )
    except TimeoutError:
        pass
    except (ssl.SSLError, ConnectionError, OSError) as err:
        reason = getattr(err, "reason", None) or type(err).__name__
        return NeedsReview(
            f"{peer} refuses TLS ({reason}): check that it speaks TLS at this port, and whether "
            "it asks for a certificate (--cert, --key)",
            code="tls_failed",
        )
    return RetryLater(
        f"{peer} closed the connection without an answer: check its log and the AE titles that "
        "it allows",
        code="peer_unreachable",
    )
