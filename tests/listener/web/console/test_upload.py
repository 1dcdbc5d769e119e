"""Uploads are as durable as C-STORE: what was answered is in the inbox, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from listener.web.console import uploads
from listener.web.console.permissions import Role
from reporting.audit.trail import Event
from tests.builders import build_image, file_bytes
from tests.listener.web.console.site import ConsoleSite, csrf_of, sign_in

JSON = {"accept": "application/json"}


def picture(number: int = 0, ending: str = ".png") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    _, content = cv2.imencode(ending, pixels)
    return content.tobytes()


@pytest.fixture
def site(tmp_path: Path) -> ConsoleSite:
    site = ConsoleSite(tmp_path)
    site.add_account("jane", Role.REVIEWER)
    return site


@pytest.fixture
def browser(site: ConsoleSite) -> Iterator[TestClient]:
    with site.client() as client:
        sign_in(client, "jane")
        yield client


def upload(
    browser: TestClient, files: list[tuple[str, bytes]], **words: str
) -> tuple[httpx.Response, httpx.Response]:
    """Send the plain form; its answer, and the page that it leads to."""
    csrf = csrf_of(browser.get("/upload"))
    answer = browser.post(
        "/upload",
        data={"csrf": csrf, **words},
        files=[("files", (name, content)) for name, content in files],
    )
    place = answer.headers.get("location")
    return answer, browser.get(place) if place else answer


def images(site: ConsoleSite) -> list[Any]:
    return [site.store.inbox.read(uid) for uid in site.store.inbox.waiting()]


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".tif"])
def test_every_kind_of_picture_is_taken(
    browser: TestClient, site: ConsoleSite, ending: str
) -> None:
    files = [(f"field {n}{ending}", picture(n, ending)) for n in range(6)]

    answer, page = upload(browser, files)

    assert answer.status_code == 303
    assert "6 of 6 taken" in page.text
    assert len(images(site)) == len(site.received) == 6
    assert len({image.SeriesInstanceUID for image in images(site)}) == 1
    assert sorted(int(image.InstanceNumber) for image in images(site)) == [1, 2, 3, 4, 5, 6]


def test_a_large_photograph_waits_for_the_memory_of_the_largest(
    browser: TestClient, site: ConsoleSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small its file is: a bomb is told by its header before it is decoded."""
    monkeypatch.setattr(uploads, "ORDINARY_MEGAPIXELS", 0.01)
    held: list[int] = []
    reserved = site.parts.memory.reserved

    def noting(wanted: int) -> AbstractContextManager[None]:
        held.append(wanted)
        return reserved(wanted)

    monkeypatch.setattr(site.parts.memory, "reserved", noting)
    large = np.zeros((200, 100, 3), np.uint8)

    upload(
        browser, [("small.png", picture()), ("large.png", cv2.imencode(".png", large)[1].tobytes())]
    )

    ordinary, largest = 10_000 * 24, 100_000_000 * 24
    assert held == [ordinary, ordinary, largest]
    assert len(images(site)) == 2


def test_a_dicom_file_is_taken_as_it_is(browser: TestClient, site: ConsoleSite) -> None:
    sent = build_image()

    upload(browser, [("scope.dcm", file_bytes(sent))])

    (kept,) = images(site)
    assert kept.SOPInstanceUID == sent.SOPInstanceUID
    assert kept.PixelData == sent.PixelData


def test_accession_patient_and_notes_come_along(browser: TestClient, site: ConsoleSite) -> None:
    upload(
        browser,
        [("a.png", picture())],
        accession="ACC-9",
        patient_id="Пациент-1",
        notes="two smears,\nthin edge",
        spacing_um="0,12",
    )

    (image,) = images(site)
    assert image.AccessionNumber == "ACC-9"
    assert image.PatientID == "Пациент-1"
    assert image.ImageComments.split() == ["two", "smears,", "thin", "edge"]
    assert image.NominalScannedPixelSpacing[0] == pytest.approx(0.00012)


def test_each_refused_file_says_why_and_stops_no_other(
    browser: TestClient, site: ConsoleSite
) -> None:
    files = [
        ("good.png", picture()),
        ("words.png", b"not a picture"),
        ("empty.jpg", b""),
        ("torn.jpg", picture(1, ".jpg")[:300]),
        ("<b>x</b>.txt", b"hello"),
        ("scope.dcm", b"\0" * 128 + b"DICM" + b"garbage"),
    ]

    _, page = upload(browser, files)

    assert "1 of 6 taken" in page.text
    assert "5 refused" in page.text
    assert "<b>x</b>" not in page.text
    assert len(images(site)) == 1
    assert len(site.audit.of(Event.IMAGE_REFUSED)) == 5
    assert "smearlink-upload" not in page.text


def test_a_file_that_unpacks_to_gigabytes_is_refused_before_it_is_decoded(
    browser: TestClient, site: ConsoleSite
) -> None:
    bomb = bytearray(picture())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2

    _, page = upload(browser, [("bomb.png", bytes(bomb))])

    assert "1 refused" in page.text
    assert images(site) == []


@pytest.mark.parametrize(
    "words",
    [
        {"accession": "A" * 17},
        {"accession": "a\\b"},
        {"patient_id": "x\x07"},
        {"patient_id": "9" * 65},
        {"spacing_um": "wide"},
        {"spacing_um": "99"},
        {"notes": "n" * 2001},
    ],
)
def test_what_does_not_fit_dicom_is_told_before_anything_is_taken(
    browser: TestClient, site: ConsoleSite, words: dict[str, str]
) -> None:
    answer, _ = upload(browser, [("a.png", picture())], **words)

    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert images(site) == []


def begin(browser: TestClient, csrf: str, expected: int) -> str:
    answer = browser.post("/upload", data={"csrf": csrf, "expected": str(expected)}, headers=JSON)
    return str(answer.json()["batch"])


def add(
    browser: TestClient, csrf: str, batch: str, number: int, name: str, content: bytes
) -> dict[str, Any]:
    answer = browser.post(
        f"/upload/{batch}",
        data={"number": str(number)},
        files={"files": (name, content)},
        headers={**JSON, "x-csrf-token": csrf},
    )
    return dict(answer.json()["files"][0])


def test_what_is_sent_again_after_a_reload_is_taken_once(
    browser: TestClient, site: ConsoleSite
) -> None:
    csrf = csrf_of(browser.get("/upload"))
    batch = begin(browser, csrf, 5)
    first = [add(browser, csrf, batch, n, f"{n}.png", picture(n)) for n in (1, 2, 3)]
    broken_off = browser.get(f"/upload/{batch}").text

    again = [add(browser, csrf, batch, n, f"{n}.png", picture(n)) for n in (1, 2, 3, 4, 5)]

    assert "3 of 5 taken" in broken_off
    assert "2 still to come" in broken_off
    assert all(one["taken"] and not one["again"] for one in first)
    assert [one["again"] for one in again] == [True, True, True, False, False]
    assert len(images(site)) == 5


def test_the_same_picture_under_another_number_and_after_a_crash_is_taken_once(
    browser: TestClient, site: ConsoleSite
) -> None:
    """The inbox had it, and the row that says so was lost."""
    csrf = csrf_of(browser.get("/upload"))
    batch = begin(browser, csrf, 2)
    add(browser, csrf, batch, 1, "a.png", picture())
    with site.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM uploaded_file")

    told = add(browser, csrf, batch, 2, "b.png", picture())

    assert told["taken"]
    assert told["again"]
    assert len(images(site)) == 1


def test_the_same_picture_in_another_upload_is_another_smear(
    browser: TestClient, site: ConsoleSite
) -> None:
    upload(browser, [("a.png", picture())])
    upload(browser, [("a.png", picture())])

    assert len({image.SeriesInstanceUID for image in images(site)}) == 2


def test_nobody_adds_to_another_person_s_upload(browser: TestClient, site: ConsoleSite) -> None:
    csrf = csrf_of(browser.get("/upload"))
    batch = begin(browser, csrf, 1)
    site.add_account("olga", Role.OPERATOR)

    browser.cookies.clear()
    sign_in(browser, "olga")
    seen = browser.get(f"/upload/{batch}")
    added = browser.post(
        f"/upload/{batch}",
        data={"csrf": csrf_of(browser.get("/upload"))},
        files={"files": ("a.png", picture())},
    )

    assert seen.status_code == added.status_code == 404
    assert images(site) == []


def test_an_upload_is_recorded_with_who(browser: TestClient, site: ConsoleSite) -> None:
    upload(browser, [("Doe Jane.png", picture())], patient_id="PID-1")

    (told,) = site.audit.of(Event.IMAGE_RECEIVED)
    assert told.actor is not None
    assert told.actor.user == "jane"
    assert told.fields["protocol"] == "console"
    assert "Doe" not in str(site.audit.recorded)
    assert "PID-1" not in str(site.audit.recorded)


def test_what_was_parked_is_shown_with_the_reason(browser: TestClient, site: ConsoleSite) -> None:
    answer, _ = upload(browser, [("a.png", picture())])
    (image,) = images(site)
    site.store.inbox.park(image.SOPInstanceUID, "too_small")

    page = browser.get(answer.headers["location"]).text

    assert "parked" in page
    assert "too small" in page
