"""Accepts or rejects associations and their presentation contexts (PS3.8 7.1, PS3.7 annex D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from listener.dicom.associate_request import AssociateRequest, ProposedContext, RequestHead
from listener.dicom.upper_layer import associate_acceptance
from listener.storage.part10 import IMPLEMENTATION_VERSION_NAME
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID

IMAGE_SOP_CLASSES: tuple[UID, ...] = (
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    VLPhotographicImageStorage,
)
"""What is accepted and analysed."""

REFUSED_SOP_CLASSES: tuple[UID, ...] = (VLWholeSlideMicroscopyImageStorage,)
"""Negotiated only so that each object can be answered with a status that says why."""

TRANSFER_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
    JPEGLSLossless,
    JPEGLSNearLossless,
)
"""In the order in which we choose when one context offers several."""

_PLAIN_SYNTAXES = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
# Results of a presentation context (PS3.8 table 9-18).
_ACCEPTANCE, _USER_REJECTION = 0, 1
_ABSTRACT_SYNTAX_NOT_SUPPORTED, _TRANSFER_SYNTAXES_NOT_SUPPORTED = 3, 4


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedContext:
    """One accepted presentation context."""

    context_id: int
    abstract_syntax: UID
    transfer_syntax: UID


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was negotiated."""

    contexts: Mapping[int, AcceptedContext]
    """By their id."""
    reply: bytes
    """A-ASSOCIATE-AC"""


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


def accept(request: AssociateRequest, *, max_pdu_bytes: int) -> Agreement:
    """Chooses presentation contexts and roles, and encodes the A-ASSOCIATE-AC."""
    contexts: dict[int, AcceptedContext] = {}
    results: list[tuple[int, int, str]] = []
    for proposed in request.contexts:
        result, syntax = _result_for(proposed, request.roles)
        results.append((proposed.context_id, result, syntax))
        if result == _ACCEPTANCE:
            contexts[proposed.context_id] = AcceptedContext(
                context_id=proposed.context_id,
                abstract_syntax=UID(proposed.abstract_syntax),
                transfer_syntax=UID(syntax),
            )
    accepted = {one.abstract_syntax for one in contexts.values()}
    reports = StorageCommitmentPushModel in accepted & request.roles.keys()
    return Agreement(
        contexts=contexts,
        reply=associate_acceptance(
            request.head.echoed,
            application_context=_APPLICATION_CONTEXT,
            contexts=results,
            roles=[(str(StorageCommitmentPushModel), False, True)] if reports else [],
            max_pdu_bytes=max_pdu_bytes,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        ),
    )


def _result_for(
    proposed: ProposedContext, roles: Mapping[str, tuple[bool, bool]]
) -> tuple[int, str]:
    """Result and transfer syntax for one context; the syntax means nothing unless accepted."""
    ours = _SUPPORTED.get(proposed.abstract_syntax)
    if ours is None:
        return _ABSTRACT_SYNTAX_NOT_SUPPORTED, str(ImplicitVRLittleEndian)
    syntax = next((one for one in ours if one in proposed.transfer_syntaxes), None)
    if syntax is None:
        return _TRANSFER_SYNTAXES_NOT_SUPPORTED, str(ImplicitVRLittleEndian)
    if proposed.abstract_syntax == StorageCommitmentPushModel:
        # Some peers report without negotiating roles; one that does must ask to be the SCP.
        _, is_scp = roles.get(proposed.abstract_syntax, (False, True))
        if not is_scp:
            return _USER_REJECTION, syntax
    return _ACCEPTANCE, syntax


def _is_bound(caller: Caller, binding: PeerBinding) -> bool:
    address_fits = not binding.networks or any(
        ip_address(caller.address) in network for network in binding.networks
    )
    subject = binding.certificate_subject
    return address_fits and (not subject or subject == caller.certificate_subject)


_SUPPORTED: dict[str, tuple[str, ...]] = {
    str(Verification): _PLAIN_SYNTAXES,
    # As SCU, so that a PACS may report to us as SCP (PS3.4 J.3).
    str(StorageCommitmentPushModel): _PLAIN_SYNTAXES,
    **{
        str(sop_class): tuple(map(str, TRANSFER_SYNTAXES))
        for sop_class in (*IMAGE_SOP_CLASSES, *REFUSED_SOP_CLASSES)
    },
}
"""Transfer syntaxes by SOP class, in the order in which we choose."""
