"""Reference cells of the site: kept from signed smears by reviewers; none tells whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from listener.storage.reference_cells import ReferenceCell, ReferenceCells
from listener.web.console.permissions import Role
from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.errors import Defect
from reporting.audit.trail import Event
from tests.findings import make_field_findings
from tests.listener.web.console.site import ConsoleSite, csrf_of, sign_in
from tests.listener.web.console.test_review import CELLS, sign, smear_of, write


@pytest.fixture
def site(tmp_path: Path) -> ConsoleSite:
    site = ConsoleSite(tmp_path)
    site.put_smear([make_field_findings()], builds=False)
    site.add_account("rosa", Role.REVIEWER)
    return site


@pytest.fixture
def rosa(site: ConsoleSite) -> Iterator[TestClient]:
    with site.client() as client:
        sign_in(client, "rosa")
        yield client


def keep(client: TestClient, site: ConsoleSite, cell: str, act: str = "keep") -> httpx.Response:
    return client.post(
        f"/smears/{smear_of(site)}/references",
        data={"csrf": csrf_of(client.get("/network")), "cell": cell, "act": act},
    )


def files(site: ConsoleSite) -> list[Path]:
    return sorted(path for path in (site.root / "references").rglob("*") if path.is_file())


# --- what is refused


def test_an_unsigned_smear_gives_no_reference(rosa: TestClient, site: ConsoleSite) -> None:
    unsigned = keep(rosa, site, CELLS[0])
    sign(rosa, site, reason="x")
    write(rosa, site, "reclassify", [CELLS[1]], seen=1, to="monocyte")
    changed_since = keep(rosa, site, CELLS[0])

    assert (unsigned.status_code, changed_since.status_code) == (409, 409)
    assert "sign it first" in unsigned.text
    assert files(site) == []


@pytest.mark.parametrize("cell", ["", "9.9:1:1", CELLS[3]])
def test_only_a_cell_with_a_class_is_a_reference(
    rosa: TestClient, site: ConsoleSite, cell: str
) -> None:
    sign(rosa, site, reason="x")

    assert keep(rosa, site, cell).status_code == 409
    assert files(site) == []


@pytest.mark.parametrize("role", [one for one in Role if one is not Role.REVIEWER])
def test_only_a_reviewer_keeps_references(site: ConsoleSite, role: Role) -> None:
    site.add_account("other", role)

    with site.client() as client:
        sign_in(client, "other")
        answer = keep(client, site, CELLS[0])

    assert answer.status_code == 403
    assert files(site) == []


@pytest.mark.parametrize(
    "place", ["monocyte/../blast", "unicorn/" + "0" * 32, "blast/" + "0" * 32, "blast/..%2f..%2fx"]
)
def test_no_file_but_a_picture_of_the_library_is_shown(
    rosa: TestClient, site: ConsoleSite, place: str
) -> None:
    assert rosa.get(f"/references/{place}").status_code == 404


def test_a_damaged_card_is_a_defect_and_not_skipped(site: ConsoleSite) -> None:
    library = ReferenceCells(site.root / "references")
    library.keep(a_card("0" * 32), b"jpeg")
    (site.root / "references" / "blast" / f"{'0' * 32}.json").write_text("{}")

    with pytest.raises(Defect, match="cannot be read"):
        library.of_class("blast")


# --- what is kept


def test_a_kept_cell_is_shown_beside_cells_of_its_class(
    rosa: TestClient, site: ConsoleSite
) -> None:
    sign(rosa, site, reason="x")

    answer = keep(rosa, site, CELLS[1])
    again = keep(rosa, site, CELLS[1])

    page = rosa.get(f"/smears/{smear_of(site)}/fields/1?cell=3").text
    shelf = page.split('id="references"', 1)[1]
    picture = rosa.get(shelf.split('src="', 1)[1].split('"', 1)[0])
    assert (answer.status_code, again.status_code) == (303, 303)
    assert answer.headers["location"].endswith("/fields/1?cell=2")
    assert len(files(site)) == 2
    assert "lymphocyte" in shelf
    assert picture.headers["content-type"] == "image/jpeg"
    assert RESEARCH_USE_ONLY.encode() in picture.content
    assert [one.fields for one in site.audit.of(Event.REFERENCE_ADDED)] == [
        {"given_class": "lymphocyte"}
    ] * 2


def test_nothing_that_is_kept_tells_whose_cell_it_is(rosa: TestClient, site: ConsoleSite) -> None:
    sign(rosa, site, reason="x")

    keep(rosa, site, CELLS[1])

    everything = b"".join(str(path).encode() + path.read_bytes() for path in files(site))
    told = str([one.fields for one in site.audit.of(Event.REFERENCE_ADDED)]).encode()
    for word in ("PID-4711", "Doe", "ACC-1", "1.2.826", str(smear_of(site))):
        assert word.encode() not in everything.replace(str(site.root).encode(), b"") + told


def test_a_reference_is_taken_out_again(rosa: TestClient, site: ConsoleSite) -> None:
    sign(rosa, site, reason="x")
    keep(rosa, site, CELLS[1])

    answer = keep(rosa, site, CELLS[1], act="remove")

    assert answer.status_code == 303
    assert files(site) == []
    assert site.audit.events.count(Event.REFERENCE_REMOVED) == 1
    assert 'id="references"' not in rosa.get(f"/smears/{smear_of(site)}/fields/1?cell=3").text


def test_the_newest_of_its_own_class_come_first_and_one_of_each_other(
    rosa: TestClient, site: ConsoleSite
) -> None:
    library = site.parts.store.references
    for number in range(8):
        library.keep(a_card(f"{number:032}", "lymphocyte", minute=number), b"jpeg")
        library.keep(a_card(f"{100 + number:032}", "blast", minute=number), b"jpeg")

    page = rosa.get(f"/smears/{smear_of(site)}/fields/1?cell=2").text

    shown = [part.split('"', 1)[0] for part in page.split('src="/references/')[1:]]
    assert shown == [f"lymphocyte/{n:032}" for n in (7, 6, 5, 4, 3, 2)] + [f"blast/{107:032}"]


def test_a_cell_whose_class_was_corrected_moves(site: ConsoleSite) -> None:
    library = site.parts.store.references
    library.keep(a_card("0" * 32, "blast"), b"jpeg")

    library.keep(a_card("0" * 32, "monocyte"), b"jpeg")

    found = library.find("0" * 32)
    assert found is not None
    assert found.cell_class == "monocyte"
    assert library.of_class("blast") == []


def a_card(name: str, cell_class: str = "blast", *, minute: int = 0) -> ReferenceCell:
    return ReferenceCell(
        id=name,
        cell_class=cell_class,
        kept_by="rosa",
        kept_at=datetime(2026, 11, 28, 9, minute, tzinfo=UTC),
        software_version="0.2.0",
    )
