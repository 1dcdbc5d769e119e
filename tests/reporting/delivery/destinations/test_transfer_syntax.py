"""Which transfer syntax a peer gets, and that nothing is lost on the way to it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from reporting.delivery.destinations.transfer_syntax import (
    BY_PREFERENCE,
    TRANSFER_SYNTAXES,
    candidate_syntaxes,
    select_syntax,
    transcode,
)
from tests.reporting.delivery.labelled import make_picture, picture_pixels

SYNTAXES = list(TRANSFER_SYNTAXES.values())


@given(st.sampled_from(SYNTAXES), st.booleans(), st.lists(st.sampled_from(SYNTAXES), max_size=5))
def test_offers_always_hold_the_default_and_its_own(
    own: UID, has_8_bit_pixels: bool, preference: list[UID]
) -> None:
    offered = candidate_syntaxes(own, has_8_bit_pixels=has_8_bit_pixels, preference=preference)

    assert {own, ImplicitVRLittleEndian, ExplicitVRLittleEndian} <= set(offered)
    assert len(offered) == len(set(offered))


@given(st.sampled_from(SYNTAXES), st.lists(st.sampled_from(SYNTAXES), max_size=5))
def test_nothing_is_made_lossy(own: UID, preference: list[UID]) -> None:
    offered = candidate_syntaxes(own, has_8_bit_pixels=True, preference=preference)

    assert JPEGBaseline8Bit not in offered or own == JPEGBaseline8Bit


def test_a_report_is_not_compressed() -> None:
    offered = candidate_syntaxes(
        ExplicitVRLittleEndian, has_8_bit_pixels=False, preference=SYNTAXES
    )

    assert set(offered) == {ExplicitVRLittleEndian, ImplicitVRLittleEndian}


def test_the_site_s_preference_comes_first() -> None:
    preference = (RLELossless, ImplicitVRLittleEndian)

    assert candidate_syntaxes(ExplicitVRLittleEndian, has_8_bit_pixels=True, preference=preference)[
        :2
    ] == (
        RLELossless,
        ImplicitVRLittleEndian,
    )


def test_the_first_that_is_accepted_is_chosen() -> None:
    assert select_syntax(BY_PREFERENCE, {ImplicitVRLittleEndian}) == ImplicitVRLittleEndian
    assert select_syntax(BY_PREFERENCE, set()) is None


@pytest.mark.parametrize(
    "target", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless]
)
def test_every_pixel_is_kept(target: UID) -> None:
    picture = make_picture()

    dataset = dcmread(BytesIO(transcode(picture.content, target)))

    assert dataset.file_meta.TransferSyntaxUID == target
    assert dataset.SOPInstanceUID == picture.uid
    np.testing.assert_array_equal(pixel_array(dataset), picture_pixels())


def test_a_jpeg_that_is_unpacked_stays_lossy_by_its_own_word() -> None:
    jpeg = make_picture(syntax=JPEGBaseline8Bit)

    dataset = dcmread(BytesIO(transcode(jpeg.content, ExplicitVRLittleEndian)))

    assert dataset.PhotometricInterpretation == "RGB"
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
