"""Selects the transfer syntax for a peer and transcodes to it, never with a further loss."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence

from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

TRANSFER_SYNTAXES: Mapping[str, UID] = {
    "explicit_little_endian": ExplicitVRLittleEndian,
    "implicit_little_endian": ImplicitVRLittleEndian,
    "jpeg_baseline": JPEGBaseline8Bit,
    "jpeg_2000_lossless": JPEG2000Lossless,
    "rle_lossless": RLELossless,
}
"""By name in the settings."""

BY_PREFERENCE: tuple[UID, ...] = (
    JPEGBaseline8Bit,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
LOSSLESS_ENCODERS = (RLELossless, JPEG2000Lossless)


def candidate_syntaxes(
    own: UID, *, has_8_bit_pixels: bool, preference: Sequence[UID]
) -> tuple[UID, ...]:
    """The syntaxes in which a dataset can be sent, those that the site prefers first.

    Its own one needs no change; uncompressed is always possible; a lossless encoder works on
    8-bit pixels. Uncompressed and its own end the list even if the site does not name them:
    implicit little endian is the default that every peer must take (PS3.5 section 10.1), and
    any syntax is better than a refusal.
    """
    possible = {own, *UNCOMPRESSED} | ({*LOSSLESS_ENCODERS} if has_8_bit_pixels else set())
    preferred = [syntax for syntax in preference if syntax in possible]
    return tuple(dict.fromkeys([*preferred, *UNCOMPRESSED, own]))


def select_syntax(offered: Sequence[UID], accepted: Collection[str]) -> UID | None:
    """The first offered syntax that the peer accepts."""
    return next((syntax for syntax in offered if syntax in accepted), None)


def transcode(content: bytes, target: UID) -> bytes:
    """A Part 10 file, in `target`.

    What a viewer shows stays the same, so the SOP Instance UID and the record of an earlier
    lossy compression (PS3.3 C.7.6.1.1.5) stay too.
    """
    dataset = dcmread(io.BytesIO(content))
    own = dataset.file_meta.TransferSyntaxUID
    if own == target:
        return content
    if own.is_encapsulated:
        dataset.decompress(as_rgb=True, generate_instance_uid=False)
    if target in LOSSLESS_ENCODERS:
        dataset.compress(target, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = target
    buffer = io.BytesIO()
    dataset.save_as(
        buffer, implicit_vr=target.is_implicit_VR, little_endian=True, enforce_file_format=True
    )
    return buffer.getvalue()
