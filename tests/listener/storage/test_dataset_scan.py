"""A dataset is whole to its last byte or refused, and its specimen is named without its patient."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from listener.storage.dataset_scan import (
    MAX_DEPTH,
    DatasetIdentifiers,
    inflate,
    is_uid,
    scan_dataset,
)
from pipeline.errors import Rejected
from tests.listener.house import make_dataset

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def a_smear(**attributes: object) -> Dataset:
    """With a specimen, so that sequences are walked too."""
    dataset = make_dataset("1.2.3.4", 1)
    specimen = Dataset()
    specimen.SpecimenIdentifier = "S1"
    dataset.ContainerIdentifier = "SLIDE7"
    dataset.SpecimenDescriptionSequence = Sequence([specimen])
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def peeked(
    content: bytes, syntax: str = ExplicitVRLittleEndian, *, start: int = 0
) -> DatasetIdentifiers:
    return scan_dataset(
        io.BytesIO(content), start=start, length=len(content) - start, transfer_syntax_uid=syntax
    )


def refused(content: bytes, syntax: str = ExplicitVRLittleEndian) -> str:
    with pytest.raises(Rejected) as caught:
        peeked(content, syntax)
    return caught.value.code


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_identifiers_are_read(syntax: str) -> None:
    dataset = a_smear()

    header = peeked(b"preamble" + encoded(dataset, syntax), syntax, start=8)

    assert header.sop_class_uid == dataset.SOPClassUID
    assert header.sop_instance_uid == "1.2.3.4.1"
    assert (header.study_uid, header.series_uid) == ("1.2.3", "1.2.3.4")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_cut_off_anywhere_it_is_refused_or_ends_with_an_element(syntax: str) -> None:
    content = encoded(a_smear(), syntax)
    whole = peeked(content, syntax)

    for end in range(len(content)):
        try:
            header = peeked(content[:end], syntax)
        except Rejected as err:
            assert err.code in {"truncated_dataset", "missing_uid"}
        else:
            assert (header.sop_instance_uid, header.series_uid) == (
                whole.sop_instance_uid,
                whole.series_uid,
            )


@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
def test_any_bytes_are_refused_by_name(content: bytes, syntax: str) -> None:
    assert refused(content, syntax) in {
        "truncated_dataset", "unreadable_dataset", "missing_uid", "object_too_large",
    }  # fmt: skip


def test_compressed_pixels_are_walked_fragment_by_fragment() -> None:
    dataset = a_smear(PixelData=encapsulate([b"\xff\xd8\xff\xd9"] * 3))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    content = encoded(dataset)

    assert peeked(content, JPEGBaseline8Bit).sop_instance_uid == "1.2.3.4.1"
    assert refused(content[:-8], JPEGBaseline8Bit) == "truncated_dataset"


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda data: data[:8] + data[8:16] + data, "unreadable_dataset"),
        (lambda data: data + data[:40], "unreadable_dataset"),
        (lambda data: data[:4] + b"??" + data[6:], "unreadable_dataset"),
    ],
    ids=["element_twice", "out_of_order", "no_vr"],
)
def test_what_is_no_dataset_is_refused(break_it: Callable[[bytes], bytes], code: str) -> None:
    assert refused(break_it(encoded(a_smear()))) == code


def test_sequences_without_end_are_refused() -> None:
    dataset = Dataset()
    dataset.ContainerIdentifier = "deepest"
    for _ in range(MAX_DEPTH + 1):
        outer = Dataset()
        outer.SpecimenDescriptionSequence = Sequence([dataset])
        dataset = outer

    assert refused(encoded(dataset)) == "unreadable_dataset"


@pytest.mark.parametrize("name", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_absent_uid_is_refused(name: str) -> None:
    dataset = a_smear()
    delattr(dataset, name)

    assert refused(encoded(dataset)) == "missing_uid"


def test_big_endian_is_refused_by_name() -> None:
    assert refused(encoded(a_smear()), ExplicitVRBigEndian) == "unsupported_transfer_syntax"


def test_a_uid_that_would_lead_out_of_a_folder_is_none() -> None:
    assert is_uid("1.2.840.0")
    assert not any(map(is_uid, ("", "1", "1.02", "1..2", "../1.2", "1.2\n", f"1.{'2' * 63}")))


class TestSpecimen:
    def test_equal_labels_of_two_patients_never_meet(self) -> None:
        one, other = (key(PatientID=patient) for patient in ("P1", "P2"))

        assert one != other

    def test_equal_labels_of_one_patient_meet_over_series(self) -> None:
        assert key(SeriesInstanceUID="1.2.8") == key(SeriesInstanceUID="1.2.9")

    def test_two_specimens_of_one_patient_differ(self) -> None:
        assert key(ContainerIdentifier="SLIDE7") != key(ContainerIdentifier="SLIDE8")

    def test_without_a_patient_the_study_stands_in(self) -> None:
        nobody = {"PatientID": "", "ContainerIdentifier": "SLIDE7"}

        assert key(**nobody, StudyInstanceUID="1.2.8") != key(**nobody, StudyInstanceUID="1.2.9")

    def test_without_a_specimen_there_is_no_key(self) -> None:
        assert peeked(encoded(make_dataset("1.2.3.4", 1))).specimen_key == ""

    def test_the_key_names_nobody(self) -> None:
        assert not any(word in key() for word in ("P1", "SLIDE7", "S1", "Doe"))


def key(**attributes: object) -> str:
    return peeked(encoded(a_smear(**attributes))).specimen_key


class TestInflate:
    def test_what_was_deflated_comes_back(self) -> None:
        content, target = encoded(a_smear()) * 100, io.BytesIO()

        length = inflate(io.BytesIO(deflated(content)), target, max_bytes=len(content))

        assert (length, target.getvalue()) == (len(content), content)

    def test_a_bomb_is_refused_as_soon_as_it_is_too_large(self) -> None:
        target = io.BytesIO()

        with pytest.raises(Rejected) as caught:
            inflate(io.BytesIO(deflated(bytes(50_000_000))), target, max_bytes=1_000_000)

        assert caught.value.code == "object_too_large"
        assert len(target.getvalue()) <= 1_000_000

    @pytest.mark.parametrize(
        ("content", "code"),
        [(b"\xff" * 100, "unreadable_dataset"), (None, "truncated_dataset")],
    )
    def test_what_is_no_deflated_stream_is_refused(self, content: bytes | None, code: str) -> None:
        broken = content or deflated(struct.pack("<1000H", *range(1000)))[:-20]

        with pytest.raises(Rejected) as caught:
            inflate(io.BytesIO(broken), io.BytesIO(), max_bytes=1_000_000)

        assert caught.value.code == code


def deflated(content: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(content) + machine.flush()
