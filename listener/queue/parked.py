"""Parked work: how it is shown to a person, and the job that retries it.

Only the code is kept with a parked image, because a message may repeat what the image held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from listener.queue.dbos_adapter import QueueRow
from listener.queue.jobs import (
    CommitmentWait,
    DeliveryAttempt,
    Job,
    JobKind,
    close_job,
    commitment_job,
    delivery_job,
    image_job,
    image_key,
    manual_request_id,
)
from listener.queue.status import ParkedWork, WorkKind
from pipeline.domain import SOPInstanceUID

FIRST_SERIES = 0
"""Of deliveries; a person's retry of a commitment may send again as often as a new delivery."""

_KINDS = {
    JobKind.ANALYSE_IMAGE: WorkKind.IMAGE,
    JobKind.CLOSE_SMEAR: WorkKind.REPORT,
    JobKind.DELIVER: WorkKind.DELIVERY,
    JobKind.CHECK_COMMITMENT: WorkKind.COMMITMENT,
}

WHY_PARKED: Mapping[str, str] = {
    "corrupt_pixel_data": "its pixel data is damaged: send it again from its source",
    "decode_failed": "its pixel data cannot be decoded: export it again from its source",
    "not_an_image": "it has no rows, columns or color description: send images only",
    "no_pixel_data": "it holds no pixel data: send the image, not only its header",
    "too_large": "it has more pixels than image.max_megapixels allows",
    "too_small": "it is smaller than image.min_side_px: no whole white cell fits into it",
    "bad_count": "it has no frame, or more than image.max_frames allows",
    "truncated_pixel_data": "its pixel data ends too early: send it again",
    "wrong_length": "its pixel data does not fit its rows and columns: export it again",
    "unsupported_bit_depth": "only 8 and 16 bits per sample can be read",
    "unsupported_photometric": "its color space cannot be read: send RGB or YBR",
    "unsupported_transfer_syntax": "its compression cannot be read: see the conformance statement",
    "defect": "a defect in smearlink: keep the image and report it; the audit trail has the place",
}


def parked_image(image: SOPInstanceUID, code: str) -> ParkedWork:
    """An image in the inbox's parked folder, under `code`."""
    return ParkedWork(
        key=image_key(image),
        kind=WorkKind.IMAGE,
        code=code,
        message=why_parked(code),
        since=None,
        sop_instance_uid=image,
    )


def parked_work(row: QueueRow) -> ParkedWork:
    """A failed job; its row has its arguments."""
    code, message = _reason(row.error)
    is_image = row.kind is JobKind.ANALYSE_IMAGE
    has_destination = row.kind in (JobKind.DELIVER, JobKind.CHECK_COMMITMENT)
    return ParkedWork(
        key=row.id,
        kind=_KINDS[row.kind],
        code=code,
        message=message,
        since=row.ended_at,
        smear_id=row.arguments[1 if is_image else 0],
        sop_instance_uid=row.arguments[0] if is_image else "",
        destination=row.arguments[2] if has_destination else "",
    )


def is_named(parked: ParkedWork, key: str) -> bool:
    """Whether a person means this by `key`: its key, image, smear or destination."""
    names = (parked.key, parked.smear_id, parked.sop_instance_uid, parked.destination)
    return bool(key) and key in names


def retry_job(row: QueueRow) -> Job:
    """A new job that does the same."""
    if row.kind is JobKind.DELIVER:
        delivery = DeliveryAttempt.of(row.arguments)
        return delivery_job(replace(delivery, series=delivery.series + 1, attempt=1, tries=1))
    if row.kind is JobKind.CHECK_COMMITMENT:
        wait = CommitmentWait.of(row.arguments)
        again = replace(wait, series=FIRST_SERIES - 1, asked=0, failures=0, look=wait.look + 1)
        return commitment_job(again, delay_s=0.0)
    if row.kind is JobKind.CLOSE_SMEAR:
        return close_job(row.arguments[0], trigger=manual_request_id(), known=None)
    image, smear_id, attempt = row.arguments
    return image_job(image, smear_id, attempt=attempt + 1)


def _reason(error: BaseException | None) -> tuple[str, str]:
    if error is None:
        return "crashed_repeatedly", "Its worker ended again and again while this was in progress"
    return str(getattr(error, "code", None) or "defect"), str(error)


def why_parked(code: str) -> str:
    """One line for a code; the audit trail says more."""
    return WHY_PARKED.get(code, "it was parked; the audit trail says more")
