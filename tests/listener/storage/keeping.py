"""Puts images into an inbox as the listener does."""

from __future__ import annotations

from pydicom import Dataset

from listener.storage.inbox import Inbox, StoredInstance, StoreRequest
from tests.builders import dataset_bytes


def keep(inbox: Inbox, image: Dataset) -> StoredInstance:
    """Receive the image in its own transfer syntax."""
    offer = StoreRequest(
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
        source="DEVICE",
    )
    with inbox.receive(offer) as incoming:
        incoming.write(dataset_bytes(image))
        return incoming.commit()
