"""Images of one series, or of one specimen, make one smear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from listener.storage.inbox import Inbox, ReceivedImage
from listener.storage.smear_grouping import smear_id_of
from pipeline.domain import SeriesUID, StudyUID
from tests.listener.house import receive


@pytest.fixture
def image(tmp_path: Path) -> ReceivedImage:
    received = receive(Inbox(tmp_path / "inbox"), "1.2.3.4", 1)
    return replace(received, specimen_key="5" * 64)


def test_without_a_specimen_the_series_decides(image: ReceivedImage) -> None:
    assert smear_id_of(replace(image, specimen_key=""), "specimen") == "1.2.3.4"


def test_by_series_the_specimen_does_not_matter(image: ReceivedImage) -> None:
    other = replace(image, specimen_key="6" * 64)

    assert smear_id_of(image, "series") == smear_id_of(other, "series") == "1.2.3.4"


def test_by_specimen_the_series_does_not_matter(image: ReceivedImage) -> None:
    other = replace(image, series_uid=SeriesUID("1.2.3.5"))

    assert smear_id_of(image, "specimen") == smear_id_of(other, "specimen")


def test_the_same_specimen_key_in_another_study_is_another_smear(image: ReceivedImage) -> None:
    """Identifiers of slides may repeat between laboratories and years."""
    other = replace(image, study_uid=StudyUID("1.2.9"))

    assert smear_id_of(image, "specimen") != smear_id_of(other, "specimen")


def test_another_specimen_is_another_smear(image: ReceivedImage) -> None:
    other = replace(image, specimen_key="6" * 64)

    assert smear_id_of(image, "specimen") != smear_id_of(other, "specimen")


def test_a_name_tells_nothing_of_the_specimen(image: ReceivedImage) -> None:
    """It becomes a folder's name and stands in the queue."""
    name = smear_id_of(replace(image, specimen_key="SLIDE-OF-JANE"), "specimen")

    assert "JANE" not in name
    assert name.startswith("2.25.")
