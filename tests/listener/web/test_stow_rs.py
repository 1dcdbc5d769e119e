"""STOW-RS: parts become images, however the body is cut, and each is answered for itself."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLossless,
    VLWholeSlideMicroscopyImageStorage,
)

from listener.dicom.dimse import Status
from listener.storage.inbox import Inbox, InboxLimits, StoredInstance
from listener.web.stow_rs import (
    MAX_PARTS,
    PartOutcome,
    StowReader,
    response_dataset,
    response_status,
)
from pipeline.errors import Rejected
from reporting.audit.trail import Actor, Event
from tests.builders import build_image, file_bytes, with_patient
from tests.fakes import RecordingAudit
from tests.listener.peers import dataset_of

BOUNDARY = b"smear"
DICOM = b"application/dicom"


# --- what is no request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"--other\r\n\r\n--other--\r\n",
        b"--smear\r\nContent-Type: application/dicom\r\n\r\nhalf",
        b"\x00" * 1000,
    ],
)
def test_a_body_that_is_no_whole_multipart_is_refused_and_leaves_nothing(
    tmp_path: Path, body: bytes
) -> None:
    with pytest.raises(Rejected) as refusal, _reader(tmp_path) as reader:
        reader.feed(body)
        reader.finish()

    assert refusal.value.code == "bad_multipart"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_request_of_too_many_parts_is_refused(tmp_path: Path) -> None:
    part = b"--smear\r\nContent-Type: text/plain\r\n\r\nx\r\n"

    with pytest.raises(Rejected, match="several requests"), _reader(tmp_path) as reader:
        reader.feed(part * (MAX_PARTS + 1))


# --- parts that are refused


def test_a_large_deflated_file_is_stored(tmp_path: Path) -> None:
    """Also one whose dataset is longer than the first piece that is looked at."""
    pixels = np.random.default_rng(7).integers(0, 255, (300, 400, 3), np.uint8)
    image = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian, pixels=pixels)
    file = file_bytes(image)
    assert len(file) > 100_000

    with _reader(tmp_path) as reader:
        body = _body([file], DICOM)
        for start in range(0, len(body), 1000):
            reader.feed(body[start : start + 1000])
        (outcome,) = reader.finish()

    assert outcome.status is Status.SUCCESS
    assert Inbox(tmp_path).read(outcome.sop_instance_uid).PixelData == image.PixelData


def test_a_bomb_in_a_part_is_refused_without_inflating_it(tmp_path: Path) -> None:
    image = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian)
    file = file_bytes(image)
    header = file[: len(file) - len(dataset_of(file))]
    machine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = machine.compress(bytes(50_000_000)) + machine.flush()
    limits = InboxLimits(max_object_bytes=10_000_000)
    tracemalloc.start()

    (outcome,) = _stored(tmp_path, [header + bomb], limits=limits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert outcome.status is Status.CANNOT_UNDERSTAND_TOO_LARGE
    assert peak < 5_000_000


def test_a_bad_part_stops_no_other(tmp_path: Path) -> None:
    good = file_bytes(build_image(number=1))
    bad = b"no dicom at all"

    outcomes = _stored(tmp_path, [good, bad, file_bytes(build_image(number=2))])

    assert [one.status is Status.SUCCESS for one in outcomes] == [True, False, True]
    assert response_status(outcomes) == 202
    assert len(list(Inbox(tmp_path).waiting())) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 200,
        file_bytes(build_image())[:200],
        file_bytes(build_image(sop_class=VLWholeSlideMicroscopyImageStorage)),
    ],
    ids=["empty", "noise", "header_cut", "whole_slide"],
)
def test_what_is_not_taken_is_answered_recorded_and_not_kept(
    tmp_path: Path, content: bytes
) -> None:
    audit = RecordingAudit()

    (outcome,) = _stored(tmp_path, [content], audit=audit)

    assert outcome.status is not Status.SUCCESS
    assert response_status([outcome]) == 409
    assert audit.events == [Event.IMAGE_REFUSED]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("syntax", [JPEGLossless, MPEG2MPML])
def test_a_transfer_syntax_that_we_do_not_read_is_refused(tmp_path: Path, syntax: UID) -> None:
    image = build_image(transfer_syntax=JPEGBaseline8Bit)
    image.file_meta.TransferSyntaxUID = syntax

    (outcome,) = _stored(tmp_path, [file_bytes(image)])

    assert outcome.status is not Status.SUCCESS


def test_a_part_of_another_type_is_refused(tmp_path: Path) -> None:
    (outcome,) = _stored(tmp_path, [file_bytes(build_image())], kind=b"image/jpeg")

    assert outcome.status is not Status.SUCCESS


def test_a_full_disk_is_temporary() -> None:
    outcome = PartOutcome(status=Status.OUT_OF_RESOURCES, is_temporary=True)

    assert response_status([outcome]) == 503


def test_the_same_image_again_is_success_and_other_content_is_not(tmp_path: Path) -> None:
    image = build_image()
    first = file_bytes(image)
    image.PatientComments = "changed"
    audit = RecordingAudit()

    outcomes = _stored(tmp_path, [first, first, file_bytes(image)], audit=audit)

    assert [one.status is Status.SUCCESS for one in outcomes] == [True, True, False]
    assert audit.events == [
        Event.IMAGE_RECEIVED,
        Event.IMAGE_RECEIVED_AGAIN,
        Event.IMAGE_REFUSED,
    ]


def test_when_the_queue_does_not_hear_of_it_the_image_is_still_stored(tmp_path: Path) -> None:
    def deaf(_image: StoredInstance) -> None:
        raise RuntimeError("queue")

    audit = RecordingAudit()

    (outcome,) = _stored(tmp_path, [file_bytes(build_image())], audit=audit, on_received=deaf)

    assert outcome.status is Status.SUCCESS
    assert audit.events == [Event.IMAGE_RECEIVED, Event.DEFECT_MET]


# --- what is stored


@given(cuts=st.lists(st.integers(1, 200), max_size=20))
def test_however_the_body_is_cut_the_image_is_the_same(cuts: list[int]) -> None:
    image = with_patient(build_image())
    body = _body([file_bytes(image)])

    with TemporaryDirectory() as folder, _reader(Path(folder)) as reader:
        position = 0
        for cut in cuts:
            reader.feed(body[position : position + cut])
            position += cut
        reader.feed(body[position:])
        outcomes = reader.finish()
        kept = Inbox(Path(folder)).read(image.SOPInstanceUID)

    assert response_status(outcomes) == 200
    assert kept.PixelData == image.PixelData
    assert kept.PatientID == image.PatientID


def test_the_answer_names_what_was_stored_and_why_the_rest_was_not(tmp_path: Path) -> None:
    image = build_image()
    slide = build_image(number=2, sop_class=VLWholeSlideMicroscopyImageStorage)

    outcomes = _stored(tmp_path, [file_bytes(image), file_bytes(slide), b"noise"])

    told = response_dataset(outcomes)
    assert told["00081199"]["Value"][0]["00081155"]["Value"] == [image.SOPInstanceUID]
    failed = told["00081198"]["Value"][0]
    assert failed["00081155"]["Value"] == [slide.SOPInstanceUID]
    assert failed["00081197"]["Value"][0] != 0
    assert set(told["0008119A"]["Value"][0]) == {"00081197"}


def test_nothing_stored_is_no_success() -> None:
    assert response_status([]) == 400
    assert response_dataset([]) == {"00081190": {"vr": "UR"}}


def _reader(
    root: Path,
    *,
    audit: RecordingAudit | None = None,
    on_received: object = None,
    limits: InboxLimits | None = None,
) -> StowReader:
    return StowReader(
        BOUNDARY,
        inbox=Inbox(root, limits=limits),
        on_received=on_received or (lambda _image: None),  # type: ignore[arg-type]  # any callable
        audit=audit or RecordingAudit(),
        actor=Actor(host="127.0.0.1"),
    )


def _body(parts: Sequence[bytes], kind: bytes = DICOM) -> bytes:
    head = b"--smear\r\nContent-Type: " + kind + b"\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--smear--\r\n"


def _stored(
    root: Path,
    parts: Sequence[bytes],
    *,
    kind: bytes = DICOM,
    audit: RecordingAudit | None = None,
    on_received: object = None,
    limits: InboxLimits | None = None,
) -> Sequence[PartOutcome]:
    with _reader(root, audit=audit, on_received=on_received, limits=limits) as reader:
        reader.feed(_body(parts, kind))
        return reader.finish()
