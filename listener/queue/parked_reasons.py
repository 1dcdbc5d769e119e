"""Why an image was set aside, for the person who has to do something about it.

Only the code is kept with a parked image, because a message may speak of what the image held.
"""

from __future__ import annotations

from collections.abc import Mapping

WHY_PARKED: Mapping[str, str] = {
    "corrupt_pixel_data": "its pixel data is damaged: send it again from its source",
    "decode_failed": "its pixel data cannot be decoded: export it again from its source",
    "not_an_image": "it says nothing of rows, columns or colours: send images only",
    "no_pixel_data": "it holds no pixel data: send the image, not only its header",
    "too_large": "it has more pixels than image.max_megapixels allows",
    "too_small": "it is smaller than image.min_side_px: no whole white cell fits into it",
    "bad_count": "it has no frame, or more than image.max_frames allows",
    "truncated_pixel_data": "its pixel data ends too early: send it again",
    "wrong_length": "its pixel data is not as long as rows and columns say: export it again",
    "unsupported_bit_depth": "only 8 and 16 bits a sample can be read",
    "unsupported_photometric": "its colour space cannot be read: send RGB or YBR",
    "unsupported_transfer_syntax": "its compression cannot be read: see the conformance statement",
    "defect": "a fault of our own: keep the image and report it; the audit trail has the place",
}


def why_parked(code: str) -> str:
    """One line for a code; the audit trail says more."""
    return WHY_PARKED.get(code, "it was set aside; the audit trail says more")
