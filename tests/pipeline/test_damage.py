"""Damaged pixel data is refused, so that no cell is judged on what a decoder made of it."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from listener.demo.phantom import Recipe, draw_field
from pipeline.decoding.frames import read_frames
from pipeline.domain import RGB
from pipeline.errors import Rejected
from tests.builders import build_image
from tests.pipeline.damage import LARGE, SMALL, Damaged, damaged, is_harmful

SAMPLINGS = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
REFUSED = {"corrupt_pixel_data", "truncated_pixel_data", "decode_failed"}
TIMES = 10
CORNER = np.s_[:240, :320]
"""Enough of the field where decoders are slow."""


@cache
def field() -> RGB:
    """A small field of the phantom."""
    return draw_field(3, Recipe(width=640, height=480)).pixels


def jpeg(sampling: int, pixels: RGB | None = None) -> bytes:
    """The field as baseline JPEG."""
    shown = cv2.cvtColor(field() if pixels is None else pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", shown, options)[1].tobytes()


def read(syntax: UID, frame: bytes, shape: tuple[int, ...]) -> RGB:
    """What the pipeline sees; Rejected when it refuses."""
    image = build_image(transfer_syntax=syntax)
    image.Rows, image.Columns = shape[:2]
    image.PixelData = encapsulate([frame])
    (source,) = read_frames(image)
    return source.pixels


def accepted(syntax: UID, frames: list[Damaged], whole: RGB) -> list[Damaged]:
    """Damaged frames that were let through although their pixels are far from `whole`."""
    through = []
    for one in frames:
        try:
            pixels = read(syntax, one.frame, whole.shape)
        except Rejected as err:
            assert err.code in REFUSED
        else:
            if is_harmful(pixels, whole):
                through.append(one)
    return through


def refused(syntax: UID, frames: list[Damaged], whole: RGB) -> int:
    """How many are refused."""
    number = 0
    for one in frames:
        try:
            read(syntax, one.frame, whole.shape)
        except Rejected:
            number += 1
    return number


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
class TestJpeg:
    """Its code falls into step again after damage: what is left of it is in the colors."""

    def test_a_whole_one_is_read(self, sampling: int) -> None:
        frame = jpeg(sampling)

        assert not is_harmful(read(JPEGBaseline8Bit, frame, field().shape), field())

    def test_a_damaged_sector_is_refused(self, sampling: int) -> None:
        whole = read(JPEGBaseline8Bit, jpeg(sampling), field().shape)
        frames = damaged(jpeg(sampling), LARGE, first=700, times=TIMES)

        assert refused(JPEGBaseline8Bit, frames, whole) >= 0.95 * len(frames)


def test_little_damage_to_a_jpeg_that_changes_the_picture_is_refused() -> None:
    """Nearly always: what is let through fell into step at once, and slipped by little."""
    number, through = 0, 0
    for sampling in SAMPLINGS.values():
        whole = read(JPEGBaseline8Bit, jpeg(sampling), field().shape)
        frames = damaged(jpeg(sampling), SMALL, first=700, times=2 * TIMES)
        number += len(frames)
        through += len(accepted(JPEGBaseline8Bit, frames, whole))

    assert through <= 0.08 * number


def test_a_jpeg_of_gray_whose_light_slips_is_refused() -> None:
    gray = np.repeat(field()[:, :, 1:2], 3, axis=2)
    _, coded = cv2.imencode(".jpg", gray[:, :, 0])
    image = build_image(transfer_syntax=JPEGBaseline8Bit, photometric="MONOCHROME2")
    image.Rows, image.Columns = gray.shape[:2]
    frames = damaged(coded.tobytes(), LARGE, first=400, times=TIMES)
    codes = []

    for one in frames:
        image.PixelData = encapsulate([one.frame])
        try:
            list(read_frames(image))
        except Rejected as err:
            codes.append(err.code)

    assert len(codes) >= 0.9 * len(frames)
    assert set(codes) <= REFUSED


def test_rle_never_gives_another_picture() -> None:
    """Its bytes are the pixels: what changes no length changes these pixels alone."""
    pixels = field()[CORNER]
    image = build_image(transfer_syntax=RLELossless, pixels=pixels)
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    frames = damaged(frame, {**SMALL, **LARGE}, first=64, times=TIMES)

    assert accepted(RLELossless, frames, pixels) == []


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLSNearLossless])
def test_jpeg_ls_refuses_nearly_all_damage(syntax: UID) -> None:
    """Each code depends on all before it, and the last must end where the data ends."""
    pixels = field()[CORNER]
    image = build_image(transfer_syntax=syntax, pixels=pixels)
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    frames = damaged(frame, {**SMALL, **LARGE}, first=64, times=TIMES)

    assert refused(syntax, frames, pixels) >= 0.95 * len(frames)
    assert accepted(syntax, frames, pixels) == []


@pytest.mark.parametrize("syntax", [JPEG2000, JPEG2000Lossless])
def test_jpeg_2000_that_lost_bytes_is_refused(syntax: UID) -> None:
    """Overwritten ones are not: its arithmetic code has no check, see the conformance statement."""
    image = build_image(transfer_syntax=syntax, pixels=field()[CORNER])
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    lost = {kind: harm for kind, harm in {**SMALL, **LARGE}.items() if "lost" in kind}
    frames = damaged(frame, lost, first=700, times=TIMES)

    assert refused(syntax, frames, field()[CORNER]) == len(frames)


def test_htj2k_that_lost_bytes_is_refused() -> None:
    image = build_image(transfer_syntax=HTJ2KLossless)
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    lost = {kind: harm for kind, harm in {**SMALL, **LARGE}.items() if "lost" in kind}
    frames = damaged(frame, lost, first=700, times=TIMES)

    assert refused(HTJ2KLossless, frames, np.zeros((80, 96, 3), np.uint8)) == len(frames)


class TestWhatIsNoDamage:
    """Straight lines, dark edges and banners are in whole pictures too."""

    @pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
    @pytest.mark.parametrize(
        "box",
        [
            (0, 64, 0, 640),
            (432, 480, 0, 640),
            (0, 480, 0, 96),
            (64, 128, 200, 640),
            (64, 96, 0, 300),
        ],
        ids=["above", "below", "left", "to the right edge", "to the left edge"],
    )
    def test_dark_bars_are_let_through(self, sampling: int, box: tuple[int, int, int, int]) -> None:
        pixels = field().copy()
        pixels[box[0] : box[1], box[2] : box[3]] = 20

        assert not is_harmful(read(JPEGBaseline8Bit, jpeg(sampling, pixels), pixels.shape), pixels)

    def test_one_colour_is_let_through(self) -> None:
        pixels = np.full((480, 640, 3), 230, dtype=np.uint8)
        frame = jpeg(SAMPLINGS["4:2:0"], pixels)

        assert not is_harmful(read(JPEGBaseline8Bit, frame, pixels.shape), pixels)
