"""Whatever bytes come as a file are an offer, a wish for more, or a refusal in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from listener.storage.part10 import (
    FACTS_BYTES,
    MAX_HEADER_BYTES,
    Facts,
    StoreRequest,
    encode_facts,
    encode_header,
    read_received,
    split_header,
)
from pipeline.errors import Defect, Rejected
from tests.builders import build_image, dataset_bytes

OFFER = StoreRequest(
    sop_class_uid=SecondaryCaptureImageStorage,
    sop_instance_uid="1.2.3.4",
    transfer_syntax_uid=ExplicitVRLittleEndian,
    source="DEVICE",
)
FACTS = Facts(
    received_at="2026-01-02T03:04:05+01:00",
    source="DEVICE",
    sha256="ab" * 32,
    study_uid="1.2.3",
    series_uid="1.2.3.5",
    specimen_key="",
)
HEADER = encode_header(OFFER)
DATASET = dataset_bytes(build_image())
FILE = HEADER + DATASET


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
    def test_is_read_from_a_bare_dataset(self, syntax: str) -> None:
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

    def test_fill_their_place_and_can_be_read_again(self) -> None:
        said = encode_facts(FACTS)

        assert len(said) == FACTS_BYTES
        assert Facts(**json.loads(said)) == FACTS

    def test_are_the_last_of_the_header_and_found_in_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "1.2.3.4.dcm"
        path.write_bytes(HEADER[:-FACTS_BYTES] + encode_facts(FACTS) + DATASET)

        received = read_received(path, is_duplicate=True)

        assert (received.sop_instance_uid, received.path) == ("1.2.3.4", path)
        assert (received.study_uid, received.series_uid) == (FACTS.study_uid, FACTS.series_uid)
        assert (received.sha256, received.source) == (FACTS.sha256, FACTS.source)
        assert received.received_at.isoformat() == FACTS.received_at
        assert received.is_duplicate
