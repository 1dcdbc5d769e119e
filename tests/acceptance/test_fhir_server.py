"""A real R4 server stores our Bundles and gives them back; a real R4 validator accepts them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.domain import Call, QualityFlag, SmearFindings, SmearId
from pipeline.findings.smear_summary import gather_smear
from reporting.audit.fhir_export import fhir_event
from reporting.audit.trail import Event, Outcome, read_events
from reporting.delivery.destinations.fhir_attachments import Placement
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.fhir.bundle import MEDIA_TYPE, build_bundle
from reporting.research_label import check_label
from reporting.result_set import build_result_set
from reporting.results import Result, ResultKind
from tests.acceptance.fhir_peer import NEEDS_FHIR, fhir_server
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.audit.test_dicom_export import EVERYTHING
from tests.reporting.delivery.labelled import noisy_png
from tests.reporting.headers import make_context, make_headers, make_references
from tests.reporting.pdf_reader import page_count, printed_text
from tests.reporting.sources import make_source
from tests.reporting.trails import open_trail

pytestmark = [pytest.mark.peers, *NEEDS_FHIR]


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with fhir_server() as client:
        yield client


def bundle_of(
    smear: SmearFindings, *, version: int = 1, gallery_png: bytes = b"\x89PNG", **header: str
) -> bytes:
    return build_bundle(
        smear,
        headers=make_headers(smear, **header),
        image_uids=make_references(smear),
        gallery_png=gallery_png,
        pdf=b"%PDF",
        context=make_context(version),
    ).content


def post(server: httpx.Client, bundle: bytes) -> list[str]:
    """Post as a transaction; the answers' statuses."""
    answer = server.post("/fhir/", content=bundle, headers={"content-type": MEDIA_TYPE})
    assert answer.status_code == 200, answer.text
    return [entry["response"]["status"] for entry in answer.json()["entry"]]


def stored(server: httpx.Client, kind: str) -> list[dict[str, Any]]:
    entries = server.get(f"/fhir/{kind}", params={"_count": 1000}).json().get("entry", [])
    return [entry["resource"] for entry in entries]


def smear_of(name: str, *calls: Call) -> SmearFindings:
    return gather_smear(SmearId(name), [make_field_findings(calls=calls)])


REFUSED = make_field_findings(flags=frozenset({QualityFlag.EMPTY}), is_usable=False)

SMEARS = {
    "counted": make_smear_findings(),
    "nothing counted": gather_smear(SmearId("smear-2"), [REFUSED]),
    "sixty fields": gather_smear(
        SmearId("smear-3"),
        [make_field_findings(sop_instance_uid=f"1.2.3.{n}") for n in range(60)],
    ),
}


def test_the_server_refuses_what_is_no_r4(server: httpx.Client) -> None:
    """The judge is awake: an element too many and a missing one are both found."""
    bundle = json.loads(bundle_of(make_smear_findings()))
    bundle["entry"] = [
        e for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"
    ]
    report = bundle["entry"][0]["resource"]
    del report["code"]
    report["mood"] = "blue"

    answer = server.post("/fhir/", json=bundle)

    [entry] = answer.json()["entry"]
    assert entry["response"]["status"] == "400"
    assert "Missing required property" in answer.text
    assert "mood" in answer.text
    assert stored(server, "DiagnosticReport") == []


@pytest.mark.parametrize("name", SMEARS)
@pytest.mark.parametrize("header", [{}, {"PatientID": "", "AccessionNumber": ""}])
def test_the_validator_finds_no_error(
    server: httpx.Client, name: str, header: dict[str, Any]
) -> None:
    bundle = bundle_of(SMEARS[name], **header)

    verdict = server.post("/validate", content=bundle).json()

    errors = [m for m in verdict["messages"] if m["severity"] in ("error", "fatal")]
    assert errors == []
    assert verdict["valid"] is True


@pytest.mark.parametrize("name", SMEARS)
def test_what_was_posted_is_read_back(server: httpx.Client, name: str) -> None:
    bundle = bundle_of(SMEARS[name])

    statuses = post(server, bundle)

    assert set(statuses) <= {"200", "201"}
    for entry in json.loads(bundle)["entry"]:
        kept = server.get(f"/fhir/{entry['request']['url']}").json()
        for bookkeeping in ("versionId", "lastUpdated"):
            kept["meta"].pop(bookkeeping)
        assert kept == entry["resource"]


def test_posted_twice_gives_one_set(server: httpx.Client) -> None:
    bundle = bundle_of(smear_of("twice", Call.NORMAL))
    post(server, bundle)
    kinds = {entry["resource"]["resourceType"] for entry in json.loads(bundle)["entry"]}
    before = {kind: len(stored(server, kind)) for kind in kinds}

    post(server, bundle)

    assert {kind: len(stored(server, kind)) for kind in kinds} == before


def test_a_later_version_becomes_version_two(server: httpx.Client) -> None:
    post(server, bundle_of(smear_of("late field", Call.NORMAL)))
    amended = bundle_of(smear_of("late field", Call.NORMAL, Call.LEUKEMIC), version=2)
    [report] = [
        entry["request"]["url"]
        for entry in json.loads(amended)["entry"]
        if entry["resource"]["resourceType"] == "DiagnosticReport"
    ]

    post(server, amended)

    history = server.get(f"/fhir/{report}/_history").json()["entry"]
    assert sorted(entry["resource"]["status"] for entry in history) == [
        "preliminary",
        "preliminary",
    ]
    assert server.get(f"/fhir/{report}").json()["status"] == "preliminary"


def test_a_whole_result_set_brings_its_page_and_its_gallery(server: httpx.Client) -> None:
    """What the service really sends: built from pixels, judged, stored and opened again."""
    smear = smear_of("whole set", Call.NORMAL, Call.LEUKEMIC)
    source = make_source("microscopic", smear.fields[0])
    results = {
        result.kind: result
        for result in build_result_set(smear, read_source=lambda _: source, context=make_context())
    }
    bundle = results[ResultKind.FHIR_BUNDLE].content
    verdict = server.post("/validate", content=bundle).json()

    post(server, bundle)

    assert [m for m in verdict["messages"] if m["severity"] in ("error", "fatal")] == []
    [url] = (
        e["request"]["url"]
        for e in json.loads(bundle)["entry"]
        if e["resource"]["resourceType"] == "DiagnosticReport"
    )
    report = server.get(f"/fhir/{url}").json()
    page = base64.b64decode(report["presentedForm"][0]["data"])
    assert page_count(page) >= 1
    assert "research use only" in printed_text(page).lower()
    check_label(Result(kind=ResultKind.PDF_REPORT, name="", media_type="", uid="", content=page))
    pictures = [
        server.get(f"/fhir/{medium['link']['reference']}").json() for medium in report["media"]
    ]
    [gallery] = (p["content"]["data"] for p in pictures if "data" in p["content"])
    assert base64.b64decode(gallery).startswith(b"\x89PNG\r\n")
    assert [p["content"]["url"] for p in pictures if "url" in p["content"]] == [
        f"urn:oid:{results[ResultKind.ANNOTATED_FIELD].uid}"
    ]


def test_every_exported_audit_event_is_valid_and_stored(
    server: httpx.Client, tmp_path: Path
) -> None:
    with open_trail(tmp_path) as trail:
        for event in Event:
            trail.record(event)
            trail.record(event, outcome=Outcome.SERIOUS_FAILURE, **EVERYTHING)
    exported = [fhir_event(entry, source="ward7") for entry in read_events(tmp_path)]

    for resource in exported:
        verdict = server.post("/validate", content=resource).json()
        url = f"/fhir/AuditEvent/{json.loads(resource)['id']}"
        kept = server.put(url, content=resource, headers={"content-type": MEDIA_TYPE})

        assert [m for m in verdict["messages"] if m["severity"] in ("error", "fatal")] == []
        assert kept.status_code in (200, 201), kept.text
    assert len(exported) >= 2 * len(Event)


@pytest.mark.parametrize("placement", [Placement.INLINE, Placement.LINKS])
def test_pictures_of_a_real_size_are_delivered(server: httpx.Client, placement: Placement) -> None:
    """As drawn they pass 4 MB, and this server holds every string to 1 MB as FHIR does."""
    smear = smear_of(f"smear-with-pictures-{placement}", Call.NORMAL, Call.LEUKEMIC)
    content = bundle_of(smear, gallery_png=noisy_png(1600))
    bundle = Result(
        kind=ResultKind.FHIR_BUNDLE, name="b", media_type=MEDIA_TYPE, uid="b", content=content
    )
    ehr = FhirDestination(
        name="ehr", url=f"{server.base_url}/fhir".replace("//fhir", "/fhir"), attachments=placement
    )

    refused = server.post("/fhir/", content=content, headers={"content-type": MEDIA_TYPE})
    receipt = ehr.deliver([bundle])

    assert "cannot be larger than 1 MB" in refused.text
    assert receipt.accepted == ("b",)
    media = [one for one in stored(server, "Media") if one["id"] in content.decode()]
    with_pixels = [one for one in media if "data" in one["content"]]
    assert media
    assert len(with_pixels) == (1 if placement is Placement.INLINE else 0)
