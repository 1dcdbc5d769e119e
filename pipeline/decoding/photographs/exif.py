"""Reads the two EXIF values that matter here: orientation, and when the picture was taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from PIL import Image

UPRIGHT = 1
_ORIENTATION, _DATE_TIME, _EXIF_IFD, _DATE_TIME_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x9003
_DATE_FORM = "%Y:%m:%d %H:%M:%S"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exif:
    """Defaults where a file says nothing, or nothing that can be read."""

    orientation: int = UPRIGHT
    taken_at: datetime | None = None
    """By the camera's clock, without a time zone."""


def read_exif(block: bytes) -> Exif:
    """From a TIFF header and its tags (EXIF 2.32 section 4.6); damage counts as nothing said."""
    tags = Image.Exif()
    try:
        tags.load(block)
        orientation = tags.get(_ORIENTATION, UPRIGHT)
        dates = [tags.get_ifd(_EXIF_IFD).get(_DATE_TIME_ORIGINAL), tags.get(_DATE_TIME)]
    # Pillow raises what it likes on damaged tags.
    except Exception:  # noqa: BLE001
        return Exif()
    return Exif(
        orientation=int(orientation) if orientation in range(1, 9) else UPRIGHT,
        taken_at=next(filter(None, map(parse_date, dates)), None),
    )


def parse_date(text: object) -> datetime | None:
    """`2026:11:28 03:04:05` of EXIF and TIFF; None where it is empty or no date."""
    if not isinstance(text, str):
        return None
    try:
        # EXIF has no time zone: it is the local time of the camera.
        return datetime.strptime(text.strip("\0 "), _DATE_FORM)  # noqa: DTZ007
    except ValueError:
        return None
