"""The attributes that are asked for again and again: those of the file, read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from listener.storage.inbox import Inbox
from listener.storage.short_headers import short_header
from pipeline.domain import SOPInstanceUID
from pipeline.errors import Rejected
from tests.builders import build_image
from tests.listener.storage.keeping import keep


def received(inbox: Inbox) -> SOPInstanceUID:
    return keep(inbox, build_image(number=1)).sop_instance_uid


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


def test_it_says_what_the_whole_header_says(inbox: Inbox) -> None:
    image = received(inbox)

    known = short_header(inbox, image)

    header = inbox.read_header(image)
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "InstanceNumber"):
        assert known.attributes.get(keyword) == header.get(keyword)
    assert known.received_at == inbox.facts(image).received_at


def test_a_file_is_read_once(inbox: Inbox) -> None:
    image = received(inbox)

    assert short_header(inbox, image) is short_header(inbox, image)


def test_a_file_that_was_replaced_is_read_again(inbox: Inbox) -> None:
    image = received(inbox)
    before = short_header(inbox, image)
    path = inbox.path_of(image)
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(1, 1))

    copy.replace(path)

    assert short_header(inbox, image) is not before


def test_an_image_that_is_gone_is_told(inbox: Inbox) -> None:
    image = received(inbox)
    short_header(inbox, image)
    inbox.remove(image)

    with pytest.raises(Rejected) as told:
        short_header(inbox, image)

    assert told.value.code == "image_absent"
