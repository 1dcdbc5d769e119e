"""Which images make one smear: those of a series, or those of a specimen."""

from __future__ import annotations

from typing import Literal

from listener.storage.inbox import ReceivedImage
from pipeline.domain import SmearId
from reporting.derived_uids import derived_uid

GatherBy = Literal["series", "specimen"]


def smear_id_of(image: ReceivedImage, gather_by: GatherBy) -> SmearId:
    """Name the smear that an image belongs to; safe as a folder name, free of patient data.

    An image that names no specimen is gathered by its series.
    """
    if gather_by == "specimen" and image.specimen_key:
        return SmearId(derived_uid("smear", image.study_uid, image.specimen_key))
    return SmearId(image.series_uid)
