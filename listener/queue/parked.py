"""Work that ended in an error: how it is shown to a person, and how it is taken up once more."""

from __future__ import annotations

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
)
from listener.queue.parked_reasons import why_parked
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


def parked_image(image: SOPInstanceUID, code: str) -> ParkedWork:
    """An image that lies in the inbox's parked folder under `code`."""
    return ParkedWork(
        key=image_key(image),
        kind=WorkKind.IMAGE,
        code=code,
        message=why_parked(code),
        since=None,
        sop_instance_uid=image,
    )


def parked_work(row: QueueRow) -> ParkedWork:
    """A piece of failed work; its row has its arguments."""
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
    """True when a person means this by `key`: its key, image, smear or destination."""
    names = (parked.key, parked.smear_id, parked.sop_instance_uid, parked.destination)
    return bool(key) and key in names


def retry_job(row: QueueRow, *, wish: str) -> Job:
    """The same work as a new piece; `wish` is a name that no earlier one had."""
    if row.kind is JobKind.DELIVER:
        go = DeliveryAttempt.of(row.arguments)
        return delivery_job(replace(go, series=go.series + 1, attempt=1, tries=1))
    if row.kind is JobKind.CHECK_COMMITMENT:
        wait = CommitmentWait.of(row.arguments)
        again = replace(wait, series=FIRST_SERIES - 1, asked=0, failures=0, look=wait.look + 1)
        return commitment_job(again, delay_s=0.0)
    if row.kind is JobKind.CLOSE_SMEAR:
        return close_job(row.arguments[0], trigger=wish, known=None)
    image, smear_id, attempt = row.arguments
    return image_job(image, smear_id, attempt=attempt + 1)


def _reason(error: BaseException | None) -> tuple[str, str]:
    if error is None:
        return "crashed_repeatedly", "Its worker ended again and again while this was in hand"
    return str(getattr(error, "code", None) or "defect"), str(error)
