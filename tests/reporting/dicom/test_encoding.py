"""Our encoder gives the bytes of pydicom's writer, whatever a dataset holds."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from reporting.dicom import common_modules
from reporting.dicom.common_modules import part10_bytes
from reporting.dicom.encoding import encode_dataset
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import results_of
from tests.reporting.sources import SOP_CLASSES, make_source

TEXT = st.text(
    st.characters(codec="latin-1", min_codepoint=32, exclude_characters="\x7f\\"), max_size=12
)
CODE = st.from_regex(r"[A-Z0-9_]{0,16}", fullmatch=True)
UIDS = st.from_regex(r"1(\.[1-9][0-9]{0,4}){1,8}", fullmatch=True)
VALUES = {
    "PatientName": st.from_regex(r"[A-Za-zäöü]{1,9}(\^[A-Za-z]{1,9})?", fullmatch=True),
    "SeriesDescription": TEXT,
    "ImageType": st.lists(CODE, min_size=1, max_size=3),
    "SOPInstanceUID": UIDS,
    "StudyDate": st.sampled_from(["20261124", "", None]),
    "TextValue": TEXT,
    "LongCodeValue": TEXT,
    "NumericValue": st.one_of(st.just([]), st.lists(st.integers(-999, 999), max_size=4)),
    "InstanceNumber": st.integers(-9, 99999),
    "Rows": st.integers(0, 65535),
    "SimpleFrameList": st.lists(st.integers(0, 2**32 - 1), max_size=4),
    "GraphicData": st.lists(st.floats(0, 9000, width=32), max_size=9),
    "EncapsulatedDocument": st.binary(max_size=9).filter(lambda one: len(one) % 2 == 0),
    "SmallestImagePixelValue": st.integers(0, 255),
}


@st.composite
def datasets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    dataset = Dataset()
    for keyword in draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True)):
        setattr(dataset, keyword, draw(VALUES[keyword], label=keyword))
    if depth:
        items = draw(st.lists(datasets(depth=depth - 1), max_size=3))
        dataset.ContentSequence = items
        dataset["ContentSequence"].is_undefined_length = draw(st.booleans())
    return dataset


def by_pydicom(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@given(dataset=datasets(), character_set=st.sampled_from([None, "ISO_IR 100", "ISO_IR 192"]))
def test_every_dataset_is_encoded_as_pydicom_does(
    dataset: Dataset, character_set: str | None
) -> None:
    dataset.SpecificCharacterSet = character_set or "ISO_IR 100"
    dataset.PixelRepresentation = 0

    assert encode_dataset(dataset) == by_pydicom(dataset)


def test_what_was_read_is_encoded_as_it_was_read() -> None:
    """A padding that pydicom would not write stays."""
    content = b"\x08\x00\x60\x00CS\x04\x00GM  \x10\x00\x20\x00LO\x04\x00A1\x20\x20"
    read = dcmread(BytesIO(content), force=True)

    assert encode_dataset(read) == by_pydicom(read)


def test_text_longer_than_its_length_field_is_left_to_pydicom() -> None:
    dataset = Dataset()
    dataset.add_new(0x00400280, "ST", "x" * 70_000)

    with pytest.warns(UserWarning, match="64 kByte"):
        ours = encode_dataset(dataset)
    with pytest.warns(UserWarning, match="64 kByte"):
        assert ours == by_pydicom(dataset)


@pytest.mark.parametrize("kind", sorted(SOP_CLASSES))
def test_every_result_is_encoded_as_pydicom_does(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def compare(dataset: Dataset) -> bytes:
        ours = encode_dataset(dataset)
        assert ours == by_pydicom(dataset)
        if "SOPClassUID" in dataset:  # and no File Meta Information
            compared.append(dataset.SOPClassUID)
        return ours

    monkeypatch.setattr(common_modules, "encode_dataset", compare)
    field = make_field_findings()
    sources = {str(field.sop_instance_uid): make_source(kind, field)}

    results = results_of(make_smear_findings([field]), sources)

    assert len(compared) == len(results) >= 5


def test_the_file_begins_as_pydicom_begins_it() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    ours = part10_bytes(dataset)
    meta = FileMetaDataset()
    meta.update(dcmread(BytesIO(ours)).file_meta)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    file = FileDataset(buffer, dataset, file_meta=meta, preamble=b"\x00" * 128)
    dcmwrite(buffer, file, enforce_file_format=True)

    assert ours == buffer.getvalue()
