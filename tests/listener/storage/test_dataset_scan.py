"""A dataset is whole to its last byte or refused, and its specimen is named without its patient."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given
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

from listener.storage import dataset_scan
from listener.storage.dataset_scan import (
    MAX_DEPTH,
    DatasetIdentifiers,
    Element,
    InflatedStream,
    Inflation,
    is_uid,
    name_unknown_vrs,
    scan_dataset,
    walk,
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


@given(
    st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=6)), max_size=3),
    st.sampled_from(SYNTAXES),
    st.integers(1, 64),
)
@example([], ExplicitVRLittleEndian, 1)
def test_the_verdict_does_not_depend_on_how_much_is_read_at_once(
    changes: list[tuple[int, bytes]], syntax: str, window_bytes: int
) -> None:
    """Read in windows shorter than a header, no element takes the quick way of `_walk`."""
    content = bytearray(encoded(a_smear(), syntax))
    for place, new in changes:
        at = place % len(content)
        content[at : at + len(new)] = new

    at_once = verdict(bytes(content), syntax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_scan, "_WINDOW_BYTES", window_bytes)
        in_pieces = verdict(bytes(content), syntax)
        inflated = verdict(bytes(content), syntax, as_deflated=True)

    assert in_pieces == inflated == at_once


def verdict(
    content: bytes, syntax: str, *, as_deflated: bool = False
) -> tuple[object, list[Element]]:
    """The identifiers or the code of the refusal, and the elements before it."""
    is_implicit, elements = syntax == ImplicitVRLittleEndian, []
    stream = InflatedStream(io.BytesIO(deflated(content)), start=0) if as_deflated else None
    try:
        for element in walk(
            io.BytesIO(content), start=0, end=len(content), is_implicit=is_implicit
        ):
            elements.append(element)
        found: object = scan_dataset(
            stream or io.BytesIO(content),
            start=0,
            length=len(content),
            transfer_syntax_uid=syntax,
        )
    except Rejected as err:
        found = err.code
    return found, elements


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
        (lambda data: data[:4] + b"\1\2" + data[6:], "unreadable_dataset"),
    ],
    ids=["element_twice", "after_the_pixels", "no_vr"],
)
def test_what_is_no_dataset_is_refused(break_it: Callable[[bytes], bytes], code: str) -> None:
    assert refused(break_it(encoded(a_smear()))) == code


def test_a_uid_that_is_there_twice_is_refused() -> None:
    content = encoded(a_smear())
    uid = b"\x08\0\x18\0UI\x06\x001.2.9\0"
    at = content.index(b"\x28\0\x02\0")

    assert refused(content[:at] + uid + content[at:]) == "unreadable_dataset"


class TestTolerance:
    """What every PACS takes is taken, and noted."""

    def test_tags_out_of_order(self) -> None:
        content = encoded(a_smear())
        at = content.index(b"\x28\0\x02\0")
        early = b"\x08\0\x70\0LO\x04\0abcd"

        assert peeked(content[:at] + early + content[at:]).deviations == ("out_of_order_tags",)

    def test_a_vr_of_question_marks(self) -> None:
        content = encoded(a_smear())
        at = content.index(b"\x28\0\x02\0")
        unknown = b"\x27\0\x10\0??\x04\0abcd"
        odd = content[:at] + unknown + content[at:]

        named = bytearray(odd)
        name_unknown_vrs(named, start=0)

        assert peeked(odd).deviations == ("unknown_vr",)
        assert bytes(named) == odd.replace(b"??", b"LO")

    @pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
    def test_uids_with_leading_zeros(self) -> None:
        scanned = peeked(encoded(a_smear(SOPInstanceUID="1.2.03")))

        assert scanned.sop_instance_uid == "1.2.03"
        assert scanned.deviations == ("uid_with_leading_zero",)

    def test_a_dataset_in_order_has_none(self) -> None:
        assert peeked(encoded(a_smear())).deviations == ()


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
    assert not any(map(is_uid, ("", "1", "1..2", ".1", "1.", "../1.2", "1.2\n", f"1.{'2' * 63}")))


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
    @given(cuts=st.lists(st.integers(1, 5000), max_size=20), ratio=st.sampled_from([1, 300]))
    def test_what_was_deflated_is_measured_and_read_in_any_pieces(
        self, cuts: list[int], ratio: int
    ) -> None:
        content = encoded(a_smear()) + bytes(1000 * ratio)
        packed = deflated(content)
        inflation = Inflation(max_bytes=len(content))
        for start in range(0, len(packed), 100):
            inflation.feed(packed[start : start + 100])
        stream, position = InflatedStream(io.BytesIO(b"head" + packed), start=4), 0

        assert inflation.finish() == len(content)
        for count in cuts:
            stream.seek(position)
            assert stream.read(count) == content[position : position + count]
            position += 2 * count

    def test_a_bomb_is_refused_as_soon_as_it_is_too_large(self) -> None:
        packed = deflated(bytes(50_000_000))
        inflation = Inflation(max_bytes=1_000_000)

        with pytest.raises(Rejected) as caught:
            inflation.feed(packed)

        assert caught.value.code == "object_too_large"
        assert inflation._length < 1_100_000

    def test_one_that_is_read_costs_no_memory(self) -> None:
        stream = InflatedStream(io.BytesIO(deflated(bytes(50_000_000))), start=0)
        tracemalloc.start()

        stream.seek(49_999_999)
        last, end = stream.read(10), stream.read(10)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert (last, end) == (b"\0", b"")
        assert peak < 2_000_000

    @pytest.mark.parametrize(
        ("content", "code"),
        [(b"\xff" * 100, "unreadable_dataset"), (None, "truncated_dataset")],
    )
    def test_what_is_no_deflated_stream_is_refused(self, content: bytes | None, code: str) -> None:
        broken = content or deflated(struct.pack("<1000H", *range(1000)))[:-20]
        inflation = Inflation(max_bytes=1_000_000)

        with pytest.raises(Rejected) as caught:
            inflation.feed(broken)
            inflation.finish()

        assert caught.value.code == code


def deflated(content: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(content) + machine.flush()
