"""Pictures and documents of a Bundle, fitted to what FHIR servers take."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Defect
from reporting.delivery.destinations.fhir_attachments import (
    Placement,
    fit_attachments,
    scaled_picture,
)
from reporting.research_label import check_label
from tests.reporting.delivery.labelled import make_bundle, make_illustrated_bundle, noisy_png

LIMIT = 700_000


def fitted(bundle: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Media and DiagnosticReport."""
    media, report = (entry["resource"] for entry in json.loads(bundle)["entry"])
    return media, report


class TestThingsThatGoWrong:
    @pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
    def test_a_picture_that_cannot_be_read_is_our_defect(self, content: bytes) -> None:
        with pytest.raises((Defect, cv2.error)):
            scaled_picture(content, LIMIT)

    @pytest.mark.parametrize("data", ["no base64!", "A", "AAA=A", "\u00e4"])
    def test_data_that_is_not_base64_is_our_defect(self, data: str) -> None:
        bundle = json.loads(make_illustrated_bundle(side=32).content)
        bundle["entry"][0]["resource"]["content"]["data"] = data

        with pytest.raises(Defect):
            fit_attachments(json.dumps(bundle).encode(), Placement.BINARY, max_bytes=LIMIT)

    def test_a_picture_that_never_fits_says_what_to_change(self) -> None:
        with pytest.raises(Defect) as told:
            scaled_picture(noisy_png(300), 2_000)

        assert "max_attachment_kb" in told.value.message


class TestInline:
    def test_what_is_small_goes_as_it_is(self) -> None:
        for report in (make_bundle(), make_illustrated_bundle(side=32)):
            made = fit_attachments(report.content, Placement.INLINE, max_bytes=LIMIT)

            assert made.content == report.content
            assert (made.remarks, made.binaries) == ((), ())

    @pytest.mark.parametrize("side", [700, 1600, 2400])
    def test_a_large_picture_is_scaled_and_still_a_picture(self, side: int) -> None:
        report = make_illustrated_bundle(side=side)

        made = fit_attachments(report.content, Placement.INLINE, max_bytes=LIMIT)

        media, _ = fitted(made.content)
        jpeg = base64.b64decode(media["content"]["data"])
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert media["content"]["contentType"] == "image/jpeg"
        assert media["content"]["title"] == "Gallery"
        assert len(jpeg) <= LIMIT
        assert min(picture.shape[:2]) > 600
        assert len(made.remarks) == 1

    def test_a_document_that_is_too_large_is_left_out_and_that_is_said(self) -> None:
        report = make_illustrated_bundle(side=32, pdf=b"%PDF" + bytes(LIMIT))

        made = fit_attachments(report.content, Placement.INLINE, max_bytes=LIMIT)

        media, diagnostic_report = fitted(made.content)
        assert "presentedForm" not in diagnostic_report
        assert "data" in media["content"]
        assert made.remarks == (f"application/pdf of {LIMIT + 4} bytes left out",)

    @given(limit=st.integers(60_000, 2_000_000))
    def test_no_attachment_is_above_the_limit(self, limit: int) -> None:
        made = fit_attachments(ILLUSTRATED.content, Placement.INLINE, max_bytes=limit)

        media, _ = fitted(made.content)
        assert len(base64.b64decode(media["content"]["data"])) <= limit


class TestElsewhere:
    def test_binaries_hold_the_content_as_it_is(self) -> None:
        report = make_illustrated_bundle(side=64)

        made = fit_attachments(report.content, Placement.BINARY, max_bytes=LIMIT)

        media, diagnostic_report = fitted(made.content)
        picture, page = made.binaries
        assert (picture.media_type, page.media_type) == ("image/png", "application/pdf")
        assert picture.content == noisy_png(64)
        assert media["content"]["url"] == f"Binary/{picture.id}"
        assert diagnostic_report["presentedForm"][0]["url"] == f"Binary/{page.id}"
        assert len({picture.id, page.id}) == 2

    def test_links_name_the_dicom_object_and_keep_the_page(self) -> None:
        report = make_illustrated_bundle(side=1600)

        made = fit_attachments(report.content, Placement.LINKS, max_bytes=LIMIT)

        media, diagnostic_report = fitted(made.content)
        assert media["content"] == {
            "contentType": "application/dicom",
            "title": "Gallery",
            "url": "urn:oid:1.2.3.4",
        }
        assert "data" in diagnostic_report["presentedForm"][0]
        assert made.binaries == ()


@pytest.mark.parametrize("placement", list(Placement))
def test_the_same_bundle_gives_the_same_bytes_and_stays_labelled(placement: Placement) -> None:
    first, second = (
        fit_attachments(ILLUSTRATED.content, placement, max_bytes=LIMIT) for _ in range(2)
    )

    assert first == second
    check_label(replace(ILLUSTRATED, content=first.content))


@pytest.mark.parametrize("placement", list(Placement))
def test_resources_without_data_stay_as_they_are(placement: Placement) -> None:
    bundle = make_bundle(ids=("a", "b"))

    assert fit_attachments(bundle.content, placement, max_bytes=16).content == bundle.content


ILLUSTRATED = make_illustrated_bundle(side=1000)
