"""Pictures as Secondary Capture: what is seen, how it is coded, and what was lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.rendering.annotated_field import draw_field
from reporting.dicom.color import srgb_profile
from reporting.dicom.secondary_capture import is_source_lossy, lossy_history
from reporting.results import ResultKind
from tests.findings import make_field_findings, make_picture, make_smear_findings
from tests.reporting.made import made, read, results_of
from tests.reporting.sources import make_source

FIELD = make_field_findings(width=1100, height=800)
DRAWN = draw_field(make_picture(FIELD), FIELD)
PICTURES = (ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY)


def test_plain_pixels_are_the_picture() -> None:
    picture = made(ResultKind.ANNOTATED_FIELD, FIELD, compress_images=False)

    assert picture.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert picture.PhotometricInterpretation == "RGB"
    np.testing.assert_array_equal(pixel_array(picture), DRAWN)


def test_jpeg_is_close_to_the_picture() -> None:
    picture = made(ResultKind.ANNOTATED_FIELD, FIELD)

    assert picture.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert picture.PhotometricInterpretation == "YBR_FULL_422"
    assert np.abs(pixel_array(picture).astype(int) - DRAWN).mean() < 2.0


def test_the_jpeg_has_the_chroma_that_its_header_states() -> None:
    """YBR_FULL_422 is halved sideways: sampling 2×1 for Y (ISO 10918-1 B.2.2)."""
    coded = made(ResultKind.ANNOTATED_FIELD, FIELD).PixelData
    frame_header = coded.index(b"\xff\xc0")

    samplings = [coded[frame_header + 11 + 3 * component] for component in range(3)]

    assert samplings == [0x21, 0x11, 0x11]


@pytest.mark.parametrize("kind", PICTURES)
def test_the_label_is_burned_in_and_said(kind: ResultKind) -> None:
    picture = made(kind, FIELD)

    assert picture.BurnedInAnnotation == "YES"
    assert picture.ImageComments == RESEARCH_USE_ONLY
    assert picture.DerivationDescription.startswith(RESEARCH_USE_ONLY)
    assert list(picture.ImageType) == ["DERIVED", "SECONDARY"]


@pytest.mark.parametrize("kind", PICTURES)
def test_it_names_its_source(kind: ResultKind) -> None:
    picture = made(kind, FIELD)

    [source] = picture.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == FIELD.sop_instance_uid
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    [series] = picture.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == FIELD.series_uid


@pytest.mark.parametrize(
    ("field", "compress", "codes"),
    [
        (FIELD, False, {"113076"}),
        (FIELD, True, {"113076", "113040"}),
        (make_field_findings(width=320, height=240), False, {"113076", "113085"}),
    ],
)
def test_the_derivation_is_told(field, compress: bool, codes: set[str]) -> None:
    """Segmentation; lossy compression and enlargement where they happened."""
    picture = made(ResultKind.ANNOTATED_FIELD, field, compress_images=compress)

    assert {one.CodeValue for one in picture.DerivationCodeSequence} == codes


class TestLossyHistory:
    """Once lost, always said (PS3.3 C.7.6.1.1.5)."""

    def test_nothing_was_lost(self) -> None:
        history = lossy_history([make_source("microscopic", FIELD)], None)

        assert history.LossyImageCompression == "00"

    def test_a_source_that_hides_its_jpeg(self) -> None:
        source = make_source("microscopic", FIELD, photometric="JPEG")
        del source.LossyImageCompression

        assert is_source_lossy(source)
        assert lossy_history([source], None).LossyImageCompression == "01"

    def test_our_own_loss_comes_after_the_source_s(self) -> None:
        source = make_source("microscopic", FIELD)
        source.LossyImageCompression = "01"
        source.LossyImageCompressionRatio = [8]
        source.LossyImageCompressionMethod = ["ISO_15444_1"]

        history = lossy_history([source], 12.5)

        assert [float(one) for one in history.LossyImageCompressionRatio] == [8.0, 12.5]
        assert list(history.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]

    def test_ratios_that_do_not_fit_their_methods_are_not_passed_on(self) -> None:
        source = Dataset()
        source.file_meta = make_source("microscopic", FIELD).file_meta
        source.LossyImageCompression = "01"
        source.LossyImageCompressionRatio = [8, 9]
        source.LossyImageCompressionMethod = ["ISO_15444_1"]

        history = lossy_history([source], None)

        assert history.LossyImageCompression == "01"
        assert "LossyImageCompressionRatio" not in history


PROFILE = srgb_profile()


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("is_compressed", [True, False])
@pytest.mark.parametrize("place", ["image", "optical path"])
def test_the_profile_of_the_source_stays_with_its_pixels(
    kind: ResultKind, is_compressed: bool, place: str
) -> None:
    source = make_source("slide_coordinates", FIELD)
    _set_profile(source, PROFILE, place)

    picture = made(kind, FIELD, source=source, compress_images=is_compressed)

    assert picture.ICCProfile == PROFILE


@pytest.mark.parametrize("kind", PICTURES)
def test_without_a_profile_none_is_invented(kind: ResultKind) -> None:
    source = make_source("slide_coordinates", FIELD)
    _set_profile(source, None, "optical path")

    assert "ICCProfile" not in made(kind, FIELD, source=source)


def test_a_gallery_of_unlike_profiles_names_none() -> None:
    fields = [make_field_findings(sop_instance_uid=f"1.2.{number}") for number in (1, 2)]
    sources = {field.sop_instance_uid: make_source("slide_coordinates", field) for field in fields}
    for number, source in enumerate(sources.values()):
        _set_profile(source, PROFILE + bytes(2 * number), "image")

    (result,) = results_of(make_smear_findings(fields), sources, ResultKind.GALLERY)

    assert "ICCProfile" not in read(result)


def _set_profile(source: Dataset, profile: bytes | None, place: str) -> None:
    for one in (source, *source.get("OpticalPathSequence", [])):
        one.pop("ICCProfile", None)
    if profile is None:
        return
    if place == "image":
        source.ICCProfile = profile
        return
    path = Dataset()
    path.ICCProfile = profile
    source.OpticalPathSequence = [path]
