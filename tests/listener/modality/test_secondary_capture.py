"""Photographs become DICOM images that say nothing that is not true."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path
from struct import pack
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom import FileDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from listener.modality.secondary_capture import Order, check_image, read_files, to_dicom
from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.errors import Rejected
from tests.builders import build_image, file_bytes, picture
from tests.pipeline.decoding.photographs.files import ICC_PROFILE

# --- what is no image


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\xff\xd8\xff\xe0 no jpeg", b"\x89PNG\r\n\x1a\n no png", b"BM", bytes(500)],
)
def test_what_is_neither_dicom_nor_a_photograph_is_refused_by_name(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "field.png"
    path.write_bytes(content)

    for ask in (check_image, lambda path: list(to_dicom([path]))):
        with pytest.raises(Rejected, match=r"field\.png") as refusal:
            ask(path)
        assert refusal.value.code == "not_an_image"


def test_dicom_that_breaks_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(file_bytes(build_image())[:300])

    with pytest.raises(Rejected) as refusal:
        check_image(path)

    assert refusal.value.code == "not_an_image"


def test_dicom_without_pixels_is_refused(tmp_path: Path) -> None:
    image = build_image()
    del image.PixelData
    path = tmp_path / "report.dcm"
    path.write_bytes(file_bytes(image))

    with pytest.raises(Rejected, match="DICOM, but no image"):
        check_image(path)


def test_dicom_without_a_series_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    image = build_image()
    del image.SeriesInstanceUID
    path = tmp_path / "lost.dcm"
    path.write_bytes(file_bytes(image))

    with pytest.raises(Rejected, match="SeriesInstanceUID"):
        check_image(path)


def test_a_file_of_several_pages_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "stack.tiff"
    cv2.imwritemulti(str(path), [picture(number=1), picture(number=2)])

    with pytest.raises(Rejected, match="one field per file"):
        check_image(path)


def test_a_picture_of_floats_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    cv2.imwrite(str(path), picture().astype(np.float32))

    with pytest.raises(Rejected, match="neither 8 nor 16 bits"):
        check_image(path)


# --- pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_a_lossless_photograph_keeps_every_pixel(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"field{suffix}", picture())

    image = _only(path)

    assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (_pixels(image) == picture()).all()


def test_an_odd_number_of_bytes_is_padded(tmp_path: Path) -> None:
    path = _write(tmp_path / "odd.png", picture(33, 35))

    image = _only(path)

    assert len(image.PixelData) % 2 == 0
    assert (_pixels(image) == picture(33, 35)).all()


def test_a_jpeg_is_not_compressed_a_second_time(tmp_path: Path) -> None:
    path = _write(tmp_path / "field.jpg", picture())
    decoded = cv2.imread(str(path))
    assert decoded is not None
    stored = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(int)

    image = _only(path)

    assert image.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert image.LossyImageCompression == "01"
    assert np.abs(_pixels(image).astype(int) - stored).max() <= 2


def test_what_a_camera_notes_in_a_jpeg_is_left_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "field.jpg", picture())
    plain = path.read_bytes()
    for marker in (b"\xff\xe1", b"\xff\xed", b"\xff\xfe"):
        note = b"Jane Doe 1961-02-03"
        plain = plain[:2] + marker + pack(">H", len(note) + 2) + note + plain[2:]
    path.write_bytes(plain)

    image = _only(path)

    assert b"Jane" not in image.PixelData
    assert _pixels(image).shape == picture().shape


@pytest.mark.parametrize(("orientation", "shape"), [(1, (80, 96)), (6, (96, 80)), (3, (80, 96))])
def test_a_photograph_is_turned_upright(
    tmp_path: Path, orientation: int, shape: tuple[int, int]
) -> None:
    path = _write(tmp_path / "field.jpg", picture())
    tiff = b"MM\0*" + pack(">LHHHLHHL", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    note = b"Exif\0\0" + tiff
    plain = path.read_bytes()
    path.write_bytes(plain[:2] + b"\xff\xe1" + pack(">H", len(note) + 2) + note + plain[2:])

    image = _only(path)

    assert (image.Rows, image.Columns) == shape


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 257
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), deep[..., ::-1])

    assert (_pixels(_only(path)) == picture()).all()


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    clear = np.zeros((40, 40, 4), np.uint8)
    path = tmp_path / "clear.png"
    cv2.imwrite(str(path), clear)

    assert (_pixels(_only(path)) == 255).all()


def test_gray_pictures_are_taken(tmp_path: Path) -> None:
    gray = picture()[:, :, 1]
    path = tmp_path / "gray.png"
    cv2.imwrite(str(path), gray)

    assert (_pixels(_only(path)) == gray[:, :, None]).all()


# --- what is said about it


def test_a_folder_is_one_series_and_another_folder_another(tmp_path: Path) -> None:
    paths = [
        _write(tmp_path / name, picture(number=number))
        for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png"))
    ]

    images = list(to_dicom(paths))

    series = [image.SeriesInstanceUID for image in images]
    assert series[0] == series[1] != series[2]
    assert [int(image.InstanceNumber) for image in images] == [1, 2, 1]
    assert len({image.SOPInstanceUID for image in images}) == 3


def test_the_same_folder_sent_again_is_the_same_images_again(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png", picture())

    first, second = _only(path), _only(path)

    assert first == second


def test_an_order_goes_into_every_image(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png", picture())
    order = Order(accession="A-7", patient_id="P-9", specimen="S26-1", spacing_um=0.1)

    (image,) = to_dicom([path], order)

    assert (image.AccessionNumber, image.PatientID) == ("A-7", "P-9")
    assert image.ContainerIdentifier == "S26-1"
    assert [float(mm) for mm in image.NominalScannedPixelSpacing] == [0.0001, 0.0001]
    assert image.SOPClassUID == SecondaryCaptureImageStorage


def test_dicom_passes_as_it_is_and_comes_first(tmp_path: Path) -> None:
    whole = file_bytes(build_image())
    photograph = _write(tmp_path / "a.png", picture())
    dicom = tmp_path / "z"
    dicom.write_bytes(whole)

    found = list(read_files([photograph, dicom]))

    assert [read.path for read in found] == [dicom, photograph]
    assert found[0].image == dcmread(dicom)


# --- when, and what it is called


def _taken(path: Path, text: str, *, number: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0132] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number=number)).save(path, "JPEG", exif=exif)
    return path


def test_study_date_is_that_of_the_first_picture_by_the_camera(tmp_path: Path) -> None:
    paths = [
        _taken(tmp_path / "a.jpg", "2026:11:03 08:00:00", number=1),
        _taken(tmp_path / "b.jpg", "2026:11:02 23:59:59", number=2),
    ]

    images = list(to_dicom(paths))

    assert {image.StudyDate for image in images} == {"20261102"}
    assert {image.StudyTime for image in images} == {"235959"}
    assert [image.AcquisitionDateTime for image in images] == ["20261103080000", "20261102235959"]


def test_without_a_camera_s_date_that_of_the_file_counts(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png", picture())
    moment = datetime(2026, 5, 4, 3, 2, 1).timestamp()  # noqa: DTZ001 - as cameras date
    os.utime(path, (moment, moment))

    image = _only(path)

    assert (image.StudyDate, image.StudyTime) == ("20260504", "030201")


@pytest.mark.parametrize(
    ("order", "description"),
    [
        (Order(), "Photographs"),
        (Order(specimen="S26-1"), "Photographs, slide S26-1"),
        (Order(specimen="S" * 64), f"Photographs, slide {'S' * 64}"[:64]),
    ],
)
def test_a_viewer_has_a_line_for_study_and_series(
    tmp_path: Path, order: Order, description: str
) -> None:
    (image,) = to_dicom([_write(tmp_path / "a.png", picture())], order)

    assert image.StudyDescription == "Blood smear"
    assert image.SeriesDescription == description
    assert image.StudyID
    assert ("Laterality" in image) == (not order.specimen)


@pytest.mark.parametrize(
    "order",
    [
        Order(accession="A-1"),
        Order(patient_id="P-1"),
        Order(specimen="S-1"),
        Order(spacing_um=0.1),
        Order(spacing_um=0.2),
    ],
)
def test_other_words_of_the_sender_are_another_image(tmp_path: Path, order: Order) -> None:
    """A receiver refuses one UID with two contents."""
    path = _write(tmp_path / "a.png", picture())
    (plain,), (worded,) = to_dicom([path]), to_dicom([path], order)

    assert plain.SOPInstanceUID != worded.SOPInstanceUID


def test_a_folder_inside_a_folder_divides_no_series(tmp_path: Path) -> None:
    names = ("a.png", "b/x.png", "c.png")
    paths = [_write(tmp_path / name, picture(number=at)) for at, name in enumerate(names)]

    series = [(read.path.name, read.image) for read in read_files(paths)]

    by_name = {name: image.SeriesInstanceUID for name, image in series if image}
    assert by_name["a.png"] == by_name["c.png"] != by_name["x.png"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_the_profile_is_in_the_object_and_even(tmp_path: Path, form: str) -> None:
    profile = ICC_PROFILE + b"\0" * (1 - len(ICC_PROFILE) % 2)
    path = tmp_path / "a"
    Image.fromarray(picture()).save(path, form, icc_profile=profile)

    image = _only(path)

    assert bytes(image.ICCProfile).startswith(ICC_PROFILE)
    assert len(image.ICCProfile) % 2 == 0


def test_a_file_that_may_not_be_read_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [_write(tmp_path / name, picture()) for name in ("a.png", "b.png")]
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "a.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)

    reads = {read.path.name: read for read in read_files(paths)}

    problem = reads["a.png"].problem
    assert problem is not None
    assert problem.code == "unreadable_file"
    assert "Permission denied" in problem.message
    assert reads["b.png"].image is not None


def _write(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def _only(path: Path) -> FileDataset:
    (image,) = to_dicom([path])
    return image


def _pixels(image: FileDataset) -> np.ndarray:
    limits = ImageLimits(min_side_px=1)
    (frame,) = read_frames(image, limits=limits)
    return frame.pixels
