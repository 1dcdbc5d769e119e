"""What a DICOM status means for what happens next (PS3.4 Table B.2-1, PS3.7 Annex C).

The same numbers come as C-STORE status and as Failure Reason (0008,1197) of STOW-RS and of
Storage Commitment.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
"""The other side stumbled over itself; PS3.7 C.5.14."""
NO_SUCH_INSTANCE = 0x0112
"""Commitment of what it does not hold (any more): send it again."""
DUPLICATE_INSTANCE = 0x0111
"""It has that UID already; our UIDs follow from the content, so it has this result."""
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
RESOURCE_LIMITATION = 0x0213
"""Too busy or too full at the moment; PS3.7 C.5.18."""
DUPLICATE_TRANSACTION = 0x0131
"""It is working on that commitment request already; PS3.4 Table J.3-2."""
OUT_OF_RESOURCES = range(0xA700, 0xA800)
DATA_SET_DOES_NOT_MATCH = range(0xA900, 0xAA00)
CANNOT_UNDERSTAND = range(0xC000, 0xD000)
WARNING = range(0xB000, 0xC000)
"""Coercion, elements discarded, and so on: stored."""
GENERAL_WARNINGS = (0x0001, 0x0107, 0x0116)


class Verdict(StrEnum):
    """What a status makes of one result."""

    ACCEPTED = "accepted"
    ACCEPTED_WITH_NOTE = "accepted_with_note"
    LATER = "later"
    REVIEW = "review"


def classify_status(status: int) -> Verdict:
    """What happens next after `status`; an unknown one needs a person."""
    if status == SUCCESS:
        return Verdict.ACCEPTED
    if status in WARNING or status in GENERAL_WARNINGS or status == DUPLICATE_INSTANCE:
        return Verdict.ACCEPTED_WITH_NOTE
    later = (PROCESSING_FAILURE, NO_SUCH_INSTANCE, RESOURCE_LIMITATION)
    if status in OUT_OF_RESOURCES or status in later:
        return Verdict.LATER
    return Verdict.REVIEW


HEXADECIMAL = re.compile(r"(?:0x)?([0-9A-F]{4})H?", re.IGNORECASE)
DECIMAL = re.compile(r"[0-9]{1,3}|[0-9]{5}")


def read_status(value: Any) -> int | None:
    """A status or Failure Reason as peers write it, as number or text; None for anything else.

    Text of four digits is hexadecimal, as the standard writes statuses (`A700`, `0x0112`,
    `0110H`); of one, two, three or five digits it is decimal (`272`).
    """
    match value:
        case bool():
            return None
        case int():
            number = value
        case float() if value.is_integer():
            number = int(value)
        case bytes() if len(value) == 2:
            number = int.from_bytes(value, "little")
        case str():
            return _status_in(value.strip(" \0"))
        case list() | tuple() if len(value) == 1:
            return read_status(value[0])
        case _:
            return None
    return number if 0 <= number <= 0xFFFF else None


def _status_in(text: str) -> int | None:
    if DECIMAL.fullmatch(text) and text.isascii():
        return read_status(int(text))
    found = HEXADECIMAL.fullmatch(text)
    return int(found[1], 16) if found else None


def format_status(status: int) -> str:
    """`0xA700`, as the standard and every PACS log write it."""
    return f"0x{status:04X}"


def describe_status(status: int) -> str:
    """A few words for people."""
    named = {
        SUCCESS: "success",
        0xB000: "coercion of data elements",
        0xB006: "elements discarded",
        0xB007: "data set does not match SOP class, stored",
        PROCESSING_FAILURE: "processing failure",
        DUPLICATE_INSTANCE: "the instance is there already",
        NO_SUCH_INSTANCE: "no such instance",
        0x0119: "class and instance do not fit",
        SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
        NOT_AUTHORIZED: "not authorized",
        DUPLICATE_TRANSACTION: "duplicate transaction UID",
        RESOURCE_LIMITATION: "resource limitation",
    }
    ranges = (
        (OUT_OF_RESOURCES, "out of resources"),
        (DATA_SET_DOES_NOT_MATCH, "data set does not match SOP class"),
        (CANNOT_UNDERSTAND, "cannot understand"),
        (WARNING, "warning"),
    )
    in_range = next((words for codes, words in ranges if status in codes), "failure")
    return named.get(status, in_range)
