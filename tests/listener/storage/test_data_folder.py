"""A data folder is opened with the limits that the site has set."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import make_settings
from listener.storage.data_folder import MEBIBYTE, open_store
from listener.storage.inbox import StoreRequest
from pipeline.errors import Rejected, RetryLater
from tests.builders import build_image

IMAGE = build_image()
OFFER = StoreRequest(
    sop_class_uid=IMAGE.SOPClassUID,
    sop_instance_uid=IMAGE.SOPInstanceUID,
    transfer_syntax_uid=IMAGE.file_meta.TransferSyntaxUID,
    source="DEVICE",
)


def test_an_image_larger_than_the_site_takes_is_refused(tmp_path: Path) -> None:
    settings = make_settings(
        {"service": {"data_dir": str(tmp_path)}, "dicom": {"max_object_mb": 1}}
    )
    store = open_store(settings, worker_id="w1")

    with pytest.raises(Rejected) as caught, store.inbox.receive(OFFER) as incoming:
        incoming.write(bytes(MEBIBYTE + 1))

    assert caught.value.code == "object_too_large"


def test_nothing_is_taken_where_less_room_is_left_than_the_site_wants(tmp_path: Path) -> None:
    settings = make_settings(
        {
            "service": {"data_dir": str(tmp_path)},
            "retention": {"min_free_disk_mb": 10**7},
        }
    )
    store = open_store(settings, worker_id="w1")

    with pytest.raises(RetryLater) as caught:
        store.inbox.check_free_space()

    assert caught.value.code == "disk_full"


def test_all_of_it_lies_in_the_data_folder(tmp_path: Path) -> None:
    open_store(make_settings({"service": {"data_dir": str(tmp_path / "data")}}), worker_id="w1")

    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert "inbox" in {path.name for path in (tmp_path / "data").iterdir()}
