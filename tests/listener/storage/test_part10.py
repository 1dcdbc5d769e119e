"""Whatever bytes come as a file are an offer, a wish for more, or a refusal in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from listener.storage.part10 import (
    FACTS_BYTES,
    FACTS_CREATOR_UID,
    IMPLEMENTATION_VERSION_NAME,
    MAX_HEADER_BYTES,
    StoredInstance,
    StoreRequest,
    encode_facts,
    encode_header,
    read_received,
    split_header,
)
from pipeline.domain import SeriesUID, SOPInstanceUID, StudyUID
from pipeline.errors import Defect, Rejected
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID
from tests.builders import build_image, dataset_bytes, file_bytes
from tests.listener.peers import dataset_of

OFFER = StoreRequest(
    sop_class_uid=SecondaryCaptureImageStorage,
    sop_instance_uid="1.2.3.4",
    transfer_syntax_uid=ExplicitVRLittleEndian,
    source="DEVICE",
)
FACTS = StoredInstance(
    sop_instance_uid=SOPInstanceUID("1.2.3.4"),
    path=Path("1.2.3.4.dcm"),
    received_at=datetime.fromisoformat("2026-01-02T03:04:05+01:00"),
    source="DEVICE",
    sha256="ab" * 32,
    study_uid=StudyUID("1.2.3"),
    series_uid=SeriesUID("1.2.3.5"),
    specimen_key="",
    deviations=("unknown_vr",),
)
HEADER = encode_header(OFFER)
DATASET = dataset_bytes(build_image())
FILE = HEADER + DATASET


UIDS = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,6}){1,8}", fullmatch=True)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom's, of leading zeros
@given(UIDS, UIDS, UIDS, st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=16))
def test_a_header_is_byte_for_byte_what_pydicom_writes(
    sop_class: str, instance: str, syntax: str, source: str
) -> None:
    request = StoreRequest(
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        transfer_syntax_uid=syntax,
        source=source,
    )
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    # As it was read: pydicom would take a backslash for two values.
    meta["SourceApplicationEntityTitle"] = DataElement(
        "SourceApplicationEntityTitle", "AE", source, already_converted=True
    )
    meta.PrivateInformationCreatorUID = UID(FACTS_CREATOR_UID)
    meta.PrivateInformation = b" " * FACTS_BYTES
    written = DicomBytesIO(bytes(128) + b"DICM")
    written.seek(132)
    write_file_meta_info(written, meta)

    assert encode_header(request) == written.getvalue()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom's, which quote what they read
class TestWhatIsNoFile:
    @pytest.mark.parametrize(
        "head",
        [b"", b"\x02\0", b"GET / HTTP/1.1", bytes(200), bytes(128) + b"DICM", HEADER[:200]],
        ids=["nothing", "two bytes", "http", "zeros", "only a preamble", "half a header"],
    )
    def test_is_refused_when_nothing_more_comes(self, head: bytes) -> None:
        with pytest.raises(Rejected) as caught:
            split_header(head, source="stow", is_all=True)

        assert caught.value.code == "not_dicom"

    def test_a_header_without_end_is_not_waited_for(self) -> None:
        endless = bytearray(HEADER[:140]) + b"\xff\xff\xff\x7f" + bytes(MAX_HEADER_BYTES)

        with pytest.raises(Rejected):
            split_header(bytes(endless), source="stow", is_all=False)

    @given(at=st.integers(0, len(HEADER) - 1), byte=st.integers(0, 255))
    def test_a_changed_header_is_an_offer_or_refused(self, at: int, byte: int) -> None:
        changed = bytearray(FILE)
        changed[at] = byte

        try:
            split = split_header(bytes(changed), source="stow", is_all=True)
        except Rejected as err:
            assert err.code == "not_dicom"
        else:
            assert split is not None

    @given(head=st.binary(max_size=400))
    def test_any_bytes_are_an_offer_or_refused(self, head: bytes) -> None:
        try:
            split = split_header(head, source="stow", is_all=True)
        except Rejected as err:
            assert err.code == "not_dicom"
        else:
            assert split is not None


class TestWhatAFileOffers:
    @pytest.mark.parametrize("kept", [0, 131, 140, len(HEADER) - 1])
    def test_is_known_when_its_header_is_there(self, kept: int) -> None:
        assert split_header(HEADER[:kept], source="stow", is_all=False) is None

    def test_is_what_its_header_says_and_the_dataset_follows(self) -> None:
        split = split_header(FILE, source="stow", is_all=False)

        assert split == (replace(OFFER, source="stow"), DATASET)

    def test_is_read_without_a_preamble_too(self) -> None:
        split = split_header(FILE[132:], source="stow", is_all=True)

        assert split == (replace(OFFER, source="stow"), DATASET)

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    def test_is_read_from_a_bare_dataset(self, syntax: UID) -> None:
        image = build_image(transfer_syntax=syntax)
        bare = dataset_bytes(image)

        split = split_header(bare, source="stow", is_all=True)

        assert split is not None
        assert (split[0].sop_instance_uid, split[0].transfer_syntax_uid) == (
            image.SOPInstanceUID,
            syntax,
        )
        assert split[1] == bare


class TestFacts:
    def test_that_outgrow_their_place_are_a_defect_of_ours(self) -> None:
        with pytest.raises(Defect) as caught:
            encode_facts(replace(FACTS, specimen_key="x" * FACTS_BYTES))

        assert caught.value.code == "facts_too_long"

    def test_fill_their_place(self) -> None:
        assert len(encode_facts(FACTS)) == FACTS_BYTES

    def test_are_the_last_of_the_header_and_found_in_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "1.2.3.4.dcm"
        path.write_bytes(HEADER[:-FACTS_BYTES] + encode_facts(FACTS) + DATASET)

        assert read_received(path) == replace(FACTS, path=path)

    def test_of_an_older_version_name_no_deviations(self, tmp_path: Path) -> None:
        path = tmp_path / "1.2.3.4.dcm"
        older = encode_facts(replace(FACTS, deviations=()))
        path.write_bytes(HEADER[:-FACTS_BYTES] + older + DATASET)

        assert b"deviations" not in older
        assert read_received(path).deviations == ()

    @pytest.mark.parametrize("blank", [b" " * FACTS_BYTES, b"{}".ljust(FACTS_BYTES), b"[]"])
    def test_that_cannot_be_read_are_named(self, tmp_path: Path, blank: bytes) -> None:
        path = tmp_path / "1.2.3.4.dcm"
        path.write_bytes(HEADER[:-FACTS_BYTES] + blank + DATASET)

        with pytest.raises(Rejected) as caught:
            read_received(path)
        assert caught.value.code == "unreadable_dataset"


class TestDeflatedFiles:
    def test_are_requests_however_much_of_their_dataset_is_there(self) -> None:
        """Nothing of the dataset is inflated: it may be cut anywhere, or a bomb."""
        image = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian)
        file = file_bytes(image)
        for end in (len(file), len(file) // 2):
            split = split_header(file[:end], source="stow", is_all=False)

            assert split is not None
            assert split[0].sop_instance_uid == image.SOPInstanceUID
            assert split[1] == dataset_of(file[:end])
