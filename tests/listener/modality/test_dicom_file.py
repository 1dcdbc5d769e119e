"""DICOM files that a person names are read whole, or refused with the reason."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from listener.modality.dicom_file import is_dicom, read_dicom
from pipeline.decoding.frames import ImageLimits
from pipeline.errors import Rejected
from tests.builders import build_image, file_bytes

SMALL = ImageLimits(max_megapixels=1.0, max_frames=1)


def deflated(extra: bytes) -> bytes:
    """A deflated file whose dataset is `extra` after that of an image."""
    whole = file_bytes(build_image(transfer_syntax=DeflatedExplicitVRLittleEndian))
    at = 144 + int.from_bytes(whole[140:144], "little")
    plain = zlib.decompress(whole[at:], -zlib.MAX_WBITS) + extra
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return whole[:at] + packer.compress(plain) + packer.flush()


def test_a_deflated_image_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(deflated(b""))

    assert is_dicom(path)
    assert read_dicom(path, SMALL).Rows == 80


def test_a_deflated_bomb_is_refused_before_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bomb.dcm"
    element = b"\x09\0\x10\0OB\0\0" + (200_000_000).to_bytes(4, "little")
    path.write_bytes(deflated(element + bytes(200_000_000)))
    assert path.stat().st_size < 1_000_000

    with pytest.raises(Rejected) as caught:
        read_dicom(path, SMALL)

    assert caught.value.code == "too_large"


@pytest.mark.parametrize("kept", [140, 200, 400, 600])
@pytest.mark.parametrize("is_deflated", [True, False])
def test_a_file_that_breaks_off_is_refused(tmp_path: Path, kept: int, is_deflated: bool) -> None:
    path = tmp_path / "cut.dcm"
    whole = deflated(b"") if is_deflated else file_bytes(build_image())
    path.write_bytes(whole[: min(kept, len(whole) // 2)])

    with pytest.raises(Rejected) as caught:
        read_dicom(path, SMALL)

    assert caught.value.code == "not_an_image"


@pytest.mark.parametrize("content", [b"", b"x" * 132, b"\0" * 128 + b"DICX", b"DICM"])
def test_other_files_are_no_dicom(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)

    assert not is_dicom(path)
