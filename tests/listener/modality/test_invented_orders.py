"""Orders as people type them and cameras are calibrated: what `send` makes is legal DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom.config import RAISE, settings
from pydicom.dataset import FileDataset

from listener.modality.secondary_capture import Order, read_files
from pipeline.errors import Rejected
from tests.pipeline.decoding.photographs.files import pillow

PICTURE = pillow("JPEG")


def image_of(folder: Path, order: Order) -> FileDataset:
    path = folder / "field.jpg"
    path.write_bytes(PICTURE)
    (read,) = read_files([path], order)
    assert read.image is not None
    return read.image


TAKEN: Mapping[str, dict[str, Any]] = {
    "nothing": {},
    "accession-of-16-characters": {"accession": "A" * 16},
    "accession-with-blanks-around": {"accession": "  A-17  "},
    "accession-with-punctuation": {"accession": "26/0815-1.a"},
    "patient-of-64-characters": {"patient_id": "P" * 64},
    "patient-in-another-script": {"patient_id": "病人7"},
    "patient-with-caret": {"patient_id": "4711^^^HOSP"},
    "slide-of-64-characters": {"specimen": "S" * 64},
    "slide-with-umlaut": {"specimen": "Sü-1"},
    "spacing-of-two-digits": {"spacing_um": 0.12},
    "spacing-of-thirteen-digits": {"spacing_um": 0.1234567890123},
    "spacing-of-a-third": {"spacing_um": 1 / 3},
    "spacing-of-a-seventh": {"spacing_um": 1 / 7},
    "spacing-very-fine": {"spacing_um": 0.0123456789},
    "spacing-very-coarse": {"spacing_um": 9.87654321},
}


@pytest.mark.invented(kind=17)
@pytest.mark.parametrize("name", TAKEN)
def test_what_is_sent_is_legal(name: str, tmp_path: Path) -> None:
    order = Order(**TAKEN[name])
    image = image_of(tmp_path, order)

    settings.writing_validation_mode, before = RAISE, settings.writing_validation_mode
    try:
        image.save_as(tmp_path / "field.dcm", enforce_file_format=True)
    finally:
        settings.writing_validation_mode = before
    if order.spacing_um is not None:
        spacing = image.NominalScannedPixelSpacing
        assert [float(one) for one in spacing] == pytest.approx([order.spacing_um / 1000] * 2)
        assert all(len(str(one)) <= 16 for one in spacing)
    assert image.StudyDate
    assert image.StudyDescription
    assert image.SeriesDescription


REFUSED: Mapping[str, dict[str, Any]] = {
    "accession-of-17-characters": {"accession": "A" * 17},
    "accession-with-a-backslash": {"accession": "A\\7"},
    "accession-with-a-line-end": {"accession": "A\n7"},
    "accession-with-a-zero-byte": {"accession": "A\0"},
    "patient-of-65-characters": {"patient_id": "P" * 65},
    "patient-with-a-backslash": {"patient_id": "HOSP\\0815"},
    "patient-with-a-tab": {"patient_id": "47\t11"},
    "patient-with-an-escape": {"patient_id": "\x1b$B"},
    "slide-of-65-characters": {"specimen": "S" * 65},
    "slide-with-a-backslash": {"specimen": "S\\1"},
}


@pytest.mark.invented(kind=17)
@pytest.mark.parametrize("name", REFUSED)
def test_what_dicom_cannot_hold_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(Rejected, match=r"at most (16|64) characters, no backslash") as caught:
        Order(**REFUSED[name])

    assert caught.value.code == "bad_order"
    assert not any(str(value) in caught.value.message for value in REFUSED[name].values())
