"""A person's work in the console, in real Chromium: by mouse, by keyboard alone, by phone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from config.sections import WebSettings
from listener.observability.metrics import Metrics
from listener.storage.reference_cells import ReferenceCell
from listener.web.app import Showing, build_app
from listener.web.console.app import Console, smear_files
from listener.web.console.indexer import FollowedAudit, Indexer
from listener.web.console.permissions import Role
from listener.web.console.smear_index import SmearIndex
from listener.web.server import WebServer
from pipeline.domain import SmearId
from pipeline.findings.review import Act
from tests.acceptance import browser
from tests.acceptance.browser import Page, browsing
from tests.fakes import RecordingAudit
from tests.findings import MODEL, make_field_findings
from tests.listener.web.console.site import NOW, PASSWORD, ConsoleSite, parked_delivery
from tests.listener.web.console.test_smear_pages import many_cells
from tests.machine import is_busy

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason=browser.REASON),
]

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
WORDS, DONE = "(document.body?.innerText ?? '')", "document.readyState === 'complete'"
RELOAD = "Blocked attempt to show a 'beforeunload' confirmation"
"""Told of the test's own reload, which no hand asked for."""
PHONE, DESK = (390, 844), (1280, 900)


@dataclass
class Desk:
    """A console that is served, and a browser in front of it."""

    site: ConsoleSite
    page: Page
    url: str
    smear: SmearId

    def open(self, path: str, condition: str = "document.querySelector('main h1')") -> None:
        self.page.open(self.url + path)
        self.page.wait_until(
            f"location.pathname + location.search === {json.dumps(path)}"
            f" && document.readyState === 'complete' && {condition}"
        )

    def sign_in(self, name: str) -> None:
        self.open("/sign-in")
        self.page.evaluate(
            f"document.querySelector('#name').value = {json.dumps(name)};"
            f"document.querySelector('#password').value = {json.dumps(PASSWORD)};"
            "document.querySelector('.sign-in form').requestSubmit()"
        )
        self.page.wait_until("location.pathname !== '/sign-in' && document.querySelector('.who')")


@contextmanager
def serving(site: ConsoleSite, console: Console) -> Iterator[str]:
    showing = Showing(
        software_version="0.1.0",
        metrics=Metrics(software_version="0.1.0", read_status=site.status),
        read_status=site.status,
        checks={},
        audit_dir=site.root / "audit",
        clock=lambda: NOW,
        model=MODEL,
    )
    server = WebServer(WebSettings(port=0), build_app(showing, console=console))
    server.start()
    console.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        console.close()
        server.stop(0.0)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("console")
    audit = FollowedAudit(RecordingAudit())
    site = ConsoleSite(root, sink=audit, parked=[parked_delivery()])
    site.destinations = {"pacs": lambda: "answers C-ECHO"}
    smear = site.put_smear([many_cells(200), make_field_findings(sop_instance_uid="1.2.4.2")])
    for name, role in (("root", Role.ADMINISTRATOR), ("rosa", Role.REVIEWER)):
        site.add_account(name, role)
    indexer = Indexer(
        index=SmearIndex(site.database),
        files=smear_files(site.parts),
        inbox=site.store.inbox,
        results=site.store.results,
        gather_by="series",
        read_parked=list,
    )
    audit.follow(indexer.note)
    indexer.start()
    with serving(site, site.console()) as url, browsing(root) as page:
        page.listen()
        page.resize(*DESK)
        yield Desk(site, page, url, smear)
    indexer.stop()


@pytest.fixture(autouse=True)
def nothing_goes_wrong(desk: Desk) -> Iterator[None]:
    """No error in the browser's console, nothing that the policy stops, no request elsewhere."""
    desk.page.heard.clear()
    desk.page.resize(*DESK)

    yield

    faults = [
        one["entry"]["text"]
        for one in desk.page.events("Log.entryAdded")
        if one["entry"]["level"] == "error" and RELOAD not in one["entry"]["text"]
    ]
    assert faults == []
    assert desk.page.events("Runtime.exceptionThrown") == []
    asked = [one["request"]["url"] for one in desk.page.events("Network.requestWillBeSent")]
    # data: is the browser's own, for the sign of its date field.
    elsewhere = [url for url in asked if urlsplit(url).hostname != "127.0.0.1"]
    assert [url for url in elsewhere if not url.startswith(("blob:", "about:", "data:"))] == []


def pictures(folder: Path, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (240, 320, 3), dtype=np.uint8)
        paths.append(folder / f"field {number + 1}.png")
        cv2.imwrite(str(paths[-1]), pixels)
    return paths


def pages(desk: Desk) -> dict[str, str]:
    return {
        "smears": "/smears",
        "smear": f"/smears/{desk.smear}",
        "field": f"/smears/{desk.smear}/fields/2?cell=2",
        "both": f"/smears/{desk.smear}/fields/2?view=both",
        "upload": "/upload",
        "network": "/network",
        "operations": "/operations",
        "audit": "/audit",
    }


def test_signing_in_with_the_keyboard_alone(desk: Desk) -> None:
    desk.open("/sign-in", "document.activeElement.id === 'name'")

    desk.page.type("rosa")
    desk.page.press("Tab")
    desk.page.type(PASSWORD)
    desk.page.press("Enter")

    desk.page.wait_until(
        "location.pathname === '/smears' && (document.body?.innerText ?? '').includes('rosa')"
    )


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is absent: bash tests/install_peers.sh")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("role", ["root", "rosa"])
def test_every_page_is_fit_for_everybody(
    desk: Desk, role: str, size: tuple[int, int], scheme: str
) -> None:
    """axe-core (WCAG 2.2 A and AA) finds nothing serious, and nothing is wider than the window."""
    sign_out(desk)
    desk.sign_in(role)
    desk.page.resize(*size)
    desk.page.show_as(scheme=scheme)
    shown = pages(desk)
    if role == "rosa":
        shown = {name: shown[name] for name in ("smear", "field")}
        shown["blind"] = f"/smears/{desk.smear}/read"
    found = {}
    for name, path in shown.items():
        desk.open(path)
        desk.page.evaluate(AXE.read_text(encoding="utf-8") + ";0")
        told = desk.page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
            ".then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact))"
            ".map(v => v.id + v.nodes.slice(0, 3).map(n => ' | ' + n.html.slice(0, 160))))"
        )
        wide = desk.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if told or wide > 0:
            found[name] = (told, wide)
    desk.page.show_as(scheme="light")

    assert found == {}


def sign_out(desk: Desk) -> None:
    desk.page.evaluate(
        "(async () => { const form = document.querySelector('form[action=\"/sign-out\"]');"
        " if (form) await fetch('/sign-out', {method: 'POST', body: new URLSearchParams("
        "new FormData(form))}); })()"
    )


def test_chosen_files_are_previewed_and_sent_one_by_one(desk: Desk, tmp_path: Path) -> None:
    sign_out(desk)
    desk.sign_in("root")
    desk.open("/upload")
    desk.page.choose_files("#files", pictures(tmp_path, 6))
    desk.page.wait_until("document.querySelectorAll('#sending img').length === 6")
    loaded = desk.page.evaluate(
        "Promise.all([...document.querySelectorAll('#sending img')].map(i => i.decode()))"
        ".then(() => true)"
    )

    desk.page.evaluate("document.querySelector('#send').click()")

    desk.page.wait_until("(document.body?.innerText ?? '').includes('6 of 6 taken')")
    assert loaded
    assert len(desk.site.received) == 6


def test_a_hundred_files_with_a_reload_in_the_middle(desk: Desk, tmp_path: Path) -> None:
    files = pictures(tmp_path, 100)
    before = len(list(desk.site.store.inbox.waiting()))
    desk.open("/upload")
    desk.page.choose_files("#files", files)
    desk.page.evaluate("document.querySelector('#send').click()")
    desk.page.wait_until(
        "/^[3-9][0-9] of 100 sent/.test(document.querySelector('#sending-told').innerText)"
    )

    desk.page.evaluate("location.reload()")
    desk.page.wait_until(
        "document.querySelector('#upload-state') && document.readyState === 'complete'"
    )
    broken_off = desk.page.text()
    desk.page.choose_files("#files", files)
    desk.page.evaluate("document.querySelector('#send').click()")

    desk.page.wait_until("(document.body?.innerText ?? '').includes('100 of 100 taken')")
    assert "still to come" in broken_off
    assert len(list(desk.site.store.inbox.waiting())) - before == 100


def test_results_of_an_upload_come_to_its_page_by_themselves(desk: Desk, tmp_path: Path) -> None:
    desk.open("/upload")
    desk.page.choose_files("#files", pictures(tmp_path, 1))
    desk.page.evaluate("document.querySelector('#send').click()")
    desk.page.wait_until("(document.body?.innerText ?? '').includes('1 of 1 taken')")
    image = desk.site.received[-1]
    desk.site.put_findings(
        make_field_findings(
            sop_instance_uid=image.sop_instance_uid,
            series_uid=image.series_uid,
            study_uid=image.study_uid,
        )
    )

    desk.page.wait_until("(document.body?.innerText ?? '').includes('Look at the smear')")


def test_a_smear_is_found_and_its_cells_are_looked_at_by_keyboard(desk: Desk) -> None:
    desk.open("/smears")
    desk.page.evaluate("document.querySelector('#words').focus()")
    desk.page.type("ACC-1")
    desk.page.press("Enter")
    desk.page.wait_until("(document.body?.innerText ?? '').includes('begins with ACC-1')")
    desk.page.evaluate("document.querySelector('#smear-rows a[href^=\"/smears/\"]').focus()")
    desk.page.press("Enter")
    desk.page.wait_until(
        "document.body?.dataset.page === 'smear' && document.readyState === 'complete'"
    )
    shown = desk.page.evaluate(
        "Promise.all([...document.querySelectorAll('svg.tile image')].slice(0, 3).map(i =>"
        " fetch(i.getAttribute('href')).then(r => r.status)))"
    )
    desk.page.evaluate("document.querySelector('a.look').focus()")
    desk.page.press("ArrowRight")
    desk.page.press("ArrowDown")
    moved = desk.page.evaluate(
        "[...document.querySelectorAll('a.look')].indexOf(document.activeElement)"
    )
    desk.page.press("h")
    heated = desk.page.evaluate("document.querySelector('svg.tile image').getAttribute('href')")

    assert "ACC-1" not in desk.page.evaluate("location.href")
    assert shown == [200, 200, 200]
    assert moved > 1
    assert heated.endswith("-heat")


def test_a_field_is_zoomed_moved_and_walked_by_keyboard(desk: Desk) -> None:
    desk.open(f"/smears/{desk.smear}/fields/2?cell=1")
    view = "document.querySelector('#viewer svg').getAttribute('viewBox')"
    before = desk.page.evaluate(view)
    desk.page.press("+", text="+")
    zoomed = desk.page.evaluate(view)
    desk.page.press("o")
    hidden = desk.page.evaluate("getComputedStyle(document.querySelector('.outline')).display")
    desk.page.press("0", text="0")
    whole = desk.page.evaluate(view)
    desk.page.press("ArrowRight")
    desk.page.wait_until(
        f"location.search === '?cell=2' && document.querySelector('.chosen') && {DONE}"
    )
    desk.page.press("PageUp")
    desk.page.wait_until("location.pathname.endsWith('/fields/1')")

    assert float(zoomed.split()[2]) < float(before.split()[2])
    assert hidden == "none"
    assert whole.split()[:2] == ["0.00", "0.00"]


def test_results_are_taken_away(desk: Desk) -> None:
    desk.open(f"/smears/{desk.smear}")

    sizes = desk.page.evaluate(
        "(async () => { const form = document.querySelector('form[action=\"/export\"]');"
        " const sizes = {}; for (const button of form.querySelectorAll('button')) {"
        " const data = new FormData(form); data.set('kind', button.value);"
        " const answer = await fetch('/export', {method: 'POST', body: data});"
        " sizes[button.value] = answer.ok ? (await answer.blob()).size : -answer.status; }"
        " return sizes; })()"
    )

    assert set(sizes) == {"pdf", "csv", "fhir", "dicom", "pictures", "cells"}
    assert all(size > 1000 for size in sizes.values()), sizes


def test_parked_work_is_taken_up_by_keyboard(desk: Desk) -> None:
    desk.open("/operations")
    desk.page.evaluate(
        "document.querySelector('form[action=\"/operations/retry\"] button').focus()"
    )

    desk.page.press("Enter")

    desk.page.wait_until("(document.body?.innerText ?? '').includes('1 taken up again')")
    assert desk.site.retried == ["deliver:1"]


def test_the_audit_trail_is_read_and_verified(desk: Desk) -> None:
    desk.open("/audit")
    desk.page.evaluate("document.querySelector('form[action=\"/audit/verify\"] button').click()")

    desk.page.wait_until("(document.body?.innerText ?? '').includes('The trail is whole')")


# --- review


def test_a_review_of_200_cells_by_keyboard_alone(desk: Desk) -> None:
    """20 corrections, 3 undos and everything seen, in 90 s at most."""
    sign_out(desk)
    desk.sign_in("rosa")
    desk.open(f"/smears/{desk.smear}?sort=place")
    revision = "document.querySelector('#review-state [name=revision]').value"
    desk.page.evaluate("document.querySelector('a.look').focus()")
    began = time.monotonic()
    for number in range(20):
        desk.page.press("m" if number % 2 else "e")
    desk.page.wait_until(f"{revision} === '20'")
    for undone in range(3):
        desk.page.press("u")
        desk.page.wait_until(
            f"{revision} === '{21 + undone}' && document.readyState === 'complete'"
        )
    desk.page.evaluate(
        "document.querySelectorAll('.cell input').forEach(input => { input.checked = true; })"
    )
    desk.page.evaluate("document.querySelector('a.look').focus()")
    desk.page.press(" ", text=" ")
    desk.page.wait_until(
        "/204 of 204 seen/.test(document.querySelector('#review-state').innerText)"
    )
    took = time.monotonic() - began

    events = desk.site.parts.reviews.events(desk.smear)
    acts = [event.act for event in events]
    decided = desk.site.parts.reviews.read(desk.smear).state.decisions
    print(f"review of 204 cells: {took:.1f} s")
    assert acts.count(Act.UNDO) == 3
    assert len(decided) == 17
    assert took < 90 or is_busy()


def test_letters_do_nothing_while_somebody_types(desk: Desk) -> None:
    desk.open(f"/smears/{desk.smear}")
    before = len(desk.site.parts.reviews.events(desk.smear))

    desk.page.evaluate("document.querySelector('#comment').focus()")
    for letter in "blm":
        desk.page.press(letter)

    assert desk.page.evaluate("document.querySelector('#comment').value") == "blm"
    assert len(desk.site.parts.reviews.events(desk.smear)) == before


REVISION = "Number(document.querySelector('#review-state [name=revision]').value)"
TOLD = "document.querySelector('#review-told').innerText"


def open_for_review(desk: Desk) -> int:
    """The smear's page with the first cell in focus; the revision that it shows."""
    sign_out(desk)
    desk.sign_in("rosa")
    desk.open(f"/smears/{desk.smear}?sort=place")
    desk.page.evaluate("document.querySelector('a.look').focus()")
    return int(desk.page.evaluate(REVISION))


def new_acts(desk: Desk, since: int) -> list[tuple[Act, str]]:
    events = desk.site.parts.reviews.events(desk.smear)
    return [(one.act, one.to) for one in events if one.revision > since]


def leave_with_faults(desk: Desk) -> None:
    """Leave a page on which the browser told of answers that the test asked for."""
    desk.page.open(desk.url + "/network")
    desk.page.wait_until(f"{DONE} && !location.pathname.startsWith('/smears')")
    desk.page.heard.clear()


def test_enter_after_a_comment_keeps_it_on_the_cell_in_focus(desk: Desk) -> None:
    since = open_for_review(desk)
    cell = desk.page.evaluate("document.activeElement.closest('.cell').dataset.cell")
    place = desk.page.evaluate("document.activeElement.querySelector('.place').textContent")

    desk.page.press("c")
    told = desk.page.evaluate("document.querySelector('#comment').placeholder")
    desk.page.type('=1+1 <b>"ملاحظة"</b> 注释')
    desk.page.press("Enter")
    desk.page.wait_until(f"{REVISION} === {since + 1}")

    kept = desk.site.parts.reviews.events(desk.smear)[-1]
    assert told == f"on {place}"
    assert (kept.act, kept.cells, kept.to) == (Act.COMMENT, (cell,), "")
    assert kept.comment == '=1+1 <b>"ملاحظة"</b> 注释'


def test_enter_after_a_place_asks_for_a_missed_cell_and_excludes_nothing(desk: Desk) -> None:
    since = open_for_review(desk)
    desk.open(f"/smears/{desk.smear}/fields/2")

    desk.page.evaluate("document.querySelector('#y').focus()")
    desk.page.press("Enter")
    desk.page.wait_until(f"{WORDS}.includes('Point to the missed cell')")

    assert new_acts(desk, since) == []
    leave_with_faults(desk)


def test_a_key_that_is_held_down_decides_one_cell(desk: Desk) -> None:
    since = open_for_review(desk)

    desk.page.hold("m", repeats=5)
    desk.page.press("e")
    desk.page.wait_until(f"{REVISION} === {since + 2}")

    assert new_acts(desk, since) == [(Act.RECLASSIFY, "monocyte"), (Act.RECLASSIFY, "eosinophil")]


def test_a_click_on_a_class_is_for_the_cell_in_focus_and_a_double_click_for_one(
    desk: Desk,
) -> None:
    since = open_for_review(desk)
    cells = desk.page.evaluate(
        "[...document.querySelectorAll('.cell')].slice(0, 2).map(cell => cell.dataset.cell)"
    )
    place = (
        "(() => { const box = document.querySelector('[data-class=basophil]')"
        ".getBoundingClientRect(); return [box.x + 9, box.y + 9]; })()"
    )

    desk.page.double_click(*desk.page.evaluate(place))
    desk.page.wait_until(f"{REVISION} === {since + 1}")
    desk.page.evaluate("document.querySelector('[data-class=monocyte]').click()")
    desk.page.wait_until(f"{REVISION} === {since + 2}")

    events = desk.site.parts.reviews.events(desk.smear)[since:]
    assert [(one.to, list(one.cells)) for one in events] == [
        ("basophil", cells[:1]),
        ("monocyte", cells[1:]),
    ]


def test_a_star_is_taken_away_by_the_same_key(desk: Desk) -> None:
    since = open_for_review(desk)
    focus = "document.querySelector('a.look').focus()"

    desk.page.press("f")
    desk.page.wait_until("document.querySelector('.mark').textContent.includes('★')")
    desk.page.evaluate(focus)
    desk.page.press("f")
    desk.page.wait_until("!document.querySelector('.mark').textContent.includes('★')")

    assert [act for act, _ in new_acts(desk, since)] == [Act.STAR, Act.UNSTAR]


def test_a_page_that_was_behind_shows_what_changed_and_goes_on(desk: Desk) -> None:
    """Two tabs: what was pressed on the old page is not written, and the page says so."""
    since = open_for_review(desk)
    desk.page.evaluate("document.querySelectorAll('[name=revision]').forEach(i => i.value = 0)")

    desk.page.evaluate(
        "for (const key of 'me')"
        " document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
    )
    desk.page.wait_until(f"{TOLD}.startsWith('Not saved: The review changed')")
    desk.page.wait_until(f"{REVISION} === {since}")
    nothing = new_acts(desk, since)
    desk.page.evaluate("document.querySelector('a.look').focus()")
    desk.page.press("m")
    desk.page.wait_until(f"{REVISION} === {since + 1}")

    assert nothing == []
    assert new_acts(desk, since) == [(Act.RECLASSIFY, "monocyte")]
    leave_with_faults(desk)


def test_a_network_that_fails_and_a_slow_one_lose_and_double_nothing(desk: Desk) -> None:
    since = open_for_review(desk)

    desk.page.reach(is_offline=True)
    desk.page.press("m")
    desk.page.wait_until(f"{TOLD}.includes('Trying again')")
    desk.page.press("e")
    waiting = desk.page.evaluate("document.querySelector('#review-waiting').innerText")
    desk.page.reach(latency_ms=300)
    desk.page.wait_until(f"{REVISION} === {since + 2}")
    desk.page.wait_until("document.querySelector('#review-waiting').innerText === ''")
    desk.page.reach()

    assert waiting == "Saving 2 …"
    assert new_acts(desk, since) == [(Act.RECLASSIFY, "monocyte"), (Act.RECLASSIFY, "eosinophil")]
    assert desk.page.evaluate(TOLD) == ""
    leave_with_faults(desk)


def test_a_session_that_ended_is_told_and_the_comment_stays(desk: Desk) -> None:
    since = open_for_review(desk)

    desk.page.forget_cookies()
    desk.page.press("c")
    desk.page.type("nucleoli")
    desk.page.press("Enter")
    desk.page.wait_until(f"{TOLD}.includes('your session has ended')")
    left = desk.page.evaluate("document.querySelector('#comment').value")
    link = desk.page.evaluate("document.querySelector('#review-told a').getAttribute('href')")

    assert new_acts(desk, since) == []
    assert left == "nucleoli"
    assert link == f"/sign-in?next=%2Fsmears%2F{desk.smear}"
    leave_with_faults(desk)


DRAG = """((goal, index) => {
    const cell = [...document.querySelectorAll(".cell")][index];
    const data = new DataTransfer();
    const fire = (place, kind) => place.dispatchEvent(
        new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
    fire(cell.querySelector("a.look"), "dragstart");
    const place = document.querySelector(goal);
    const isTaken = !fire(place, "dragover");
    fire(place, "drop");
    fire(cell, "dragend");
    return [cell.dataset.cell, isTaken];
})"""


def test_a_cell_is_dragged_to_a_class(desk: Desk) -> None:
    sign_out(desk)
    desk.sign_in("rosa")
    desk.open(f"/smears/{desk.smear}")
    before = len(desk.site.parts.reviews.events(desk.smear))

    _, is_beside_taken = desk.page.evaluate(f"{DRAG}('h1', 0)")
    cell, is_taken = desk.page.evaluate(f"{DRAG}('#review [data-class=\"plasma_cell\"]', 0)")
    desk.page.wait_until(f"document.querySelector('#class-plasma_cell [data-cell=\"{cell}\"]')")

    events = desk.site.parts.reviews.events(desk.smear)[before:]
    assert (is_beside_taken, is_taken) == (False, True)
    assert [(one.act, one.to, one.cells) for one in events] == [
        (Act.RECLASSIFY, "plasma_cell", (cell,))
    ]
    assert desk.page.evaluate("document.querySelectorAll('.over').length") == 0
    # Where it lies already it is not decided again.
    desk.page.evaluate(
        f"{DRAG}('#class-plasma_cell', [...document.querySelectorAll('.cell')]"
        f".findIndex(one => one.dataset.cell === '{cell}'))"
    )
    assert len(desk.site.parts.reviews.events(desk.smear)) == before + 1


def test_reference_cells_are_put_away_and_fetched_by_a_key(desk: Desk) -> None:
    sign_out(desk)
    desk.sign_in("rosa")
    is_coded, jpeg = cv2.imencode(".jpg", np.full((96, 96, 3), 200, np.uint8))
    assert is_coded
    kept = ReferenceCell(
        id="0" * 32, cell_class="lymphocyte", kept_by="rosa", kept_at=NOW, software_version="0.1.0"
    )
    desk.site.parts.store.references.keep(kept, jpeg.tobytes())
    desk.open(f"/smears/{desk.smear}/fields/2?cell=2")
    is_open = "document.querySelector('#references').open"

    before = desk.page.evaluate(is_open)
    desk.page.press("r")
    put_away = desk.page.evaluate(is_open)
    desk.page.press("r")

    assert (before, put_away, desk.page.evaluate(is_open)) == (True, False, True)
    desk.page.wait_until("document.querySelector('#references img').naturalWidth === 96")


def test_two_reviewers_see_each_other_s_work_within_two_seconds(desk: Desk) -> None:
    desk.open(f"/smears/{desk.smear}")
    desk.page.wait_until("document.querySelector('#review-state [name=revision]')")
    seen = int(desk.page.evaluate("document.querySelector('#review-state [name=revision]').value"))

    desk.site.review_as("rita", desk.smear, seen_revision=seen)
    came = desk.page.comes(
        f"document.querySelector('#review-state [name=revision]').value === '{seen + 1}'",
        at_most_s=90 if is_busy() else 10,
    )

    assert came


def test_a_signature_by_keyboard(desk: Desk) -> None:
    desk.open(f"/smears/{desk.smear}")
    desk.page.evaluate("document.querySelector('#sign-reason').focus()")
    desk.page.type("phantom")
    desk.page.press("Tab")
    desk.page.type(PASSWORD)
    desk.page.press("Enter")

    desk.page.wait_until("(document.body?.innerText ?? '').includes('final')")
