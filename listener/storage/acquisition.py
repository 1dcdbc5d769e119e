"""The order in which a smear's images were taken: it numbers the fields that a reader sees."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydicom import Dataset

from listener.storage.inbox import Inbox
from pipeline.domain import SOPInstanceUID


def in_order_of_acquisition(
    inbox: Inbox, images: Iterable[SOPInstanceUID]
) -> tuple[SOPInstanceUID, ...]:
    """By Instance Number (PS3.3 C.7.6.1), those without one after them in the order of arrival."""

    def place(uid: SOPInstanceUID) -> tuple[bool, int, datetime, str]:
        number = _instance_number(inbox.read_header(uid))
        return number is None, number or 0, inbox.facts(uid).received_at, uid

    return tuple(sorted(images, key=place))


def _instance_number(header: Dataset) -> int | None:
    """None when it is missing, empty (type 2) or no number."""
    try:
        return int(header.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return None
