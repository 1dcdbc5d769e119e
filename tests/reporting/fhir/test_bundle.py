"""A Bundle can be posted again and again, says what it is, and invents nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from config import codes
from pipeline.domain import (
    RESEARCH_USE_ONLY,
    Call,
    QualityFlag,
    SignOff,
    SmearFindings,
    SmearId,
)
from pipeline.errors import NeedsReview
from pipeline.findings.smear_summary import gather_smear
from reporting.fhir.bundle import build_bundle
from reporting.fhir.imaging import MOST_FIELD_PICTURES
from reporting.results import PreviousVersion
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import MODEL_CARD, make_context, make_headers, make_references
from tests.reporting.reviews import commented, reviewed

PNG = b"\x89PNG a picture"
PDF = b"%PDF-1.4 a page"
BLASTS = codes.BLASTS_PER_LEUKOCYTES.display


def smear_of(*calls: Call, fields: int = 1) -> SmearFindings:
    return gather_smear(
        SmearId("smear-1"),
        [make_field_findings(sop_instance_uid=f"1.2.3.{n}", calls=calls) for n in range(fields)],
    )


def bundle_of(smear: SmearFindings, *, version: int = 1, **header: str) -> dict[str, Any]:
    result = build_bundle(
        smear,
        headers=make_headers(smear, **header),
        image_uids=make_references(smear),
        gallery_png=PNG,
        pdf=PDF,
        context=make_context(version),
    )
    return json.loads(result.content)


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    made = [entry["resource"] for entry in bundle["entry"]]
    return [resource for resource in made if resource["resourceType"] == kind]


def figure(bundle: dict[str, Any], text: str) -> dict[str, Any]:
    [found] = [o for o in resources(bundle, "Observation") if o["code"]["text"] == text]
    return found


def parts(value: Any) -> list[dict[str, Any]]:
    """Every JSON object within `value`."""
    if isinstance(value, dict):
        return [value, *(p for inner in value.values() for p in parts(inner))]
    return [p for inner in value for p in parts(inner)] if isinstance(value, list) else []


def test_a_smear_of_two_patients_is_not_reported() -> None:
    smear = smear_of(Call.NORMAL, fields=2)
    headers = make_headers(smear)
    headers[smear.fields[0].sop_instance_uid].PatientID = "SOMEONE-ELSE"

    with pytest.raises(NeedsReview):
        build_bundle(
            smear,
            headers=headers,
            image_uids=[],
            gallery_png=None,
            pdf=None,
            context=make_context(),
        )


def test_nothing_counted_is_said_and_not_counted_as_zero() -> None:
    refused = make_field_findings(
        flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=False, sop_instance_uid="1.2.3.1"
    )

    bundle = bundle_of(gather_smear(SmearId("smear-1"), [refused]))

    blasts = figure(bundle, "Blasts/Leukocytes in Blood")
    assert "valueQuantity" not in blasts
    assert blasts["dataAbsentReason"]["text"] == "No white cell could be counted"
    quality = figure(bundle, "Quality of the smear's fields")
    assert quality["valueCodeableConcept"]["coding"][0]["code"] == "111235"


def test_a_missing_patient_id_is_said_to_be_missing() -> None:
    bundle = bundle_of(smear_of(Call.NORMAL), PatientID="", AccessionNumber="")

    [report] = resources(bundle, "DiagnosticReport")
    assert report["subject"]["extension"][0]["valueCode"] == "unknown"
    assert "identifier" not in report["subject"]
    assert "basedOn" not in report


def test_patient_and_order_are_named_by_identifier_alone() -> None:
    bundle = bundle_of(smear_of(Call.NORMAL))
    text = json.dumps(bundle, ensure_ascii=False)

    [report] = resources(bundle, "DiagnosticReport")
    assert report["subject"] == {
        "type": "Patient",
        "identifier": {"value": "PID-77", "assigner": {"display": "HOSPITAL"}},
    }
    assert report["basedOn"][0]["identifier"]["value"] == "ACC-5"
    assert not resources(bundle, "Patient")
    assert "Müller" not in text
    assert "1961" not in text


def test_every_resource_is_labelled_and_put_under_its_own_id() -> None:
    bundle = bundle_of(smear_of(Call.LEUKEMIC, Call.NORMAL))

    assert bundle["type"] == "transaction"
    for entry in bundle["entry"]:
        made = entry["resource"]
        assert [label["code"] for label in made["meta"]["security"]] == ["AIAST", "HRESCH"]
        assert entry["request"] == {"method": "PUT", "url": f"{made['resourceType']}/{made['id']}"}
        assert RESEARCH_USE_ONLY in json.dumps(made) or made["resourceType"] in ("Provenance",)


def test_every_reference_is_answered_within_the_bundle() -> None:
    bundle = bundle_of(smear_of(Call.LEUKEMIC, Call.NORMAL, fields=3))

    made = {f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in bundle["entry"]}
    named = {part["reference"] for part in parts(bundle) if "reference" in part}
    assert named <= made
    assert len(made) == len(bundle["entry"])


def test_a_replay_gives_the_same_bytes() -> None:
    assert bundle_of(make_smear_findings()) == bundle_of(make_smear_findings())


def test_a_later_version_takes_the_place_of_the_first_and_stays_preliminary() -> None:
    first = bundle_of(smear_of(Call.NORMAL))
    second = bundle_of(smear_of(Call.NORMAL, Call.LEUKEMIC), version=2)

    [was], [now] = (resources(bundle, "DiagnosticReport") for bundle in (first, second))
    assert was["id"] == now["id"]
    assert (was["status"], now["status"]) == ("preliminary", "preliminary")
    for kind in ("Observation", "Media"):
        assert ids(first, kind) == ids(second, kind)
    assert ids(first, "Provenance").isdisjoint(ids(second, "Provenance"))


def ids(bundle: dict[str, Any], kind: str) -> set[str]:
    return {made["id"] for made in resources(bundle, kind)}


@pytest.mark.parametrize(
    ("sign_off", "of_report", "of_observations"),
    [
        (SignOff.UNSIGNED, "preliminary", "preliminary"),
        (SignOff.FINAL, "final", "final"),
        (SignOff.CORRECTED, "corrected", "corrected"),
        (SignOff.AMENDED, "amended", "amended"),
        (SignOff.APPENDED, "appended", "amended"),
        (SignOff.WITHDRAWN, "entered-in-error", "entered-in-error"),
    ],
)
def test_the_status_follows_the_signature(
    sign_off: SignOff, of_report: str, of_observations: str
) -> None:
    bundle = bundle_of(reviewed(smear_of(Call.NORMAL), sign_off))

    [report] = resources(bundle, "DiagnosticReport")
    assert report["status"] == of_report
    assert {one["status"] for one in resources(bundle, "Observation")} == {of_observations}


def test_comments_stand_in_the_conclusion_and_as_text_in_the_narrative() -> None:
    bundle = bundle_of(commented(make_smear_findings(), ("<b>Auer rods</b> & 注释", ())))

    [report] = resources(bundle, "DiagnosticReport")

    assert report["conclusion"].endswith("on the smear: <b>Auer rods</b> & 注释")
    assert "on the smear: &lt;b&gt;Auer rods&lt;/b&gt; &amp; 注释" in report["text"]["div"]


def test_pictures_that_a_new_version_does_not_show_are_not_left_current() -> None:
    smear = smear_of(Call.NORMAL, fields=2)
    [gallery, *fields] = [media["id"] for media in resources(bundle_of(smear), "Media")]
    previous = PreviousVersion(structured_report=None, media_ids=(gallery, *fields, "old-picture"))

    result = build_bundle(
        smear,
        headers=make_headers(smear),
        image_uids=make_references(smear)[:1],
        gallery_png=PNG,
        pdf=PDF,
        context=replace(make_context(2), previous=previous),
    )

    status = {m["id"]: m["status"] for m in resources(json.loads(result.content), "Media")}
    assert status == {
        fields[0]: "completed",
        gallery: "entered-in-error",
        fields[1]: "entered-in-error",
        "old-picture": "entered-in-error",
    }


def test_a_new_version_of_the_network_amends_the_same_report() -> None:
    smear = smear_of(Call.NORMAL)
    newer = replace(smear, model=replace(smear.model, version="9", sha256="aa" * 32))

    [was], [now] = (resources(bundle_of(s), "DiagnosticReport") for s in (smear, newer))
    [old_device], [new_device] = (resources(bundle_of(s), "Device") for s in (smear, newer))

    assert was["id"] == now["id"]
    assert old_device["id"] != new_device["id"]


def test_figures_carry_interval_and_unit() -> None:
    bundle = bundle_of(smear_of(*[Call.LEUKEMIC] * 5, *[Call.NORMAL] * 15))

    blasts = figure(bundle, "Blasts/Leukocytes in Blood")
    assert blasts["valueQuantity"] == {
        "value": 25.0,
        "unit": "%",
        "system": "http://unitsofmeasure.org",
        "code": "%",
    }
    low, high, cells = blasts["component"]
    # Wilson for 5 of 20 is 11.19 to 46.87 %; twenty cells support whole percents.
    assert low["valueQuantity"]["value"] == 11
    assert high["valueQuantity"]["value"] == 47
    assert cells["valueInteger"] == 5
    assert figure(bundle, "White cells counted on the smear")["valueInteger"] == 20


def test_a_type_without_a_published_code_is_text_alone() -> None:
    code = figure(bundle_of(smear_of(Call.NORMAL)), "Immature granulocytes/Leukocytes in Blood")

    assert "coding" not in code["code"]


def test_images_are_linked_both_ways() -> None:
    smear = smear_of(Call.NORMAL, fields=2)
    bundle = bundle_of(smear)

    [report] = resources(bundle, "DiagnosticReport")
    [study] = resources(bundle, "ImagingStudy")
    media = resources(bundle, "Media")
    assert report["imagingStudy"] == [{"reference": f"ImagingStudy/{study['id']}"}]
    assert [m["link"]["reference"] for m in report["media"]] == [f"Media/{m['id']}" for m in media]
    assert base64.b64decode(media[0]["content"]["data"]) == PNG
    assert media[1]["content"]["url"].startswith("urn:oid:2.25.")
    assert {s["modality"]["code"] for s in study["series"]} == {"GM", "OT"}
    assert study["numberOfInstances"] == 5
    assert all("derivedFrom" in o for o in resources(bundle, "Observation"))


def test_of_many_fields_the_most_suspicious_are_shown() -> None:
    quiet = [
        make_field_findings(sop_instance_uid=f"1.2.3.{n}", calls=[Call.NORMAL]) for n in range(60)
    ]
    loud = make_field_findings(sop_instance_uid="1.2.3.99", calls=[Call.LEUKEMIC])
    smear = gather_smear(SmearId("smear-1"), [*quiet, loud])

    bundle = bundle_of(smear)

    _gallery, first, *others = resources(bundle, "Media")
    position = [f.sop_instance_uid for f in smear.fields].index(loud.sop_instance_uid)
    shown = make_references(smear)[position]
    assert first["content"]["url"] == f"urn:oid:{shown.sop_instance_uid}"
    assert len(others) + 1 == MOST_FIELD_PICTURES
    assert len(bundle["entry"]) <= 50


def test_the_printed_page_and_the_words_come_with_the_report() -> None:
    [report] = resources(bundle_of(smear_of(Call.NORMAL)), "DiagnosticReport")

    assert base64.b64decode(report["presentedForm"][0]["data"]) == PDF
    assert report["conclusion"].startswith(RESEARCH_USE_ONLY)
    assert "An expert must look at the smear itself." in report["conclusion"]
    assert "names no disease" in report["conclusion"]
    assert report["effectiveDateTime"] == "2026-11-21T10:15:00+01:00"


def test_the_device_names_the_network_that_found_the_cells() -> None:
    smear = smear_of(Call.NORMAL)
    found = replace(smear, model=replace(smear.model, finder_sha256="ab" * 32))

    [plain], [device] = (resources(bundle_of(one), "Device") for one in (smear, found))

    versions = {v["type"]["text"]: v["value"] for v in device["version"]}
    assert versions["cell finder SHA-256"] == "ab" * 32
    assert device["id"] != plain["id"]


def test_the_device_says_what_really_ran() -> None:
    smear = smear_of(Call.NORMAL)

    [device] = resources(bundle_of(smear), "Device")

    versions = {v["type"]["text"]: v["value"] for v in device["version"]}
    assert versions == {
        "software version": "0.1.0",
        "network version": smear.model.version,
        "network SHA-256": smear.model.sha256,
        "execution provider": smear.model.execution_provider,
    }


def test_who_reviewed_and_signed_stands_in_provenance_and_report() -> None:
    bundle = bundle_of(reviewed(smear_of(Call.NORMAL)))

    [provenance] = resources(bundle, "Provenance")
    [report] = resources(bundle, "DiagnosticReport")
    device, person = provenance["agent"]
    assert device["role"] == [
        {
            "coding": [
                {
                    "system": "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS",
                    "code": "Artificial-Intelligence",
                }
            ]
        }
    ]
    assert person["type"]["coding"][0]["code"] == "verifier"
    assert person["who"]["display"] == "Jana Meyer (Lab North)"
    assert report["resultsInterpreter"] == [person["who"]]
    assert figure(bundle, "White cells counted by the network alone")["valueInteger"] == 1
    assert "Reviewed and signed by Jana Meyer" in report["conclusion"]


def test_who_reviewed_without_signing_interprets_nothing() -> None:
    bundle = bundle_of(reviewed(smear_of(Call.NORMAL), SignOff.UNSIGNED))

    [provenance] = resources(bundle, "Provenance")
    [report] = resources(bundle, "DiagnosticReport")
    assert provenance["agent"][1]["type"]["coding"][0]["code"] == "performer"
    assert "resultsInterpreter" not in report


def test_the_ai_and_its_model_card_stand_in_provenance() -> None:
    bundle = bundle_of(smear_of(Call.NORMAL))

    [provenance] = resources(bundle, "Provenance")
    [card] = resources(bundle, "DocumentReference")
    [device] = resources(bundle, "Device")
    reference = f"DocumentReference/{card['id']}"
    assert [reason["coding"][0]["code"] for reason in provenance["reason"]] == ["HRESCH", "AIAST"]
    assert len(provenance["agent"]) == 1
    assert provenance["entity"][-1]["role"] == "derivation"
    assert provenance["entity"][-1]["what"]["reference"] == reference
    assert device["extension"][0]["valueReference"]["reference"] == reference
    assert card["type"]["coding"][0]["code"] == "AIModelCard"
    assert card["category"][0]["coding"][0]["code"] == "AIModelCardMarkdownFormat"
    assert base64.b64decode(card["content"][0]["attachment"]["data"]).decode() == MODEL_CARD


def test_a_network_without_a_card_is_named_and_no_card_invented() -> None:
    smear = smear_of(Call.NORMAL)
    result = build_bundle(
        smear,
        headers=make_headers(smear),
        image_uids=make_references(smear),
        gallery_png=PNG,
        pdf=PDF,
        context=replace(make_context(), model_card=""),
    )
    bundle = json.loads(result.content)

    [provenance] = resources(bundle, "Provenance")
    assert resources(bundle, "DocumentReference") == []
    assert "extension" not in resources(bundle, "Device")[0]
    assert "reference" not in provenance["entity"][-1]["what"]
    assert "MODEL_CARD.md" in provenance["entity"][-1]["what"]["display"]


def test_a_share_of_the_network_alone_has_its_interval_as_confidence() -> None:
    smear = smear_of(*[Call.LEUKEMIC] * 3, *[Call.NORMAL] * 17)

    blasts = figure(bundle_of(smear), BLASTS)
    by_people = figure(bundle_of(reviewed(smear)), BLASTS)

    [confidence] = blasts["extension"]
    limits = [part["valueQuantity"] for part in blasts["component"] if "valueQuantity" in part]
    assert confidence["url"].endswith("/StructureDefinition/AIconfidence")
    assert [confidence["valueRange"][end] for end in ("low", "high")] == limits
    assert limits[0]["value"] < blasts["valueQuantity"]["value"] < limits[1]["value"]
    assert "extension" not in by_people


def test_counts_and_shares_without_a_value_have_no_confidence() -> None:
    bundle = bundle_of(gather_smear(SmearId("smear-2"), [make_field_findings(calls=())]))

    assert all("extension" not in one for one in resources(bundle, "Observation"))
