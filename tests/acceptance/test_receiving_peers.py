"""DCMTK's own tools send to the listener, and its codecs agree with our decoders pixel by pixel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    VLWholeSlideMicroscopyImageStorage,
)

from listener.dicom.server import DicomListener
from listener.storage.inbox import Inbox
from pipeline.decoding.frames import read_frames
from pipeline.domain import RGB
from tests.builders import SOP_CLASSES, build_image, file_bytes, picture
from tests.certificates import make_authority
from tests.fakes import RecordingAudit
from tests.listener.peers import listening

TOOLS = (
    "storescu",
    "echoscu",
    "dcmcrle",
    "dcmdrle",
    "dcmcjpls",
    "dcmdjpls",
    "dcmcjpeg",
    "dcmdjpeg",
)
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(bool(MISSING), reason=f"DCMTK's {', '.join(MISSING)} not installed"),
]

PROPOSALS: dict[UID, str] = {
    ExplicitVRLittleEndian: "-xe",
    ImplicitVRLittleEndian: "-xi",
    DeflatedExplicitVRLittleEndian: "-xd",
    RLELossless: "-xr",
    JPEGBaseline8Bit: "-xy",
    JPEG2000Lossless: "-xv",
    JPEG2000: "-xw",
    JPEGLSLossless: "-xt",
    JPEGLSNearLossless: "-xu",
}
"""storescu's options; DCMTK 3.6.7 does not know HTJ2K."""

CODERS = {
    RLELossless: (["dcmcrle"], ["dcmdrle"], 0),
    JPEGLSLossless: (["dcmcjpls", "+el"], ["dcmdjpls"], 0),
    JPEGLSNearLossless: (["dcmcjpls", "+en", "+md", "2"], ["dcmdjpls"], 0),
    JPEGBaseline8Bit: (["dcmcjpeg", "+eb", "+cr"], ["dcmdjpeg"], 1),
}
"""How DCMTK writes and reads a syntax, and how far two right decoders may be apart."""


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


@pytest.fixture
def listener(inbox: Inbox) -> Iterator[DicomListener]:
    with listening(inbox) as listener:
        yield listener


def run(*command: object, code: int | None = 0) -> str:
    """What a tool says; Nagle's algorithm off, which Debian's DCMTK leaves on."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )
    said = done.stdout + done.stderr
    assert code is None or done.returncode == code, said
    return said


def storescu(port: int, *words: object, called: str = "SMEARLINK", code: int | None = 0) -> str:
    return run("storescu", "-v", "-aec", called, "127.0.0.1", port, *words, code=code)


def written(folder: Path, **given: object) -> Path:
    """An image as a file."""
    path = folder / "sent.dcm"
    path.write_bytes(file_bytes(build_image(**given)))  # type: ignore[arg-type] # as build_image's
    return path


def pixels_of(path: Path) -> RGB:
    (frame,) = read_frames(dcmread(path))
    return frame.pixels


def test_echoscu(listener: DicomListener) -> None:
    run("echoscu", "-aec", "SMEARLINK", "127.0.0.1", listener.port)


@pytest.mark.parametrize("syntax", PROPOSALS, ids=lambda syntax: syntax.name)
def test_storescu_sends_every_transfer_syntax(
    tmp_path: Path, inbox: Inbox, listener: DicomListener, syntax: UID
) -> None:
    path = written(tmp_path, transfer_syntax=syntax)

    storescu(listener.port, PROPOSALS[syntax], path)

    sent = dcmread(path)
    kept = inbox.read(sent.SOPInstanceUID)
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert {one.keyword: one.value for one in kept} == {one.keyword: one.value for one in sent}
    assert np.array_equal(pixels_of(inbox.path_of(sent.SOPInstanceUID)), pixels_of(path))


@pytest.mark.parametrize("sop_class", SOP_CLASSES, ids=lambda sop_class: sop_class.name)
def test_storescu_sends_every_sop_class(
    tmp_path: Path, inbox: Inbox, listener: DicomListener, sop_class: UID
) -> None:
    path = written(tmp_path, sop_class=sop_class)

    storescu(listener.port, "-R", path)

    assert list(inbox.waiting()) == [dcmread(path).SOPInstanceUID]


@pytest.mark.parametrize("syntax", CODERS, ids=lambda syntax: syntax.name)
def test_dcmtk_codecs_agree_with_ours(tmp_path: Path, syntax: UID) -> None:
    """Coded by DCMTK, decoded by DCMTK and by us: the same picture."""
    plain, coded, decoded = (tmp_path / name for name in ("plain.dcm", "coded.dcm", "decoded.dcm"))
    plain.write_bytes(file_bytes(build_image()))
    encode, decode, apart = CODERS[syntax]
    run(*encode, plain, coded)
    run(*decode, coded, decoded)

    assert dcmread(coded).file_meta.TransferSyntaxUID == syntax
    ours, theirs = pixels_of(coded).astype(int), pixels_of(decoded)
    assert int(np.abs(ours - theirs).max()) <= apart
    assert float(np.abs(ours - picture()).mean()) < 3


@pytest.mark.parametrize("syntax", CODERS, ids=lambda syntax: syntax.name)
def test_dcmtk_decodes_what_we_code(tmp_path: Path, syntax: UID) -> None:
    path, decoded = written(tmp_path, transfer_syntax=syntax), tmp_path / "decoded.dcm"
    run(*CODERS[syntax][1], path, decoded)

    ours, theirs = pixels_of(path).astype(int), pixels_of(decoded)

    # DCMTK repeats the chroma samples of 4:2:2, libjpeg-turbo interpolates between them
    is_subsampled = syntax == JPEGBaseline8Bit
    apart = np.abs(ours - theirs)
    assert float(np.percentile(apart, 98)) <= (12 if is_subsampled else 0)
    assert float(apart.mean()) < (1 if is_subsampled else 0.001)


@pytest.mark.parametrize("pdu_bytes", [4096, 16384, 131072])
def test_any_pdu_size_of_the_peers(
    tmp_path: Path, inbox: Inbox, listener: DicomListener, pdu_bytes: int
) -> None:
    path = written(tmp_path, pixels=picture(600, 500))

    storescu(listener.port, "-pdu", pdu_bytes, "--max-send-pdu", pdu_bytes, path)

    (uid,) = inbox.waiting()
    assert np.array_equal(pixels_of(inbox.path_of(uid)), picture(600, 500))


def test_a_whole_slide_image_is_refused_by_its_status(
    tmp_path: Path, inbox: Inbox, listener: DicomListener
) -> None:
    path = written(tmp_path, sop_class=VLWholeSlideMicroscopyImageStorage)

    said = storescu(listener.port, "-R", path, code=None)

    assert "0x0122" in said or "SOPClassNotSupported" in said
    assert list(inbox.waiting()) == []


def test_another_called_ae_is_told_so(tmp_path: Path, listener: DicomListener) -> None:
    said = storescu(listener.port, written(tmp_path), called="ELSEWHERE", code=1)

    assert "Called AE Title Not Recognized" in said


def test_the_same_uid_with_other_content(
    tmp_path: Path, inbox: Inbox, listener: DicomListener
) -> None:
    path = written(tmp_path)
    changed = build_image()
    changed.PatientComments = "other"
    other = tmp_path / "other.dcm"
    other.write_bytes(file_bytes(changed))

    storescu(listener.port, path)
    storescu(listener.port, path)
    said = storescu(listener.port, other, code=None)

    assert "CannotUnderstand" in said
    assert "PatientComments" not in inbox.read(changed.SOPInstanceUID)


def test_an_abort_instead_of_a_release(tmp_path: Path, inbox: Inbox) -> None:
    audit = RecordingAudit()
    with listening(inbox, audit) as listener:
        storescu(listener.port, "--abort", written(tmp_path))

        assert len(list(inbox.waiting())) == 1
    assert [one.fields["code"] for one in audit.recorded if "code" in one.fields] == [
        "peer_aborted"
    ]


def test_over_tls_with_certificates_on_both_sides(tmp_path: Path, inbox: Inbox) -> None:
    authority = make_authority(tmp_path)
    ours, theirs = authority.issue("listener"), authority.issue("scope")
    tls = {
        "enabled": True,
        "certificate": ours.certificate,
        "private_key": ours.private_key,
        "ca_certificates": ours.ca_certificates,
    }
    identity = ["+tls", theirs.private_key, theirs.certificate, "+cf", ours.ca_certificates]
    with listening(inbox, tls=tls) as listener:
        storescu(listener.port, *identity, written(tmp_path))
        run(
            "storescu",
            "-aec",
            "SMEARLINK",
            "127.0.0.1",
            listener.port,
            tmp_path / "sent.dcm",
            code=1,
        )

        assert len(list(inbox.waiting())) == 1
