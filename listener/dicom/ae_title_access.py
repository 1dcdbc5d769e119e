"""Checks who may associate: called and calling AE title, address, certificate (PS3.8 9.3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from listener.dicom.associate_request import AssociateRequest, RequestHead

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


class Rejection(Enum):
    """A-ASSOCIATE-RJ as (result, source, reason), PS3.8 table 9-21."""

    CALLED_AE_UNKNOWN = (1, 1, 7)
    CALLING_AE_UNKNOWN = (1, 1, 3)
    APPLICATION_CONTEXT_UNKNOWN = (1, 1, 2)
    PROTOCOL_VERSION_UNKNOWN = (1, 2, 2)
    TOO_MANY_ASSOCIATIONS = (2, 3, 2)
    """Transient: local limit exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerBinding:
    """A calling AE title is accepted only from these addresses and with this certificate."""

    ae_title: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    certificate_subject: str = ""

    @property
    def proves_something(self) -> bool:
        """Whether address or certificate bind the AE title."""
        return bool(self.networks or self.certificate_subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """Which AE titles may call, and by which name they must call us. Empty sets allow any."""

    called_aes: frozenset[str] = frozenset()
    calling_aes: frozenset[str] = frozenset()
    bindings: tuple[PeerBinding, ...] = ()

    @property
    def bound_aes(self) -> frozenset[str]:
        """AE titles that callers have proved by address or certificate once they are let in.

        A binding that names neither proves nothing.
        """
        unproved = {one.ae_title for one in self.bindings if not one.proves_something}
        return frozenset(one.ae_title for one in self.bindings) - unproved


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The peer, as far as the network identifies it."""

    ae_title: str
    address: str
    certificate_subject: str
    """RFC 4514 text of the verified client certificate; empty without one."""


def rejection_of_caller(
    head: RequestHead, caller: Caller, policy: AccessPolicy
) -> Rejection | None:
    """Why a caller may not associate, from the fixed part of its request alone; None if it may."""
    if not head.protocol_version & 1:
        return Rejection.PROTOCOL_VERSION_UNKNOWN
    if policy.called_aes and head.called_ae_title not in policy.called_aes:
        return Rejection.CALLED_AE_UNKNOWN
    if policy.calling_aes and caller.ae_title not in policy.calling_aes:
        return Rejection.CALLING_AE_UNKNOWN
    bindings = [one for one in policy.bindings if one.ae_title == caller.ae_title]
    if bindings and not any(_is_bound(caller, one) for one in bindings):
        return Rejection.CALLING_AE_UNKNOWN
    return None


def rejection_for(
    request: AssociateRequest, caller: Caller, policy: AccessPolicy
) -> Rejection | None:
    """Why an association is rejected, or None."""
    if not request.head.protocol_version & 1:
        return Rejection.PROTOCOL_VERSION_UNKNOWN
    if request.application_context != _APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_UNKNOWN
    return rejection_of_caller(request.head, caller, policy)


def _is_bound(caller: Caller, binding: PeerBinding) -> bool:
    address_fits = not binding.networks or any(
        ip_address(caller.address) in network for network in binding.networks
    )
    subject = binding.certificate_subject
    return address_fits and (not subject or subject == caller.certificate_subject)
