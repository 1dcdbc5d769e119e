"""Fields are numbered as they were taken, whatever their UIDs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from listener.storage.acquisition import in_order_of_acquisition
from listener.storage.inbox import Inbox, StoreRequest
from pipeline.errors import Rejected
from tests.builders import build_image, dataset_bytes


def received(inbox: Inbox, number: int, instance_number: Any) -> str:
    """An image whose Instance Number is `instance_number`; None leaves it out."""
    image = build_image(number=number)
    if instance_number is None:
        del image.InstanceNumber
    else:
        image.InstanceNumber = instance_number
    offer = StoreRequest(
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
        source="DEVICE",
    )
    with inbox.receive(offer) as incoming:
        incoming.write(dataset_bytes(image))
        return incoming.commit().sop_instance_uid


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


def test_by_instance_number_and_not_by_arrival(inbox: Inbox) -> None:
    arrived = [received(inbox, n, number) for n, number in enumerate((10, 9, 100, -1), start=1)]

    order = in_order_of_acquisition(inbox, arrived)

    assert [arrived.index(uid) for uid in order] == [3, 1, 0, 2]


def test_without_a_number_in_the_order_of_arrival(inbox: Inbox) -> None:
    """Missing, or empty, which type 2 allows."""
    arrived = [received(inbox, n, number) for n, number in enumerate((None, "", None), start=1)]

    assert in_order_of_acquisition(inbox, reversed(arrived)) == tuple(arrived)


def test_what_has_no_number_comes_after_what_has(inbox: Inbox) -> None:
    first, second = received(inbox, 1, None), received(inbox, 2, 7)

    assert in_order_of_acquisition(inbox, [first, second]) == (second, first)


def test_equal_numbers_keep_the_order_of_arrival(inbox: Inbox) -> None:
    arrived = [received(inbox, n, 1) for n in range(1, 6)]

    assert in_order_of_acquisition(inbox, set(arrived)) == tuple(arrived)


def test_an_image_that_is_gone(inbox: Inbox) -> None:
    here = received(inbox, 1, 1)

    with pytest.raises(Rejected) as caught:
        in_order_of_acquisition(inbox, [here, "2.25.404"])

    assert caught.value.code == "image_absent"
