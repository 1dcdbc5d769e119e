"""Fits the pictures and documents of a FHIR Bundle to what a server takes.

FHIR strings end at 1 MB (FHIR R4 datatypes.html#string) and servers hold base64 data to that too,
so a picture of a real smear does not pass inline as it is. A site chooses per destination:

inline   within the Bundle; a larger picture is scaled down, a larger document is left out
binary   uploaded as Binary resources before the Bundle, which then names them by URL
links    pictures by the UID of their DICOM object alone
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np

from pipeline.domain import RGB
from pipeline.errors import Defect
from reporting.derived_uids import derived_id
from reporting.results import DICOM_MEDIA_TYPE

JPEG_QUALITY = 90
SMALLER = 0.85
"""Of each side, from one try to the next."""
SMALLEST_SIDE_PX = 200
"""A picture that has to be smaller than this shows nobody anything."""


class Placement(StrEnum):
    """Where pictures and documents of a Bundle go."""

    INLINE = "inline"
    BINARY = "binary"
    LINKS = "links"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Content of a Binary resource (FHIR R4 binary.html), uploaded as it is."""

    id: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedBundle:
    """What is sent of a Bundle."""

    content: bytes
    binaries: tuple[Binary, ...] = ()
    remarks: tuple[str, ...] = ()
    """What was scaled or left out: for the audit."""


def fit_attachments(bundle: bytes, placement: Placement, *, max_bytes: int) -> FittedBundle:
    """The Bundle with its attachments where the site wants them, none above `max_bytes` inline.

    The same Bundle gives the same bytes and ids. Untouched where nothing has to change.
    """
    if placement is Placement.INLINE and len(bundle) <= max_bytes:
        return FittedBundle(content=bundle)
    resources = json.loads(bundle)
    binaries: list[Binary] = []
    remarks: list[str] = []
    for entry in resources["entry"]:
        _fit_resource(entry["resource"], placement, max_bytes, binaries, remarks)
    if not binaries and not remarks:
        return FittedBundle(content=bundle)
    content = json.dumps(resources, ensure_ascii=False, separators=(",", ":")).encode()
    return FittedBundle(content=content, binaries=tuple(binaries), remarks=tuple(remarks))


def _fit_resource(
    resource: dict[str, Any],
    placement: Placement,
    max_bytes: int,
    binaries: list[Binary],
    remarks: list[str],
) -> None:
    left_out = []
    for number, attachment in enumerate(_attachments_of(resource)):
        content = _data_of(attachment)
        is_picture = attachment["contentType"].startswith("image/")
        if placement is Placement.BINARY:
            binary = Binary(
                id=derived_id("fhir-binary", resource["id"], str(number)),
                media_type=attachment["contentType"],
                content=content,
            )
            binaries.append(binary)
            _point_to(attachment, f"Binary/{binary.id}")
        elif placement is Placement.LINKS and is_picture:
            _point_to(attachment, resource["identifier"][0]["value"])
            attachment["contentType"] = DICOM_MEDIA_TYPE
            remarks.append("picture linked to its DICOM object")
        elif len(content) > max_bytes and is_picture:
            smaller = scaled_picture(content, max_bytes)
            attachment["contentType"] = "image/jpeg"
            attachment["data"] = base64.b64encode(smaller).decode()
            remarks.append(f"picture of {len(content)} bytes scaled to {len(smaller)}")
        elif len(content) > max_bytes:
            left_out.append(attachment)
            remarks.append(f"{attachment['contentType']} of {len(content)} bytes left out")
    if left_out:
        kept = [one for one in resource["presentedForm"] if one not in left_out]
        resource["presentedForm"] = kept
        if not kept:
            del resource["presentedForm"]


def scaled_picture(content: bytes, max_bytes: int) -> bytes:
    """A picture as JPEG of at most `max_bytes`, as large as that allows."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise Defect("A picture of a Bundle cannot be read.", code="attachment_unreadable")
    picture: RGB = pixels.astype(np.uint8)
    height, width = picture.shape[:2]
    scale = 1.0
    while min(width, height) * scale >= min(SMALLEST_SIDE_PX, width, height):
        size = (round(width * scale), round(height * scale))
        resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        is_coded, jpeg = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if is_coded and jpeg.size <= max_bytes:
            return bytes(jpeg.tobytes())
        scale *= SMALLER
    raise Defect(
        "A picture of a Bundle does not fit max_attachment_kb; give it more.",
        code="attachment_too_large",
    )


def _attachments_of(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The Attachments with data of a Media or a DiagnosticReport."""
    found = [resource.get("content"), *resource.get("presentedForm", ())]
    return (one for one in found if isinstance(one, dict) and "data" in one)


def _data_of(attachment: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(attachment["data"], validate=True)
    except (binascii.Error, ValueError) as err:
        raise Defect("An attachment is not base64.", code="attachment_unreadable") from err


def _point_to(attachment: dict[str, Any], url: str) -> None:
    del attachment["data"]
    attachment["url"] = url
