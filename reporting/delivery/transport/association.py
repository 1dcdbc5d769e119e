"""Opens an association as SCU, with a time limit on each phase and a code for each failure.

pynetdicom leaves the socket without a time limit once it is connected: a peer that stops reading
would block `send` forever. The limit is set here, as the connection opens.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from reporting.delivery import DeliveryPostponed, DeliveryRefused
from reporting.delivery.transport.pynetdicom_fixes import (
    fix_reactor_pause,
    prompt_reactor,
    recover_rejection,
    send_whole_messages,
)
from reporting.delivery.transport.tls import TlsFiles, client_context, connection_failure
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID

MAX_PDU_BYTES = 131_072
REJECTED_PERMANENT = 0x01
"""PS3.8 Table 9-21; 0x02 is transient."""
SLOWEST_BYTES_PER_S = 100_000
"""A slower peer is given up, so that an attempt always ends."""

Handler = tuple[Any, Callable[[evt.Event], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An application entity, and how long each phase with it may take."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeout_s: float
    tls: TlsFiles | None

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@contextmanager
def associated(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    handlers: Sequence[Handler] = (),
) -> Iterator[Association]:
    """An established association, released at the end; aborted when the block raises.

    Raises DeliveryPostponed when the peer cannot be had now, DeliveryRefused when it will not.
    """
    association = _associate(peer, contexts, handlers)
    with prompt_reactor(association):
        try:
            yield association
        except BaseException:
            association.abort()
            raise
        if association.is_established:
            association.release()


class LastResponse:
    """The Message ID that the last response of an association answers.

    pynetdicom takes any response of the right kind for the one it waits for.
    """

    def __init__(self) -> None:
        self._message_id: int | None = None

    @property
    def handler(self) -> Handler:
        """For `associated`; runs before pynetdicom passes the response on."""
        return evt.EVT_DIMSE_RECV, self._note

    def answers(self, message_id: int) -> bool:
        """Whether it is the response to this request (PS3.7 9.1.1.1.2)."""
        return self._message_id == message_id

    def _note(self, event: evt.Event) -> None:
        found = event.message.command_set.get("MessageIDBeingRespondedTo")
        if found is not None:
            self._message_id = found


def allow_for(association: Association, timeout_s: float, size_bytes: int) -> None:
    """Give the next message time for its bytes too: pynetdicom's limit starts at queueing."""
    association.dimse_timeout = timeout_s + size_bytes / SLOWEST_BYTES_PER_S


def _associate(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    handlers: Sequence[Handler],
) -> Association:
    context = client_context(peer.tls) if peer.tls else None
    association = _entity(peer).associate(
        _address_of(peer),
        peer.port,
        contexts=[*contexts],
        ae_title=peer.ae_title,
        max_pdu=MAX_PDU_BYTES,
        tls_args=(context, peer.host) if context else None,
        evt_handlers=[(evt.EVT_CONN_OPEN, _limit_socket, [peer.timeout_s]), *handlers],
    )
    if not association.is_established:
        recover_rejection(association)
        raise _failure(peer, association, context.failure if context else None)
    fix_reactor_pause(association)
    send_whole_messages(association)
    return association


def _entity(peer: Peer) -> AE:
    entity = AE(ae_title=peer.calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = "SMEARLINK"
    entity.connection_timeout = peer.timeout_s
    entity.acse_timeout = peer.timeout_s
    entity.dimse_timeout = peer.timeout_s
    entity.network_timeout = peer.timeout_s
    return entity


def _limit_socket(event: evt.Event, timeout_s: float) -> None:
    wrapped = event.assoc.dul.socket
    connection = wrapped.socket if wrapped else None
    if connection is None:
        return
    connection.settimeout(timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _address_of(peer: Peer) -> str | tuple[str, int, int]:
    """Pynetdicom takes names with a dot for IPv4 and others for IPv6, so names end here."""
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as err:
        raise DeliveryPostponed(
            f"The host of {peer} has no address: check the name and the resolver.",
            code="peer_unknown",
        ) from err
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    if family == socket.AF_INET:
        return str(address[0])
    number, _, flow_info, scope_id = cast("tuple[str, int, int, int]", address)
    return number, flow_info, scope_id


def _failure(
    peer: Peer, association: Association, tls_failure: ssl.SSLError | None = None
) -> DeliveryPostponed | DeliveryRefused:
    if tls_failure is not None:
        return connection_failure(str(peer), tls_failure)
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return _rejection(peer, answer.result, answer.reason_str)
    # An association that was accepted and then lost is tried again.
    if answer is not None and answer.result == 0x00 and not association.accepted_contexts:
        return DeliveryRefused(
            f"{peer} accepts none of the presentation contexts: "
            "let it take the SOP classes of docs/conformance.md.",
            code="contexts_refused",
        )
    return DeliveryPostponed(
        f"{peer} cannot be reached, or broke off before an association stood.",
        code="peer_unreachable",
    )


def _rejection(peer: Peer, result: int | None, reason: str) -> DeliveryPostponed | DeliveryRefused:
    if result == REJECTED_PERMANENT:
        return DeliveryRefused(
            f"{peer} rejects the association for good ({reason}): "
            "register our AE title there, or correct the titles in the settings.",
            code="association_rejected",
        )
    return DeliveryPostponed(
        f"{peer} rejects the association for now ({reason}).", code="association_rejected"
    )


def is_address_of(host: str, address: str) -> bool:
    """Whether an IP address is one that a host name stands for now; False if it has none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        ours = {_plain_address(str(entry[4][0])) for entry in found}
        return _plain_address(address) in ours
    except (OSError, ValueError, UnicodeError):
        return False


def _plain_address(text: str) -> IPv4Address | IPv6Address:
    """Without a zone, and IPv4 where IPv6 only wraps it."""
    found = ip_address(text.partition("%")[0])
    wrapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return wrapped or found


def context_for(sop_class_uid: str, transfer_syntax_uid: str) -> PresentationContext:
    """One context a pair: only so does the answer say which transfer syntaxes are taken."""
    return build_context(sop_class_uid, transfer_syntax_uid)
