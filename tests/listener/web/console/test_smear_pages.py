"""Smears and fields are shown as they are: names of every kind, one cell, none, 2,000."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from config.sections import ConsoleSettings
from listener.web.console.galleries import CellOrder, class_of, in_order, place_cells
from listener.web.console.permissions import Role
from listener.web.console.smear import RecentViews
from pipeline.domain import CalibrationIdentity, Call, CellType, FieldFindings, QualityFlag, SmearId
from pipeline.rendering.sprite import TILE_PX, sprite_place
from reporting.audit.trail import Event
from tests.findings import (
    MODEL,
    make_cell,
    make_cell_finding,
    make_field_findings,
    make_smear_findings,
)
from tests.listener.web.console.site import PATIENT, ConsoleSite, csrf_of, sign_in

NAMES = {
    "markup": {"PatientName": "<script>alert(1)</script>^\"'&", "PatientID": "<b>1</b>"},
    "rtl": {"PatientName": "محمد^علي", "PatientID": "مريض-١"},
    "long": {"PatientName": "X" * 64, "PatientID": "9" * 64},
}


def many_cells(count: int, *, uid: str = "1.2.4.1") -> FieldFindings:
    """A field with so many small cells."""
    columns = 50
    kinds = (CellType.NEUTROPHIL, CellType.LYMPHOCYTE, CellType.MONOCYTE, CellType.LYMPHOBLAST)
    cells = [
        make_cell_finding(
            make_cell(n + 1, 20 + 40 * (n % columns), 20 + 40 * (n // columns), radius=14),
            Call.LEUKEMIC if n % 4 == 3 else Call.REFERRED if n % 10 == 0 else Call.NORMAL,
            cell_type=kinds[n % 4],
        )
        for n in range(count)
    ]
    height = 40 * (-(-count // columns)) + 40
    return make_field_findings(sop_instance_uid=uid, width=40 * columns, height=height, cells=cells)


def signed_in(client: TestClient, site: ConsoleSite) -> TestClient:
    site.add_account("jane", Role.REVIEWER)
    sign_in(client, "jane")
    return client


@pytest.mark.parametrize("words", NAMES.values(), ids=NAMES)
def test_names_of_every_kind_are_shown_as_text(tmp_path: Path, words: dict[str, str]) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], patient={**PATIENT, **words}, builds=False)

    with site.client() as client:
        signed_in(client, site)
        pages = [client.get("/smears").text, client.get(f"/smears/{smear}").text]

    for page in pages:
        assert "<script>alert" not in page
        assert "<b>1</b>" not in page
        shown = words["PatientID"].replace("<", "&lt;").replace(">", "&gt;")
        assert shown in page


def test_a_late_image_of_another_calibration_is_no_fault_of_ours(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)
    calibration = CalibrationIdentity(site="A", made_on="2026-11-28", smears=9, sha256="ef" * 32)
    late = make_field_findings(
        sop_instance_uid="1.2.4.99", model=replace(MODEL, calibration=calibration)
    )
    site.store.results.smear(smear).save_fields(late.sop_instance_uid, [late])

    with site.client() as client:
        page = client.get(f"/smears/{smear}", headers={"accept": "text/html"})
        answer = client.get(f"/smears/{smear}", headers={"accept": "application/json"})

    assert page.status_code == 409
    assert "another calibration" in page.text
    assert answer.status_code == 409
    assert answer.json()["title"] == "smear_with_two_models"


def test_every_cell_is_in_a_gallery_with_both_probabilities(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}").text

    assert page.count('class="cell ') == 4
    words = re.sub(r"<[^>]*>", "", page)
    for word in ("Unidentified", "Blast", "Lymphocyte", "leukemic 0.97, normal 0.03", "95 %"):
        assert word in words
    assert "referred: uncertain" in words


def test_the_grade_is_told_by_sign_and_words(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    calls = (Call.LEUKEMIC,) * 10 + (Call.NORMAL,) * 20
    smear = site.put_smear([make_field_findings(calls=calls)], builds=False)

    with site.client() as client:
        for path in ("/smears", f"/smears/{smear}"):
            page = client.get(path).text
            assert "many blasts" in page
            assert 'class="grade grade-many' in page
            assert "<path" in page.split("grade grade-many", 1)[1][:300]


def test_a_smear_without_a_cell_is_shown(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings(cells=[])], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}")

    assert page.status_code == 200
    assert "No white cell was counted" in page.text
    assert "No cell was found" in page.text


def test_a_smear_of_one_cell_is_shown(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings(calls=(Call.LEUKEMIC,))], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}").text

    assert page.count('class="cell ') == 1
    assert "fewer than 100 cells" in page


def test_a_smear_of_refused_fields_only_is_shown_with_the_reasons(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    refused = make_field_findings(
        flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=False, calls=()
    )
    smear = site.put_smear([refused], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}").text
        field = client.get(f"/smears/{smear}/fields/1").text

    assert "out of focus" in page
    assert "refer to expert" in page
    assert "refused for its quality" in field


def test_2000_cells_are_shown_class_by_class(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([many_cells(2000)], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}").text
        blasts = client.get(f"/smears/{smear}?class=blast").text

    assert "all 500" in page
    assert page.count('class="cell cell-blast"') == 200
    assert blasts.count('class="cell cell-blast"') == 500


def test_400_cells_of_a_smear_come_with_all_their_pictures(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    fields = [many_cells(40, uid=f"1.2.4.{number}") for number in range(1, 11)]
    smear = site.put_smear(fields, builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}")
        sprites = {part.split('"')[0] for part in page.text.split('<image href="')[1:]}
        answers = [client.get(sprite) for sprite in sprites]

    assert page.text.count('class="cell ') == 400
    assert {answer.status_code for answer in answers} == {200}


def test_each_tile_shows_its_own_cell(tmp_path: Path) -> None:
    """In the middle of every tile of a sprite is the nucleus of the cell that it stands for."""
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}").text
        href = next(
            part.split('"')[0] for part in page.split('<image href="')[1:] if "/lymphocyte" in part
        )
        picture = client.get(href).content

    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    sprite = decoded[..., ::-1]
    for position in range(2):
        x, y = sprite_place(position)
        middle = sprite[y + TILE_PX // 2, x + TILE_PX // 2].astype(int)
        assert np.abs(middle - (104, 62, 142)).max() < 12
    assert sprite.shape == (TILE_PX, 2 * TILE_PX, 3)


def test_heat_sprites_differ_from_plain_ones(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}?heat=1").text
        href = next(
            part.split('"')[0] for part in page.split('<image href="')[1:] if "/blast" in part
        )
        hot, plain = client.get(href), client.get(href.removesuffix("-heat"))

    assert href.endswith("-heat")
    assert hot.status_code == plain.status_code == 200
    assert hot.content != plain.content


@pytest.mark.parametrize("order", CellOrder)
def test_every_order_shows_every_cell_once(order: CellOrder) -> None:
    cells = [cell for some in place_cells(make_smear_findings()).values() for cell in some]

    ordered = in_order(cells, order)

    assert sorted(map(id, ordered)) == sorted(map(id, cells))


def test_most_suspicious_and_most_doubtful_come_first() -> None:
    cells = [cell for some in place_cells(make_smear_findings()).values() for cell in some]

    suspicious = [cell.leukemic for cell in in_order(cells, CellOrder.SUSPICIOUS)]
    doubtful = [abs(cell.leukemic - 0.5) for cell in in_order(cells, CellOrder.DOUBTFUL)]

    assert suspicious == sorted(suspicious, reverse=True)
    assert doubtful == sorted(doubtful)


def test_a_filter_shows_what_fits(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        referred = client.get(f"/smears/{smear}?call=referred").text
        reason = client.get(f"/smears/{smear}?reason=uncertain").text
        nothing = client.get(f"/smears/{smear}?call=leukemic&class=lymphocyte").text

    assert referred.count('class="cell ') == reason.count('class="cell ') == 1
    assert "No cell fits the filter" in nothing


def test_a_reference_range_stands_beside_the_count(tmp_path: Path) -> None:
    settings = ConsoleSettings(reference_ranges={"lymphocyte": (20.0, 45.0)})
    site = ConsoleSite(tmp_path, settings=settings)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}").text

    assert "20.0 – 45.0 %" in page


def test_a_field_is_shown_with_outlines_and_labels(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    found = make_field_findings()
    smear = site.put_smear([found, make_field_findings(sop_instance_uid="1.2.4.2")], builds=False)

    with site.client() as client:
        page = client.get(f"/smears/{smear}/fields/1?cell=2").text
        pair = client.get(f"/smears/{smear}/fields/1?view=both").text
        pictures = [
            client.get(f"/smears/{smear}/fields/1/{kind}")
            for kind in ("original", "annotated", "thumb", "heat")
        ]

    assert page.count('class="outline call-') == 4
    assert page.count('class="outline nucleus') == 4
    assert "#2 0.04 lymphocyte" in page
    assert 'class="cell-mark chosen"' in page
    assert "/original?" in pair
    assert "/annotated?" in pair
    for answer in pictures:
        decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None
    assert len(site.audit.of(Event.FIELD_VIEWED)) == 2


def test_the_original_is_shown_to_the_single_pixel(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    found = make_field_findings()
    smear = site.put_smear([found], builds=False)

    with site.client() as client:
        picture = client.get(f"/smears/{smear}/fields/1/original").content

    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (found.height, found.width, 3)


@pytest.mark.parametrize(
    "path",
    [
        "/smears/1.2.3.999",
        "/smears/..%2f..%2fetc",
        "/smears/{smear}/fields/0",
        "/smears/{smear}/fields/3",
        "/smears/{smear}/fields/1/secret",
        "/smears/{smear}/sprites/0/blast",
        "/smears/{smear}/sprites/{digest}/..%2fblast",
        "/smears/{smear}/sprites/{digest}/platelet",
        "/static/..%2fapp.py",
        "/upload/none",
    ],
)
def test_what_is_not_there_is_not_found(tmp_path: Path, path: str) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)
    site.add_account("root", Role.ADMINISTRATOR)
    console = site.console()

    with site.client(console) as client:
        sign_in(client, "root")
        opened = console.files.open(SmearId(smear))
        assert opened is not None
        digest = console.pictures.digest(opened)
        answer = client.get(path.format(smear=smear, digest=digest))

    assert answer.status_code == 404


def test_an_image_past_its_retention_is_told_and_its_figures_stay(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    found = make_field_findings()
    smear = site.put_smear([found])
    site.store.inbox.remove(found.sop_instance_uid)

    with site.client() as client:
        page = client.get(f"/smears/{smear}")
        field = client.get(f"/smears/{smear}/fields/1")
        picture = client.get(f"/smears/{smear}/fields/1/original")

    assert page.status_code == field.status_code == 200
    assert "past their retention period" in page.text
    assert "was deleted" in field.text
    assert picture.status_code == 410


def test_searching_leaves_no_trace_of_what_was_searched(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        signed_in(client, site)
        csrf = csrf_of(client.get("/smears"))
        found = client.post("/smears", data={"csrf": csrf, "words": "acc-1"})
        missed = client.post("/smears", data={"csrf": csrf, "words": "PID-9"})

    assert "PID-4711" in found.text
    assert "PID-4711" not in missed.text
    assert "acc-1" not in str(site.audit.recorded)
    assert site.audit.events.count(Event.SMEARS_SEARCHED) == 2


def test_who_may_not_know_the_patient_cannot_search_by_name(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    site.put_smear([make_field_findings()], builds=False)
    site.add_account("olga", Role.OPERATOR)

    with site.client() as client:
        sign_in(client, "olga")
        csrf = csrf_of(client.get("/smears"))
        missed = client.post("/smears", data={"csrf": csrf, "words": "PID-9"}).text
        page = client.get("/smears").text

    assert "1 smear," in missed
    assert "PID-4711" not in page
    assert "P-" in page


def test_opening_a_smear_is_recorded_with_who(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        signed_in(client, site)
        client.get(f"/smears/{smear}")

    (told,) = site.audit.of(Event.SMEAR_VIEWED)
    assert told.actor is not None
    assert told.actor.user == "jane"
    assert told.fields["smear_id"] == smear


def test_a_page_that_fetches_itself_again_is_one_opening(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)

    with site.client() as client:
        signed_in(client, site)
        for _ in range(3):
            client.get(f"/smears/{smear}", headers={"x-background": "1"})
        client.cookies.clear()
        sign_in(client, "jane")
        client.get(f"/smears/{smear}")

    assert len(site.audit.of(Event.SMEAR_VIEWED)) == 2


def test_an_opening_is_recorded_again_after_a_while() -> None:
    now = [0.0]
    views = RecentViews(lambda: now[0])

    told = [views.is_new("jane")]
    for later in (599.0, 601.0):
        now[0] = later
        told.append(views.is_new("jane"))

    assert told == [True, False, True]


def test_a_class_holds_what_was_called_so() -> None:
    cells = [
        make_cell_finding(make_cell(1, 50, 50), call, cell_type=kind)
        for call, kind in (
            (Call.LEUKEMIC, CellType.LYMPHOBLAST),
            (Call.NORMAL, CellType.MONOCYTE),
            (Call.REFERRED, CellType.MONOCYTE),
        )
    ]

    assert [class_of(cell) for cell in cells] == ["blast", "monocyte", "unidentified"]


def test_pictures_are_pruned_to_their_room(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path, settings=ConsoleSettings(cache_mb=1))
    console = site.console()
    for number in range(3):
        folder = tmp_path / "cache" / str(number)
        folder.mkdir(parents=True)
        (folder / "blast.jpg").write_bytes(io.BytesIO(b"x" * 600_000).getvalue())

    console.pictures.prune()

    assert len(list((tmp_path / "cache").iterdir())) == 1
