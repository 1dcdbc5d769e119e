"""OHIF on a real Orthanc shows the source and our pictures, as a PACS's reader sees them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from pydicom import FileDataset, dcmread
from pydicom.pixels.utils import pixel_array

from listener.modality.store_scu import PeerAddress, send_images
from pipeline.domain import RGB
from reporting.delivery.destinations.dicom_store import DicomDestination
from reporting.results import ResultKind
from tests.acceptance import browser, ohif, orthanc
from tests.acceptance.browser import Page, browsing
from tests.acceptance.ohif import serving_ohif
from tests.acceptance.orthanc import AE_TITLE, LOOPBACK, Orthanc, running_orthanc
from tests.acceptance.phantom_sets import STUDY, PhantomSet, make_phantom_set

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(orthanc.ABSENT, reason=orthanc.REASON),
    pytest.mark.skipif(browser.EXECUTABLE is None, reason=browser.REASON),
    pytest.mark.skipif(not ohif.DIST.is_dir(), reason=ohif.REASON),
]

LOOKS = 120
LOOK_EVERY_MS = 500
LIKENESS = 0.88
"""Correlation of what is shown with the picture; the viewer's own words lie over it."""
SERIES = (
    "Blood smear, phantom",
    "Smear gallery (RESEARCH USE ONLY)",
    "Annotated fields (RESEARCH USE ONLY)",
    "Cell outlines (RESEARCH USE ONLY)",
    "Smear report (RESEARCH USE ONLY)",
    "Cell segmentation, field 1 (RESEARCH USE ONLY)",
    "Cell segmentation, field 2 (RESEARCH USE ONLY)",
    "Result set (RESEARCH USE ONLY)",
)
OPENINGS = 2
OUTLINES_LIE_APART = """(() => {
    const places = [...document.querySelectorAll('svg.svg-layer g')]
        .map(one => one.getBoundingClientRect().x);
    return places.length > 3 && Math.max(...places) - Math.min(...places) > 200;
})()"""
"""Before their picture is drawn all of them lie on one point in its corner."""


@pytest.fixture(scope="module")
def smear() -> PhantomSet:
    return make_phantom_set("microscopic")


@pytest.fixture(scope="module")
def viewer(smear: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The study with its results, open in the viewer."""
    folder: Path = tmp_path_factory.mktemp("ohif")
    with keeping(smear, folder) as pacs, serving_ohif(pacs) as url, browsing(folder) as page:
        open_study(page, url)
        yield page


def test_every_series_is_listed(viewer: Page) -> None:
    listed = viewer.text()

    assert [words for words in SERIES if words not in listed] == []


def test_the_source_is_shown(viewer: Page, smear: PhantomSet) -> None:
    open_series(viewer, "Blood smear, phantom")

    assert_is_shown(viewer, picture_of(smear, 1))


def test_the_report_s_outlines_lie_over_the_source_at_the_first_opening(
    viewer: Page, smear: PhantomSet
) -> None:
    open_series(viewer, "Smear report")

    viewer.wait_until("document.body.innerText.includes('Probability of being leukemic')")
    viewer.wait_until("document.body.innerText.includes('White cells counted')")
    viewer.wait_until(OUTLINES_LIE_APART)
    assert_is_shown(viewer, picture_of(smear, 1), likeness=0.8)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ResultKind.ANNOTATED_FIELD, "Annotated fields"),
        (ResultKind.GALLERY, "Smear gallery"),
    ],
)
def test_our_pictures_are_shown(
    viewer: Page, smear: PhantomSet, kind: ResultKind, words: str
) -> None:
    first = next(one for one in smear.results if one.kind is kind)

    open_series(viewer, words)

    assert_is_shown(viewer, pixel_array(dcmread(io.BytesIO(first.content))))


@pytest.mark.parametrize("field", [1, 2])
def test_the_masks_of_every_field_lie_over_it(viewer: Page, smear: PhantomSet, field: int) -> None:
    open_series(viewer, f"Cell segmentation, field {field}")

    viewer.wait_until("document.body.innerText.includes('Do you want to open this Segmentation')")
    # Dim behind the question, and colored by the masks: 0.47 in its own field, 0.16 in the other.
    assert_is_shown(viewer, picture_of(smear, field), likeness=0.35)
    assert "went wrong" not in viewer.text()


@pytest.mark.parametrize("words", ["Cell outlines", "Result set"])
def test_what_it_does_not_know_does_not_bring_it_down(viewer: Page, words: str) -> None:
    """Presentation states of color pictures and key objects are listed with a warning."""
    open_series(viewer, words)

    test_every_series_is_listed(viewer)
    assert "went wrong" not in viewer.text()


def test_the_newest_version_is_listed_first(tmp_path: Path) -> None:
    """Pictures with the site's script alone: the viewer sorts them by Series Number, upwards."""
    smear = make_phantom_set("microscopic", versions=(1, 2, 3))
    with keeping(smear, tmp_path) as pacs, browsing(tmp_path) as page:
        for with_site_script in (False, True):
            with serving_ohif(pacs, with_site_script=with_site_script) as url:
                for _ in range(OPENINGS):
                    versions = versions_listed(page, url, study_of=smear)
                    kinds = set(versions) - (set() if with_site_script else PICTURES)
                    assert {kind: versions[kind] for kind in kinds} == {
                        kind: [3, 2, 1] for kind in kinds
                    }


PICTURES = {"Smear gallery", "Annotated fields"}


def versions_listed(page: Page, url: str, study_of: PhantomSet) -> dict[str, list[int]]:
    """For each kind of series of ours, its versions from the top of the list."""
    page.open(f"{url}/viewer?StudyInstanceUIDs={STUDY}")
    # Three versions with five series of the smear and one segmentation a field; and the source.
    series = 1 + 3 * (5 + len(study_of.sources))
    thumbnails = "document.querySelectorAll('[data-cy^=study-browser-thumbnail]')"
    page.wait_until(f"document.body && {thumbnails}.length === {series}")
    listed = page.evaluate(f"[...{thumbnails}].map(one => one.innerText)")
    page.open("about:blank")
    versions: dict[str, list[int]] = {}
    for words in listed:
        found = re.search(r"([A-Z][\w ]+?(?:, field \d)?)(?:, version (\d))? \(RESEARCH", words)
        if found:
            versions.setdefault(found[1], []).append(int(found[2] or 1))
    assert len(versions) == 5 + len(study_of.sources)
    return versions


@contextmanager
def keeping(smear: PhantomSet, folder: Path) -> Iterator[Orthanc]:
    """A PACS that has the sources and the results."""
    with running_orthanc(folder / "orthanc") as pacs:
        peer = PeerAddress(ae_title=AE_TITLE, host=LOOPBACK, port=pacs.dicom_port)
        assert all(sent.is_stored for sent in send_images(_files(smear), peer))
        DicomDestination(
            name="pacs", ae_title=AE_TITLE, host=LOOPBACK, port=pacs.dicom_port
        ).deliver(smear.results)
        yield pacs


def open_study(page: Page, url: str) -> None:
    """Without the tour that greets a new user."""
    page.open(f"{url}/viewer?StudyInstanceUIDs={STUDY}")
    page.wait_until("document.body && document.body.innerText.includes('Skip all')")
    page.evaluate(
        "[...document.querySelectorAll('button, span')]"
        ".filter(one => one.textContent.trim() === 'Skip all').forEach(one => one.click())"
    )
    page.wait_until(f"{json.dumps(SERIES)}.every(one => document.body.innerText.includes(one))")


def picture_of(smear: PhantomSet, field: int) -> RGB:
    return pixel_array(list(smear.sources.values())[field - 1])


def open_series(viewer: Page, words: str) -> None:
    """A double click on the thumbnail of the series with these words."""
    x, y = viewer.evaluate(
        f"""(() => {{
            const thumbnails = document.querySelectorAll('[data-cy^=study-browser-thumbnail]');
            const found = [...thumbnails].find(one => one.innerText.includes({words!r}));
            const place = found.getBoundingClientRect();
            return [place.x + place.width / 2, place.y + place.height / 2];
        }})()"""
    )
    viewer.double_click(x, y)


def assert_is_shown(viewer: Page, picture: RGB, *, likeness: float = LIKENESS) -> None:
    """Fitted into the viewport, within the time that a slow machine needs to draw."""
    found = 0.0
    for _ in range(LOOKS):
        found = likeness_of(viewer, picture)
        if found > likeness:
            return
        viewer.evaluate(f"new Promise(wake => setTimeout(wake, {LOOK_EVERY_MS}))")
    raise AssertionError(f"the picture is not shown: likeness {found:.2f}")


def likeness_of(viewer: Page, picture: RGB) -> float:
    shown = cv2.imdecode(np.frombuffer(viewer.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    place = viewer.evaluate(
        """(() => {
            const canvas = document.querySelector('[data-viewport-uid] canvas');
            if (!canvas) return null;
            const place = canvas.getBoundingClientRect();
            return [place.x, place.y, place.width, place.height].map(Math.round);
        })()"""
    )
    if place is None:
        return 0.0
    x, y, width, height = place
    assert shown is not None
    window = cv2.cvtColor(shown[y : y + height, x : x + width], cv2.COLOR_BGR2RGB)
    if window.std() < 1.0:
        return 0.0
    fit = min(width / picture.shape[1], height / picture.shape[0])
    fitted = cv2.resize(picture, None, fx=fit, fy=fit, interpolation=cv2.INTER_AREA)
    expected = np.zeros_like(window)
    top, left = (height - fitted.shape[0]) // 2, (width - fitted.shape[1]) // 2
    expected[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return float(np.corrcoef(expected.ravel(), window.ravel())[0, 1])


def _files(smear: PhantomSet) -> Iterable[FileDataset]:
    """The sources with their file meta information, which `send_images` reads."""
    return cast(Iterable[FileDataset], smear.sources.values())
