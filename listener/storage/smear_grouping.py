"""Which images make one smear, those of a series or of a specimen, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydicom import Dataset

from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.short_headers import short_header
from pipeline.domain import SmearId, SOPInstanceUID
from reporting.derived_uids import derived_uid

GatherBy = Literal["series", "specimen"]


def smear_id_of(image: StoredInstance, gather_by: GatherBy) -> SmearId:
    """Id of the smear that an image belongs to; safe as a folder name, free of patient data.

    An image that names no specimen is gathered by its series.
    """
    if gather_by == "specimen" and image.specimen_key:
        return SmearId(derived_uid("smear", image.study_uid, image.specimen_key))
    return SmearId(image.series_uid)


def in_order_of_acquisition(
    inbox: Inbox, images: Iterable[SOPInstanceUID]
) -> tuple[SOPInstanceUID, ...]:
    """By Instance Number (PS3.3 C.7.6.1), those without one after them in the order of arrival."""

    def place(uid: SOPInstanceUID) -> tuple[bool, int, datetime, str]:
        known = short_header(inbox, uid)
        number = _instance_number(known.attributes)
        return number is None, number or 0, known.received_at, uid

    return tuple(sorted(images, key=place))


def _instance_number(header: Dataset) -> int | None:
    """None when it is missing, empty (type 2) or no number."""
    try:
        return int(header.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return None
