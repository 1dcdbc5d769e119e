"""ORU^R01 messages and Bundles of odd headers: legal for strict readers, each with its order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.domain import SmearId
from pipeline.findings.smear_summary import gather_smear
from reporting.fhir.bundle import build_bundle
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.documents.test_hl7_message import message_of, named, strict, unescaped
from tests.reporting.headers import make_context, make_headers

HEADERS: Mapping[str, dict[str, Any]] = {
    "no-patient": {"PatientID": ""},
    "no-accession": {"AccessionNumber": ""},
    "neither": {"PatientID": "", "AccessionNumber": ""},
    "accession-with-separators": {"AccessionNumber": "26|08^15&1"},
    "patient-with-separators": {"PatientID": "1|2~3&4^5"},
    "patient-with-a-backslash": {"PatientID": "HOSP\\0815"},
    "patient-in-another-script": {"PatientID": "病人7"},
    "issuer-with-separators": {"IssuerOfPatientID": "HOSP&1.2.3&ISO"},
    "placer-order": {"PlacerOrderNumberImagingServiceRequest": "ORD-1"},
    "placer-order-alone": {
        "PlacerOrderNumberImagingServiceRequest": "ORD-1",
        "AccessionNumber": "",
    },
    "physician-of-one-name": {"ReferringPhysicianName": "House"},
    "physician-with-separators": {"ReferringPhysicianName": "O'Neil|x^A&B"},
    "two-physicians": {"RequestingPhysician": ["House^G", "Wilson^J"]},
    "only-a-year": {"AcquisitionDateTime": "2026", "StudyDate": ""},
    "only-a-month": {"AcquisitionDateTime": "202611", "StudyDate": ""},
    "no-date": {"StudyDate": "", "StudyTime": ""},
    "an-illegal-zone": {"TimezoneOffsetFromUTC": "+1500"},
    "half-an-hour-of-zone": {"TimezoneOffsetFromUTC": "-0930"},
    "slide-with-a-backslash": {"ContainerIdentifier": "SLIDE\\9"},
    "a-pseudonym": {"PatientIdentityRemoved": "YES"},
}


@pytest.mark.invented(kind=19)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HEADERS)
def test_every_message_is_legal_and_names_its_order(name: str) -> None:
    smear = make_smear_findings()
    header = HEADERS[name]

    message = message_of(smear, **header)
    bundle = build_bundle(
        smear,
        headers=make_headers(smear, **header),
        image_uids=[],
        gallery_png=None,
        pdf=None,
        context=make_context(),
    )

    strict(message)
    assert bundle.content
    (order,) = named(message, "OBR")
    accession = header.get("AccessionNumber", "ACC-5")
    placer = header.get("PlacerOrderNumberImagingServiceRequest", accession)
    assert unescaped(order[2]) == placer
    assert order[3].endswith("^SMEARLINK")
    assert unescaped((order + [""] * 20)[18]) == accession
    assert order[7]
    patients = named(message, "PID")
    assert [unescaped(one[3].split("^")[0]) for one in patients] == [
        value for value in [header.get("PatientID", "PID-77")] if value
    ]


@pytest.mark.invented(kind=19)
@pytest.mark.parametrize("accession", ["ACC-5", "", "26|08", "A" * 16])
def test_two_smears_of_one_order_are_two_results(accession: str) -> None:
    smears = [
        gather_smear(SmearId(name), [make_field_findings(sop_instance_uid=f"1.2.3.{number}")])
        for number, name in enumerate(("left", "right"), start=1)
    ]

    orders = [named(message_of(one, AccessionNumber=accession), "OBR")[0] for one in smears]

    assert orders[0][2] == orders[1][2]
    assert orders[0][3] != orders[1][3]
