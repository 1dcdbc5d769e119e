"""Negotiates presentation contexts: SOP Classes and Transfer Syntaxes (PS3.8 7.1, PS3.7 D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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

from listener.dicom.associate_request import AssociateRequest, ProposedContext
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
