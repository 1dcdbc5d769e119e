"""Who may open an association with us, and what may be sent in it (PS3.8 7.1, PS3.7 annex D)."""

from __future__ import annotations

from collections.abc import Sequence
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
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from listener.dicom.upper_layer import AbortReason, ProtocolViolation
from listener.storage.part10 import IMPLEMENTATION_VERSION_NAME
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID

IMAGE_SOP_CLASSES: tuple[UID, ...] = (
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    VLPhotographicImageStorage,
)
"""What we take and analyse."""

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

_PLAIN_SYNTAXES: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


class Refusal(Enum):
    """A-ASSOCIATE-RJ as (result, source, reason), PS3.8 table 9-21."""

    CALLED_AE_UNKNOWN = (1, 1, 7)
    CALLING_AE_UNKNOWN = (1, 1, 3)
    APPLICATION_CONTEXT_UNKNOWN = (1, 1, 2)
    PROTOCOL_VERSION_UNKNOWN = (1, 2, 2)
    TOO_MANY_ASSOCIATIONS = (2, 3, 2)
    """Transient: local limit exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerBinding:
    """A calling AE title is believed only from these addresses and with this certificate."""

    ae_title: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    certificate_subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """Which AE titles may call, and by which name they must call us. Empty sets allow any."""

    called_aes: frozenset[str] = frozenset()
    calling_aes: frozenset[str] = frozenset()
    ties: tuple[PeerBinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who stands at the other end, as far as the network can say."""

    ae_title: str
    address: str
    certificate_subject: str
    """RFC 4514 text of the verified client certificate; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was negotiated."""

    contexts: dict[int, PresentationContext]
    """Accepted ones by their id."""
    reply: bytes
    """A-ASSOCIATE-AC"""


def read_request(pdu: bytes) -> A_ASSOCIATE_RQ:
    """Decode an A-ASSOCIATE-RQ. Raises ProtocolViolation."""
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(pdu)
        _ = request.to_primitive()
    except Exception as err:
        raise ProtocolViolation(
            "Not an A-ASSOCIATE-RQ (PS3.8 9.3.2)", reason=AbortReason.INVALID_PARAMETER
        ) from err
    return request


def rejection_for(request: A_ASSOCIATE_RQ, caller: Caller, policy: AccessPolicy) -> Refusal | None:
    """Why this caller is turned away, or None."""
    if not request.protocol_version & 1:
        return Refusal.PROTOCOL_VERSION_UNKNOWN
    if request.application_context_name != _APPLICATION_CONTEXT:
        return Refusal.APPLICATION_CONTEXT_UNKNOWN
    if policy.called_aes and request.called_ae_title not in policy.called_aes:
        return Refusal.CALLED_AE_UNKNOWN
    if policy.calling_aes and caller.ae_title not in policy.calling_aes:
        return Refusal.CALLING_AE_UNKNOWN
    ties = [tie for tie in policy.ties if tie.ae_title == caller.ae_title]
    if ties and not any(_is_tied(caller, tie) for tie in ties):
        return Refusal.CALLING_AE_UNKNOWN
    return None


def accept(request: A_ASSOCIATE_RQ, *, max_pdu_bytes: int) -> Agreement:
    """Choose presentation contexts and roles, and word the acceptance."""
    proposal = request.to_primitive()
    items = proposal.user_information
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in items
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid
    }
    contexts, granted = negotiate_as_acceptor(
        proposal.presentation_context_definition_list, _supported(), roles
    )
    return Agreement(
        contexts={
            context.context_id: context
            for context in contexts
            if context.result == 0 and context.context_id
        },
        reply=_acceptance(proposal, contexts, granted, max_pdu_bytes=max_pdu_bytes),
    )


def _is_tied(caller: Caller, tie: PeerBinding) -> bool:
    address_fits = not tie.networks or any(
        ip_address(caller.address) in network for network in tie.networks
    )
    subject = tie.certificate_subject
    return address_fits and (not subject or subject == caller.certificate_subject)


def _supported() -> list[PresentationContext]:
    """Storage as SCP; storage commitment as SCU, so that a PACS may report to us (PS3.4 J.3)."""
    commitment = build_context(StorageCommitmentPushModel, _PLAIN_SYNTAXES)
    commitment.scu_role, commitment.scp_role = False, True
    return [
        build_context(Verification, _PLAIN_SYNTAXES),
        commitment,
        *(
            build_context(sop_class, [*TRANSFER_SYNTAXES])
            for sop_class in (*IMAGE_SOP_CLASSES, *REFUSED_SOP_CLASSES)
        ),
    ]


def _acceptance(
    proposal: A_ASSOCIATE,
    contexts: Sequence[PresentationContext],
    granted: Sequence[SCP_SCU_RoleSelectionNegotiation],
    *,
    max_pdu_bytes: int,
) -> bytes:
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(_APPLICATION_CONTEXT)
    answer.calling_ae_title = proposal.calling_ae_title
    answer.called_ae_title = proposal.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = list(contexts)
    answer.user_information = [longest, implementation, version, *granted]
    return bytes(A_ASSOCIATE_AC(answer).encode())
