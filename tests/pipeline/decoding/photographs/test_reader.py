"""One strict reading of photographs: damaged and oversized files are refused, the rest is exact."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.decoding.photographs.photograph import Photograph
from pipeline.decoding.photographs.reader import date_taken, read_photograph
from pipeline.errors import Rejected
from tests.builders import build_image
from tests.pipeline.decoding.photographs.files import (
    HEIGHT,
    ICC_PROFILE,
    PIXELS,
    WIDTH,
    bmp_bitfields,
    bmp_v5,
    flipped,
    lab,
    oriented,
    pillow,
    png,
    png_16,
    png_chunk,
    spoiled,
    tiff,
)

WHOLE = {
    "jpeg": pillow("JPEG", quality=95),
    "jpeg progressive": pillow("JPEG", quality=95, progressive=True),
    "jpeg turned": pillow("JPEG", quality=95, exif=oriented(6)),
    "png": pillow("PNG"),
    "png interlaced 16": png_16(PIXELS.astype(np.uint16) * 257),
    "bmp": pillow("BMP"),
    "gif": pillow("GIF"),
    "webp": pillow("WEBP", lossless=True),
    "tiff": pillow("TIFF"),
    "tiff lzw": pillow("TIFF", compression="tiff_lzw"),
    "tiff deflate": pillow("TIFF", compression="tiff_adobe_deflate"),
    "tiff old deflate": pillow("TIFF", compression="tiff_deflate"),
    "tiff packbits": pillow("TIFF", compression="packbits"),
    "tiff jpeg": pillow("TIFF", compression="jpeg", quality=95),
    "avif": pillow("AVIF", quality=95),
}
UNCHECKED = {"bmp", "tiff", "tiff packbits", "avif"}
"""Formats whose pixels can be changed without a trace."""
CHECKED = [name for name in WHOLE if name not in UNCHECKED and "jpeg" not in name]
DAMAGE = {"not_an_image", "truncated_pixel_data", "corrupt_pixel_data"}


def refusal(content: bytes, **limits: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read_photograph(content, ImageLimits(**limits))
    return caught.value


def mean_error(photograph: Photograph, wanted: Any = PIXELS) -> float:
    assert photograph.pixels.dtype == np.uint8
    assert photograph.pixels.shape == wanted.shape
    return float(np.abs(photograph.pixels.astype(int) - wanted).mean())


def _is_refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except Rejected:
        return True
    return False


class TestDamage:
    @pytest.mark.parametrize("name", WHOLE)
    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.8, 0.95])
    def test_a_file_that_breaks_off(self, name: str, kept: float) -> None:
        content = WHOLE[name]

        assert refusal(content[: int(len(content) * kept)]).code in DAMAGE

    @pytest.mark.parametrize("name", WHOLE)
    def test_a_file_whose_last_bytes_are_missing(self, name: str) -> None:
        content = WHOLE[name]
        lost = 400 if "tiff" not in name else len(content) // 2

        assert refusal(content[:-lost]).code in DAMAGE

    @pytest.mark.parametrize("name", CHECKED)
    @pytest.mark.parametrize("at", [0.4, 0.5, 0.7])
    def test_zeros_in_the_middle(self, name: str, at: float) -> None:
        assert refusal(spoiled(WHOLE[name], at=at)).code in DAMAGE

    @pytest.mark.parametrize("name", [one for one in CHECKED if one != "gif"])
    @pytest.mark.parametrize("at", [0.45, 0.6])
    def test_other_bytes_in_the_middle(self, name: str, at: float) -> None:
        assert refusal(flipped(WHOLE[name], at=at, length=64)).code in DAMAGE

    @pytest.mark.parametrize("name", ["png", "webp", "gif", "tiff lzw", "tiff deflate"])
    def test_the_rest_replaced_by_zeros(self, name: str) -> None:
        content = WHOLE[name]
        half = len(content) // 2

        assert refusal(content[:half] + bytes(len(content) - half)).code in DAMAGE

    @pytest.mark.parametrize("damage", [spoiled, flipped])
    @pytest.mark.parametrize("length", [4, 30, 64])
    def test_a_jpeg_is_refused_where_it_would_be_inside_dicom(
        self, damage: Callable[..., bytes], length: int
    ) -> None:
        """ADR 0011 says which damage to a JPEG leaves no trace."""
        refused = 0
        for at in np.linspace(0.3, 0.95, 12):
            frame = damage(WHOLE["jpeg"], at=at, length=length)
            image = build_image(transfer_syntax=JPEGBaseline8Bit, pixels=PIXELS)
            image.PixelData = encapsulate([frame])
            inside = _is_refused(lambda: list(read_frames(image)))  # noqa: B023 - called at once

            assert _is_refused(partial(read_photograph, frame)) == inside
            refused += inside
        assert refused

    def test_a_png_whose_pixels_end_too_early_under_right_checksums(self) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS[:50])

        assert refusal(png(rows)).code == "corrupt_pixel_data"

    def test_a_png_with_more_pixels_than_its_header_says(self) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)

        assert refusal(png(rows + rows)).code == "corrupt_pixel_data"

    def test_a_png_whose_inner_checksum_is_wrong(self) -> None:
        packed = bytearray(zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS)))
        packed[-1] ^= 1

        assert refusal(png(b"", packed=bytes(packed))).code == "corrupt_pixel_data"

    def test_a_tiff_whose_strip_lies_behind_the_end(self) -> None:
        assert refusal(tiff(t279=PIXELS.size + 10_000)).code == "truncated_pixel_data"

    def test_a_tiff_with_too_few_strips(self) -> None:
        assert refusal(tiff(rows_per_strip=16)).code == "truncated_pixel_data"

    def test_a_tiff_with_a_short_strip(self) -> None:
        assert refusal(tiff(strips=[PIXELS.tobytes()[:-30]])).code == "truncated_pixel_data"

    @pytest.mark.parametrize("content", [b"", b"hello", b"BM", b"GIF89a", b"II*\0", bytes(500)])
    def test_what_is_no_photograph(self, content: bytes) -> None:
        assert refusal(content).code in DAMAGE

    @pytest.mark.parametrize(
        ("content", "advice"),
        [
            (b"PK\x03\x04" + bytes(90), "zip archive: unpack"),
            (b"\x1f\x8b" + bytes(90), "gzip archive"),
            (b"%PDF-1.7" + bytes(90), "PDF"),
            (b"\0\0\0\x18ftypheic" + bytes(90), "HEIC"),
            (bytes(257) + b"ustar" + bytes(90), "tar archive"),
            (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), "JPEG 2000"),
        ],
    )
    def test_what_people_mean_as_pictures_is_refused_with_advice(
        self, content: bytes, advice: str
    ) -> None:
        assert advice in refusal(content).message

    @pytest.mark.parametrize("name", WHOLE)
    @given(data=st.data())
    def test_mutated_files_are_read_or_refused(self, name: str, data: st.DataObject) -> None:
        content = bytearray(WHOLE[name])
        for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            content[at] = data.draw(st.integers(0, 255))

        try:
            photograph = read_photograph(bytes(content))
        except Rejected as err:
            assert err.code
        else:
            assert photograph.pixels.ndim == 3


class TestWholeFiles:
    @pytest.mark.parametrize("name", WHOLE)
    def test_each_format_is_read(self, name: str) -> None:
        wanted = np.rot90(PIXELS, -1) if "turned" in name else PIXELS
        lossy = {"jpeg", "jpeg progressive", "jpeg turned", "tiff jpeg", "gif", "avif"}

        assert mean_error(read_photograph(WHOLE[name]), wanted) <= (10 if name in lossy else 0)

    def test_what_follows_the_end_of_a_jpeg_is_left_out(self) -> None:
        """Telephones append previews and depth maps."""
        first = pillow("JPEG", quality=95)

        for rest in (first, bytes(5000), b"\xff" * 100):
            assert mean_error(read_photograph(first + rest)) < 5

    def test_several_pages_are_refused(self) -> None:
        target = io.BytesIO()
        pages = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
        for form in ("TIFF", "GIF", "WEBP", "PNG"):
            target = io.BytesIO()
            pages[0].save(target, form, save_all=True, append_images=pages[1:])

            assert refusal(target.getvalue()).code == "bad_count"

    def test_a_thumbnail_page_is_left_out(self) -> None:
        whole, small = tiff(), tiff(PIXELS[::4, ::4], t254=1)
        at = struct.unpack_from("<L", whole, 4)[0]
        (count,) = struct.unpack_from("<H", whole, at)
        link = at + 2 + 12 * count
        (inner,) = struct.unpack_from("<L", small, 4)
        (entries,) = struct.unpack_from("<H", small, inner)
        moved = bytearray(small[inner : inner + 2 + 12 * entries + 4])
        two_pages = bytearray(whole + moved)
        struct.pack_into("<L", two_pages, link, len(whole))

        assert mean_error(read_photograph(bytes(two_pages))) == 0

    @pytest.mark.parametrize("kind", ["float32", "float64", "int16", "uint32"])
    def test_other_samples_than_8_or_16_bits_are_refused(self, kind: str) -> None:
        form = {"float32": 3, "float64": 3, "int16": 2, "uint32": 1}[kind]
        gray = PIXELS[:, :, 0].astype(kind)

        assert "8 nor 16 bits" in refusal(tiff(gray, photometric=1, t339=form)).message

    def test_four_inks_are_refused(self) -> None:
        for form in ("JPEG", "TIFF"):
            target = io.BytesIO()
            Image.fromarray(PIXELS).convert("CMYK").save(target, form)
            assert "CMYK" in refusal(target.getvalue()).message


def _zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(1_000_000)) for _ in range(megabytes)]) + packer.flush()


def _claiming(form: str, *, at: bytes, offset: int, pattern: str, size: int) -> bytes:
    content = bytearray(pillow(form))
    struct.pack_into(pattern, content, content.index(at) + offset, size, size)
    return bytes(content)


BOMBS = {
    "png gray": png(b"", columns=30_000, rows=30_000, depth=1, color=0, packed=_zeros(40)),
    "png rgb": png(b"", columns=20_000, rows=20_000, packed=_zeros(40)),
    "png claim": png(b"\0" * 1000, columns=60_000, rows=60_000),
    "png deep": png(b"", columns=15_000, rows=15_000, depth=16, color=6, packed=_zeros(40)),
    "tiff deflate": tiff(PIXELS[..., 0], photometric=1, compression=8, t256=30_000, t257=30_000),
    "tiff claim": tiff(t256=60_000, t257=60_000),
    "tiff tiles": tiff(t256=60_000, t257=60_000, t322=256, t323=256, t324=8, t325=9),
    "jpeg": _claiming("JPEG", at=b"\xff\xc0", offset=5, pattern=">HH", size=65_000),
    "bmp": _claiming("BMP", at=b"BM", offset=18, pattern="<ll", size=60_000),
    "gif": _claiming("GIF", at=b"GIF", offset=6, pattern="<HH", size=65_535),
    "avif": _claiming("AVIF", at=b"ispe", offset=8, pattern=">LL", size=16_000),
}


class TestBombs:
    @pytest.mark.parametrize("name", BOMBS)
    def test_a_claim_is_refused_by_the_header(self, name: str) -> None:
        assert refusal(BOMBS[name]).code == "too_large"

    def test_a_webp_that_claims_the_most_it_can(self) -> None:
        content = bytearray(pillow("WEBP", lossless=True))
        at = content.index(b"VP8L") + 9
        (bits,) = struct.unpack_from("<L", content, at)
        struct.pack_into("<L", content, at, bits & ~0xFFFFFFF | 0x3FFF | 0x3FFF << 14)

        assert refusal(bytes(content)).code == "too_large"

    @pytest.mark.parametrize(
        "content",
        [
            png(b"", columns=1000, rows=1000, packed=_zeros(200)),
            tiff(strips=[_zeros(200)], compression=8),
            tiff(strips=[b"\x81\0" * 500_000], compression=32773),
        ],
        ids=["png", "tiff deflate", "tiff packbits"],
    )
    def test_more_data_than_pixels_is_not_unpacked(self, content: bytes) -> None:
        assert refusal(content).code == "corrupt_pixel_data"

    def test_a_color_profile_that_inflates_is_left_out(self) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
        content = png(rows, chunks=png_chunk(b"iCCP", b"x\0\0" + _zeros(200)))

        photograph = read_photograph(content)

        assert photograph.icc_profile is None
        assert mean_error(photograph) == 0

    @pytest.mark.parametrize("name", ["jpeg", "png", "tiff", "bmp", "gif", "webp", "avif"])
    def test_the_sites_own_limit(self, name: str) -> None:
        error = refusal(WHOLE[name], max_megapixels=0.01)

        assert error.code == "too_large"
        assert "image.max_megapixels" in error.message


def half_transparent() -> Any:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, ::2] = 0
    return alpha


OVER_WHITE = np.where(half_transparent()[:, :, None] > 0, PIXELS, 255)
DEEP = PIXELS.astype(np.uint16)


class TestColors:
    @pytest.mark.parametrize(
        ("content", "most"),
        [
            (bmp_bitfields(0), 0),
            (bmp_bitfields(255), 0),
            (tiff(np.dstack([PIXELS, np.zeros((HEIGHT, WIDTH), np.uint8)]), t338=0), 0),
            (tiff(np.dstack([PIXELS, np.zeros((HEIGHT, WIDTH), np.uint8)])), 0),
            (tiff(np.dstack([PIXELS, PIXELS[..., :2]]), t338=(0, 0)), 0),
            (tiff(np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 255, np.uint8)]), t338=2), 0),
            (tiff(np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 255, np.uint8)]), t338=1), 0),
            (tiff(order=">"), 0),
            (lab(), 1.5),
            (png_16(DEEP), 0),
            (png_16(DEEP * 4), 1),
            (png_16(DEEP * 16), 1),
            (png_16(DEEP * 64), 1),
            (png_16(DEEP * 257), 0),
            (tiff(DEEP * 16), 1),
            (tiff(DEEP * 16, order=">"), 1),
            (tiff(DEEP * 257, order=">"), 0),
        ],
        ids=[
            *("bmp-alpha-0", "bmp-alpha-255", "rgbx", "rgb-and-a-channel-unnamed"),
            *("rgb-and-two", "opaque", "opaque-premultiplied", "big-endian", "lab"),
            *("png-8-in-16", "png-10", "png-12", "png-14", "png-16"),
            *("tiff-12", "tiff-12-big-endian", "tiff-16-big-endian"),
        ],
    )
    def test_colors_are_the_true_ones(self, content: bytes, most: float) -> None:
        assert mean_error(read_photograph(content)) <= most

    @pytest.mark.parametrize(
        "content",
        [
            bmp_bitfields(half_transparent()),
            tiff(np.dstack([PIXELS, half_transparent()]), t338=2),
            tiff(
                np.dstack([PIXELS * (half_transparent()[..., None] > 0), half_transparent()]),
                t338=1,
            ),
            pillow("PNG", np.dstack([PIXELS, half_transparent()])),
            pillow("WEBP", np.dstack([PIXELS, half_transparent()]), lossless=True, exact=True),
        ],
        ids=["bmp", "tiff", "tiff-premultiplied", "png", "webp"],
    )
    def test_transparent_parts_become_white(self, content: bytes) -> None:
        assert mean_error(read_photograph(content), OVER_WHITE) == 0

    def test_premultiplied_colors_are_not_multiplied_again(self) -> None:
        alpha = np.full((HEIGHT, WIDTH), 128, np.uint8)
        multiplied = (PIXELS.astype(np.uint16) * 128 // 255).astype(np.uint8)
        wanted = PIXELS * (128 / 255) + 255 * (127 / 255)

        photograph = read_photograph(tiff(np.dstack([multiplied, alpha]), t338=1))

        assert mean_error(photograph, wanted) < 1

    @pytest.mark.parametrize("photometric", [0, 1])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_gray_of_either_sense(self, photometric: int, dtype: Any) -> None:
        gray = PIXELS[:, :, 1].astype(dtype) * (257 if dtype == np.uint16 else 1)
        stored = gray if photometric else (np.iinfo(dtype).max - gray).astype(dtype)

        photograph = read_photograph(tiff(stored, photometric=photometric))

        assert photograph.is_gray
        assert mean_error(photograph, np.repeat(PIXELS[:, :, 1:2], 3, axis=2)) <= 1

    @pytest.mark.parametrize("scale", [1, 257])
    def test_a_palette(self, scale: int) -> None:
        ramp = np.stack([np.arange(256), np.arange(255, -1, -1), np.full(256, 7)], axis=1)
        color_map = tuple(int(entry) * scale for entry in ramp.T.ravel())

        photograph = read_photograph(tiff(PIXELS[:, :, 0], photometric=3, t320=color_map))

        assert mean_error(photograph, ramp[PIXELS[:, :, 0]]) == 0

    def test_ycbcr_strips(self) -> None:
        ycc = np.asarray(Image.fromarray(PIXELS).convert("YCbCr"))

        assert mean_error(read_photograph(tiff(ycc, photometric=6, t530=(1, 1)))) < 1
        assert "YCbCr" in refusal(tiff(ycc, photometric=6, t530=(2, 2))).message

    @pytest.mark.parametrize("predictor", [1, 2])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_strips_with_and_without_a_predictor(self, predictor: int, dtype: Any) -> None:
        samples = PIXELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
        stored = samples
        if predictor == 2:
            stored = np.diff(samples, axis=1, prepend=np.zeros((HEIGHT, 1, 3), dtype))
        strips = [zlib.compress(stored[at : at + 40].tobytes()) for at in range(0, HEIGHT, 40)]
        content = tiff(samples, strips=strips, compression=8, rows_per_strip=40, t317=predictor)

        assert mean_error(read_photograph(content)) == 0

    def test_planes_one_after_another(self) -> None:
        strips = [PIXELS[:, :, plane].tobytes() for plane in range(3)]

        assert mean_error(read_photograph(tiff(strips=strips, t284=2))) == 0

    def test_tiles(self) -> None:
        padded = np.zeros((128, 192, 3), np.uint8)
        padded[:HEIGHT, :WIDTH] = PIXELS
        tiles = [
            padded[down : down + 64, across : across + 96].tobytes()
            for down in (0, 64)
            for across in (0, 96)
        ]
        offsets = tuple(8 + number * len(tiles[0]) for number in range(4))
        content = tiff(
            strips=tiles, t322=96, t323=64, t324=offsets, t325=tuple(len(tile) for tile in tiles)
        )

        assert mean_error(read_photograph(content)) == 0


TURNED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90(PIXELS, 1),
}
"""What each orientation shows (EXIF 2.32 section 4.6.4)."""


class TestOrientation:
    @pytest.mark.parametrize("value", range(1, 9))
    @pytest.mark.parametrize(
        ("form", "options", "most"),
        [
            ("JPEG", {"quality": 95, "subsampling": 0}, 3),
            ("PNG", {}, 0),
            ("WEBP", {"lossless": True}, 0),
            ("TIFF", {"compression": "tiff_lzw"}, 0),
        ],
        ids=["jpeg", "png", "webp", "tiff"],
    )
    def test_each_is_turned_upright(
        self, form: str, options: dict[str, Any], most: float, value: int
    ) -> None:
        content = pillow(form, exif=oriented(value), **options)

        assert mean_error(read_photograph(content), TURNED[value]) <= most

    @pytest.mark.parametrize("value", range(1, 9))
    def test_pillow_turns_it_the_same_way(self, value: int) -> None:
        content = pillow("PNG", exif=oriented(value))
        with Image.open(io.BytesIO(content)) as image:
            wanted = np.asarray(ImageOps.exif_transpose(image))

        assert mean_error(read_photograph(content), wanted) == 0

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_an_orientation_that_does_not_exist_turns_nothing(self, value: int) -> None:
        assert mean_error(read_photograph(pillow("PNG", exif=oriented(value)))) == 0
        assert mean_error(read_photograph(tiff(t274=value))) == 0

    def test_a_jpeg_that_must_be_turned_is_not_kept_as_it_is(self) -> None:
        assert read_photograph(pillow("JPEG", exif=oriented(6))).baseline_jpeg is None
        assert read_photograph(pillow("JPEG", exif=oriented(1))).baseline_jpeg is not None


class TestProfile:
    @pytest.mark.parametrize(
        "content",
        [
            pillow("JPEG", icc_profile=ICC_PROFILE),
            pillow("JPEG", icc_profile=ICC_PROFILE, progressive=True),
            pillow("JPEG", icc_profile=ICC_PROFILE, exif=oriented(6)),
            pillow("PNG", icc_profile=ICC_PROFILE),
            pillow("TIFF", icc_profile=ICC_PROFILE),
            pillow("TIFF", icc_profile=ICC_PROFILE, compression="tiff_lzw"),
            pillow("TIFF", icc_profile=ICC_PROFILE, compression="jpeg"),
            pillow("WEBP", icc_profile=ICC_PROFILE),
            pillow("AVIF", icc_profile=ICC_PROFILE),
            bmp_v5(ICC_PROFILE),
        ],
        ids=[
            "jpeg",
            "progressive",
            "turned",
            "png",
            "tiff",
            "lzw",
            "tiff-jpeg",
            "webp",
            "avif",
            "bmp",
        ],
    )
    def test_it_is_kept(self, content: bytes) -> None:
        assert read_photograph(content).icc_profile == ICC_PROFILE

    def test_a_long_one_is_joined_from_its_segments(self) -> None:
        size = 150_000
        long = size.to_bytes(4, "big") + ICC_PROFILE[4:] + bytes(size - len(ICC_PROFILE))

        assert read_photograph(pillow("JPEG", icc_profile=long)).icc_profile == long

    @pytest.mark.parametrize(
        "profile",
        [
            b"x" * 200,
            ICC_PROFILE[:100],
            ICC_PROFILE[:16] + b"GRAY" + ICC_PROFILE[20:],
            ICC_PROFILE[:16] + b"CMYK" + ICC_PROFILE[20:],
            (10**9).to_bytes(4, "big") + ICC_PROFILE[4:],
        ],
        ids=["junk", "short", "gray", "cmyk", "broken-off"],
    )
    def test_one_that_does_not_describe_rgb_is_left_out(self, profile: bytes) -> None:
        assert read_photograph(pillow("JPEG", icc_profile=profile)).icc_profile is None

    def test_gray_has_none(self) -> None:
        gray = PIXELS[:, :, 1]

        for form in ("JPEG", "PNG", "TIFF"):
            assert read_photograph(pillow(form, gray, icc_profile=ICC_PROFILE)).icc_profile is None


class TestDate:
    def test_the_camera_s_own_date(self) -> None:
        exif = Image.Exif()
        exif[0x132] = "2026:11:02 10:00:00"
        exif.get_ifd(0x8769)[0x9003] = "2026:11:01 09:08:07"

        assert str(date_taken(pillow("JPEG", exif=exif))) == "2026-11-01 09:08:07"

    @pytest.mark.parametrize("form", ["JPEG", "TIFF"])
    def test_the_date_of_the_file_where_there_is_no_other(self, form: str) -> None:
        exif = Image.Exif()
        exif[0x132] = "2026:11:02 10:00:00"

        assert str(date_taken(pillow(form, exif=exif))) == "2026-11-02 10:00:00"

    @pytest.mark.parametrize(
        "text", ["", "0000:00:00 00:00:00", "yesterday", "2026:13:01 00:00:00"]
    )
    def test_what_is_no_date_is_not_believed(self, text: str) -> None:
        exif = Image.Exif()
        exif[0x132] = text

        assert date_taken(pillow("JPEG", exif=exif)) is None

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xd8", b"II*\0", pillow("PNG"), b"\xff\xd8\xff"]
    )
    def test_files_without_one(self, content: bytes) -> None:
        assert date_taken(content) is None
