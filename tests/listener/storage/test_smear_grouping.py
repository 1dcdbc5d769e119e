"""Images of one series or specimen make one smear; fields are numbered as they were taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.smear_grouping import in_order_of_acquisition, smear_id_of
from pipeline.domain import SeriesUID, SOPInstanceUID, StudyUID
from pipeline.errors import Rejected
from tests.builders import build_image
from tests.listener.house import receive
from tests.listener.storage.keeping import keep


@pytest.fixture
def image(tmp_path: Path) -> StoredInstance:
    received = receive(Inbox(tmp_path / "inbox"), "1.2.3.4", 1)
    return replace(received, specimen_key="5" * 64)


def test_without_a_specimen_the_series_decides(image: StoredInstance) -> None:
    assert smear_id_of(replace(image, specimen_key=""), "specimen") == "1.2.3.4"


def test_by_series_the_specimen_does_not_matter(image: StoredInstance) -> None:
    other = replace(image, specimen_key="6" * 64)

    assert smear_id_of(image, "series") == smear_id_of(other, "series") == "1.2.3.4"


def test_by_specimen_the_series_does_not_matter(image: StoredInstance) -> None:
    other = replace(image, series_uid=SeriesUID("1.2.3.5"))

    assert smear_id_of(image, "specimen") == smear_id_of(other, "specimen")


def test_the_same_specimen_key_in_another_study_is_another_smear(image: StoredInstance) -> None:
    """Identifiers of slides may repeat between laboratories and years."""
    other = replace(image, study_uid=StudyUID("1.2.9"))

    assert smear_id_of(image, "specimen") != smear_id_of(other, "specimen")


def test_another_specimen_is_another_smear(image: StoredInstance) -> None:
    other = replace(image, specimen_key="6" * 64)

    assert smear_id_of(image, "specimen") != smear_id_of(other, "specimen")


def test_a_name_tells_nothing_of_the_specimen(image: StoredInstance) -> None:
    """It becomes a folder's name and stands in the queue."""
    name = smear_id_of(replace(image, specimen_key="SLIDE-OF-JANE"), "specimen")

    assert "JANE" not in name
    assert name.startswith("2.25.")


# --- the order of its images


def received(inbox: Inbox, number: int, instance_number: Any) -> SOPInstanceUID:
    """An image whose Instance Number is `instance_number`; None leaves it out."""
    image = build_image(number=number)
    if instance_number is None:
        del image.InstanceNumber
    else:
        image.InstanceNumber = instance_number
    return keep(inbox, image).sop_instance_uid


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
        in_order_of_acquisition(inbox, [here, SOPInstanceUID("2.25.404")])

    assert caught.value.code == "image_absent"
