"""Whatever comes in by C-STORE ends as a result or is parked under a code that a person sees.

The real service on loopback, from the device to the PACS; nothing is replaced but the network's
size. What a hostile peer says byte by byte is in tests/listener/dicom/test_server.py.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from listener.demo.mock_servers import LOOPBACK, MockPacs, Reply, StandInFhir
from listener.service import Service
from pipeline.domain import SmearId
from tests.acceptance.serving import (
    parked_deliveries,
    parked_images,
    port_of,
    served,
    trail_text,
    until,
    until_idle,
)
from tests.acceptance.standins import FaultyPacs, ScriptedFhir, closed_port
from tests.builders import (
    PHI_TEXTS,
    build_image,
    dataset_bytes,
    every_kind,
    with_patient,
)
from tests.listener.peers import RawPeer, ask, pdu, store, store_command

PRIVATE_SYNTAX = UID("1.2.276.0.7230010.3.4.99")
UNHURRIED = {"quiet_s": 2.0}
"""One report of a smear, and not one after each image."""
PATIENT = {"first_delay_s": 0.1, "max_delay_s": 1.0, "max_tries": 100, "timeout_s": 30.0}
HURRIED = {"first_delay_s": 0.1, "max_delay_s": 0.2, "max_tries": 2}
IMPATIENT = {**HURRIED, "timeout_s": 1.0}
"""With what never answers; whatever answers may take its time on a busy machine."""


def pacs_at(pacs: MockPacs, **changed: Any) -> Mapping[str, Any]:
    """A destination in the words of the settings."""
    destination = {"type": "dicom", "name": "pacs", "ae_title": "STANDIN", "host": LOOPBACK}
    return {**destination, "port": pacs.port, **PATIENT, **changed}


def fhir_at(url: str, **changed: Any) -> Mapping[str, Any]:
    return {"type": "fhir", "name": "ehr", "url": url, **PATIENT, **changed}


def bad_images() -> dict[str, tuple[str, FileDataset]]:
    """Objects that are whole datasets but no images that can be analysed, with their codes."""
    made = {
        "no pixel data": ("no_pixel_data", _without("PixelData")),
        "not an image": ("not_an_image", _without("PixelData", "Rows", "Columns")),
        "empty pixel data": ("no_pixel_data", _with(PixelData=b"")),
        "1 x 1": ("too_small", _with(Rows=1, Columns=1, PixelData=bytes(4))),
        "200 megapixels": ("too_large", _with(Rows=10_000, Columns=20_000)),
        "200 megapixels of JPEG": (
            "too_large",
            _with(JPEGBaseline8Bit, Rows=10_000, Columns=20_000),
        ),
        "a million frames": ("bad_count", _with(NumberOfFrames=1_000_000)),
        "truncated": ("truncated_pixel_data", _with(PixelData=bytes(1000))),
        "truncated JPEG": ("truncated_pixel_data", _cut(JPEGBaseline8Bit)),
        "truncated JPEG 2000": ("truncated_pixel_data", _cut(JPEG2000)),
        "damaged JPEG": ("corrupt_pixel_data", _damaged(JPEGBaseline8Bit)),
        "damaged RLE": ("corrupt_pixel_data", _damaged(RLELossless)),
        "damaged JPEG-LS": ("decode_failed", _damaged(JPEGLSLossless)),
        "too long": ("wrong_length", _with(PixelData=b"too long" * 3000)),
        "no codestream": ("decode_failed", _with(JPEG2000Lossless, PixelData=_junk())),
        "another size inside": ("decode_failed", _with(JPEGBaseline8Bit, Rows=64, Columns=64)),
        "32 bits": ("unsupported_bit_depth", _with(BitsAllocated=32, BitsStored=32)),
        "CMYK": ("unsupported_photometric", _with(PhotometricInterpretation="CMYK")),
        "RCT without JPEG 2000": (
            "unsupported_photometric",
            _with(PhotometricInterpretation="YBR_RCT"),
        ),
        "no palette": ("decode_failed", _without_palette()),
    }
    for number, (_, image) in enumerate(made.values(), start=900):
        _rename(image, number)
    return made


def good_images() -> dict[str, FileDataset]:
    """Every kind that is read, and odd ones that are legal."""
    odd = {
        "16 bit gray": build_image(number=700, photometric="MONOCHROME2", bits=16),
        "12 bit RGB": build_image(number=701, bits=12),
        "planes": build_image(number=702, planar=1),
        "YBR in planes": build_image(number=703, photometric="YBR_FULL", planar=1),
        "RCT": build_image(number=704, transfer_syntax=JPEG2000Lossless, photometric="YBR_RCT"),
        "ICT": build_image(number=705, transfer_syntax=JPEG2000, photometric="YBR_ICT"),
    }
    return {**dict(every_kind()), **odd}


def test_a_defect_in_one_image_never_stops_another(tmp_path: Path) -> None:
    """Good and bad images of one series, mixed: the bad are parked, the good reported."""
    bad, good = bad_images(), good_images()
    sent = [*(image for _, image in bad.values()), *good.values()]
    with (
        MockPacs(tmp_path / "pacs") as pacs,
        served(tmp_path, [pacs_at(pacs)], smear=UNHURRIED) as running,
    ):
        statuses = _send(port_of(running), sorted(sent, key=lambda image: image.SOPInstanceUID))
        until_idle(running)

        assert statuses == {0x0000}
        assert parked_images(running) == {
            str(image.SOPInstanceUID): code for code, image in bad.values()
        }
        assert _reported(running) == {str(image.SOPInstanceUID) for image in good.values()}
        assert parked_deliveries(running) == {}
        assert _shown_in(pacs) == _reported(running)
    audited = trail_text(tmp_path)
    assert all(code in audited for code, _ in bad.values())
    assert "defect_met" not in audited


def test_other_alphabets_and_missing_patients_reach_the_pacs_as_they_were(tmp_path: Path) -> None:
    """Patient ID is type 2 (PS3.3 C.7.1.1): it may be empty, and some devices leave it out."""
    named = {
        _patient(number, charset, name).SOPInstanceUID: name
        for number, (charset, name) in enumerate(NAMES, start=1)
    }
    nameless = build_image(number=99, series=99)
    del nameless.PatientName, nameless.PatientID
    images = [_patient(number, *pair) for number, pair in enumerate(NAMES, start=1)]
    with (
        MockPacs(tmp_path / "pacs") as pacs,
        StandInFhir() as fhir,
        served(tmp_path, [pacs_at(pacs), fhir_at(fhir.url)]) as running,
    ):
        assert _send(port_of(running), [*images, nameless]) == {0x0000}
        until_idle(running)

        assert running.status().parked == ()
        results = {_source_of(one): one for one in map(dcmread, pacs.stored)}
        assert {uid: results[uid].PatientName for uid in named} == named
        assert {one.get("PatientID") or "" for one in results.values()} == {""}
        assert nameless.SOPInstanceUID in results
        reports = [url for url in fhir.versions if url.startswith("DiagnosticReport/")]
        assert len(reports) == len(NAMES) + 1
    said = trail_text(tmp_path)
    assert not [text for text in (*PHI_TEXTS, *named.values()) if text in said]


NAMES = [
    ("ISO_IR 100", "Müller^Jürgen"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
]


def _patient(number: int, charset: Any, name: str) -> FileDataset:
    image = with_patient(build_image(number=number, series=number), charset=charset)
    image.PatientName, image.PatientID = name, ""
    return image


class TestAtTheDoor:
    """What is never taken in is answered in words, audited, and leaves nothing behind."""

    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("door")

    @pytest.fixture(scope="class")
    def pacs(self, root: Path) -> Iterator[MockPacs]:
        with MockPacs(root / "pacs") as pacs:
            yield pacs

    @pytest.fixture(scope="class")
    def running(self, root: Path, pacs: MockPacs) -> Iterator[Service]:
        devices = {"allowed_calling_aes": ["DEVICE", "RAW"]}
        with served(root, [pacs_at(pacs)], dicom=devices, smear={"quiet_s": 0.2}) as running:
            yield running

    def test_each_refusal_leaves_nothing_and_the_next_image_is_reported(
        self, root: Path, pacs: MockPacs, running: Service
    ) -> None:
        port, image = port_of(running), build_image()
        slide = build_image(number=2, sop_class=VLWholeSlideMicroscopyImageStorage)

        answers = {
            "path": _raw_status(port, image, store_command(image, uid="../../x")),
            "other": _raw_status(port, image, store_command(image, uid="1.2.3")),
            "slide": store(port, slide)[0].Status,
            "good": store(port, image)[0].Status,
        }
        private = ask(port, (SecondaryCaptureImageStorage, PRIVATE_SYNTAX))
        private.abort()
        until_idle(running)

        assert answers == {"path": 0x0117, "other": 0xA900, "slide": 0x0122, "good": 0x0000}
        assert private.accepted_contexts == []
        assert str(image.SOPInstanceUID) in _shown_in(pacs)
        assert not [path for path in root.rglob("*") if path.name in ("x", "x.dcm")]
        assert _files_in(root / "data" / "inbox" / "tmp") == []
        assert _audited(root, "image_refused") == 3

    def test_the_same_image_again_is_success_and_not_analysed_twice(
        self, root: Path, pacs: MockPacs, running: Service
    ) -> None:
        port, image, other = port_of(running), build_image(number=3), build_image(number=3)
        other.PatientComments = "other content"
        uid = str(image.SOPInstanceUID)

        first = store(port, image)[0].Status
        until_idle(running)
        again, conflict = (one.Status for one in store(port, image, other))
        until_idle(running)

        assert (first, again, conflict) == (0x0000, 0x0000, 0xC011)
        assert uid in _shown_in(pacs)
        assert _audited(root, "image_analysed", uid) == 1
        assert _audited(root, "image_received_again", uid) == 1
        assert _audited(root, "image_refused", uid, "conflicting_duplicate") == 1

    def test_a_peer_that_goes_away_may_come_again(
        self, root: Path, pacs: MockPacs, running: Service
    ) -> None:
        port, image = port_of(running), build_image(number=4)
        with RawPeer(port) as peer:
            peer.associate(SecondaryCaptureImageStorage)
            peer.say(pdu(store_command(image), is_command=True))
            peer.say(pdu(dataset_bytes(image)[:5000], is_last=False))
            peer.sock.shutdown(socket.SHUT_RDWR)

        assert _send(port, [image]) == {0x0000}
        until_idle(running)

        assert str(image.SOPInstanceUID) in _shown_in(pacs)
        until(lambda: _files_in(root / "data" / "inbox" / "tmp") == [])

    def test_ten_devices_at_once_each_get_their_report(
        self, pacs: MockPacs, running: Service
    ) -> None:
        port = port_of(running)
        images = [build_image(number=100 + one, series=100 + one // 2) for one in range(20)]
        pairs = [images[at : at + 2] for at in range(0, 20, 2)]

        with ThreadPoolExecutor(10) as devices:
            statuses = set().union(*devices.map(lambda pair: _send(port, pair), pairs))
        until_idle(running)

        assert statuses == {0x0000}
        assert {str(image.SOPInstanceUID) for image in images} <= _shown_in(pacs)
        assert running.status().parked == ()

    def test_only_listed_devices_may_send(self, root: Path, running: Service) -> None:
        stranger = ask(port_of(running), calling="STRANGER")

        assert stranger.is_rejected
        # The event stands when the connection has ended.
        until(lambda: _audited(root, "association_rejected"))
        assert _audited(root, "association_rejected", "calling_ae_unknown") == 1


def test_each_destination_fails_alone_and_in_words(tmp_path: Path) -> None:
    """A PACS that refuses, is full, is absent, is slow; an EHR that answers 401, 409, 422, 500
    and nothing: each is parked or gets its results, and none holds up another."""
    ended = Reply(status=500)
    with (
        MockPacs(tmp_path / "good") as good,
        FaultyPacs(tmp_path / "refusing", statuses=[0xC000] * 20) as refusing,
        FaultyPacs(tmp_path / "full", statuses=[0xA700]) as full,
        FaultyPacs(tmp_path / "slow", hangs=True) as slow,
        StandInFhir() as ehr,
        ScriptedFhir(*[Reply(status=401)] * 20) as locked,
        ScriptedFhir(*[Reply(status=409)] * 20) as conflicting,
        ScriptedFhir(*[Reply(status=422)] * 20) as unwilling,
        ScriptedFhir(ended) as failing_once,
        ScriptedFhir(*[ended] * 20) as failing,
        ScriptedFhir(None) as mute_once,
        ScriptedFhir(hangs=True) as mute,
    ):
        destinations = [
            pacs_at(slow, name="slow", **IMPATIENT),
            pacs_at(refusing, name="refusing", **HURRIED),
            pacs_at(full, name="full"),
            pacs_at(good, name="absent", port=closed_port(), **HURRIED),
            pacs_at(good, name="good"),
            fhir_at(ehr.url, name="ehr"),
            fhir_at(locked.url, name="http401", **HURRIED),
            fhir_at(conflicting.url, name="http409", **HURRIED),
            fhir_at(unwilling.url, name="http422", **HURRIED),
            fhir_at(failing_once.url, name="http500once"),
            fhir_at(failing.url, name="http500", **HURRIED),
            fhir_at(mute_once.url, name="muteonce"),
            fhir_at(mute.url, name="mute", **IMPATIENT),
        ]
        with served(tmp_path, destinations) as running:
            image = with_patient(build_image())
            assert _send(port_of(running), [image]) == {0x0000}
            until(lambda: good.stored and ehr.versions)
            until_idle(running)

            parked = parked_deliveries(running)
            assert set(parked) == {
                *("slow", "refusing", "absent"),
                *("http401", "http409", "http422", "http500", "mute"),
            }
            assert parked["refusing"] == "results_refused"
            assert parked["absent"] == "peer_unreachable"
            assert parked["http401"] == "credentials_refused"
            assert parked["http409"] == "fhir_conflict_persists"
            assert parked["http500"] == "http_500"
            assert parked["mute"] == "no_answer"
            assert [len(one.stored) for one in (good, full)] == [1, 1]
            assert all(one.versions for one in (ehr, failing_once, mute_once))
            shown = json.dumps(running.status().to_json())
        assert not [text for text in PHI_TEXTS if text in shown + trail_text(tmp_path)]


def _send(port: int, images: list[FileDataset]) -> set[int]:
    """The statuses of all; without an answer an image is sent again, as a device would.

    On a busy machine pynetdicom's sender now and then takes an answer for an unexpected message.
    """
    try:
        responses = store(port, *images)
    except RuntimeError:
        return _send(port, images)
    unanswered = [
        image for image, response in zip(images, responses, strict=True) if "Status" not in response
    ]
    statuses = {int(response.Status) for response in responses if "Status" in response}
    return statuses | _send(port, unanswered) if unanswered else statuses


def _raw_status(port: int, image: FileDataset, command: bytes) -> int:
    with RawPeer(port) as peer:
        peer.associate(SecondaryCaptureImageStorage)
        peer.store(image, command=command, data=dataset_bytes(image))
        return peer.hear_status()


def _reported(running: Service) -> set[str]:
    """Images in the newest report of the one series that these tests send."""
    smear_id = SmearId(str(build_image().SeriesInstanceUID))
    latest = running.store.results.smear(smear_id).latest()
    return {*latest.sources} if latest else set()


def _shown_in(pacs: MockPacs) -> set[str]:
    """Images that have an annotated picture in the PACS."""
    return {_source_of(dcmread(path, stop_before_pixels=True)) for path in pacs.stored}


def _source_of(annotated: FileDataset) -> str:
    return str(annotated.SourceImageSequence[0].ReferencedSOPInstanceUID)


def _audited(root: Path, *words: str) -> int:
    """How many events hold all these words."""
    return sum(all(word in line for word in words) for line in trail_text(root).splitlines())


def _files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _with(syntax: UID = ExplicitVRLittleEndian, **values: Any) -> FileDataset:
    image = build_image(transfer_syntax=syntax)
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return image


def _without(*keywords: str) -> FileDataset:
    image = build_image()
    for keyword in keywords:
        delattr(image, keyword)
    return image


def _without_palette() -> FileDataset:
    image = build_image(photometric="PALETTE COLOR")
    del image.RedPaletteColorLookupTableData
    return image


def _cut(syntax: UID) -> FileDataset:
    """A codestream that breaks off half-way."""
    image = build_image(transfer_syntax=syntax)
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    image.PixelData = encapsulate([frame[: len(frame) // 2]])
    return image


def _damaged(syntax: UID) -> FileDataset:
    """A codestream of which some bytes were overwritten, while its ends are whole."""
    image = build_image(transfer_syntax=syntax)
    frame = bytearray(get_frame(image.PixelData, 0, number_of_frames=1))
    middle = len(frame) // 2
    frame[middle : middle + 64] = bytes(range(100, 164))
    image.PixelData = encapsulate([bytes(frame)])
    return image


def _junk() -> bytes:
    return encapsulate([b"junk" * 100])


def _rename(image: FileDataset, number: int) -> None:
    uid = build_image(number=number).SOPInstanceUID
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
