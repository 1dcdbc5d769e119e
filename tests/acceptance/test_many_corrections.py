"""1,000 random acts at one smear: judges accept every version, and all outputs say the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset

from pipeline.domain import SignOff
from pipeline.findings.review import Act
from reporting.content.sign_off import FHIR_STATUS, HL7_RESULT_STATUS
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.previous_version import read_previous_version
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS, PreviousVersion, Result, ResultKind
from tests.acceptance.fhir_peer import NEEDS_FHIR, errors_of, fhir_server
from tests.acceptance.many_corrections import LongReview
from tests.acceptance.test_dciodvfy import errors_in
from tests.listener.web.console.site import sign_in
from tests.reporting.counts_said import expected, in_gallery, in_page, said_by
from tests.reporting.headers import make_context
from tests.reporting.made import read
from tests.reporting.sources import make_source

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed"),
    *NEEDS_FHIR,
]

ACTS, EVERY = 1000, 50
SIGNATURES = {
    350: (Act.SIGN,),
    600: (Act.SIGN, Act.COUNTERSIGN),
    700: (Act.WITHDRAW,),
    850: (Act.SIGN,),
    1000: (Act.WITHDRAW,),
}
"""After which act somebody signs; the versions in between are changed and not signed again."""


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with fhir_server() as client:
        yield client


class Versions:
    """The result sets of a smear, each naming the one before."""

    def __init__(self, review: LongReview, *kinds: ResultKind) -> None:
        self._review = review
        self._kinds = frozenset(kinds or ResultKind)
        self._sources = {
            str(one.sop_instance_uid): make_source("slide_coordinates", one)
            for one in review.fields
        }
        self._previous: PreviousVersion | None = None
        self.number = 0

    def next(self) -> dict[ResultKind, list[Result]]:
        self.number += 1
        context = replace(
            make_context(), version=self.number, previous=self._previous, kinds=self._kinds
        )
        results = list(
            build_result_set(
                self._review.smear, read_source=self._sources.__getitem__, context=context
            )
        )
        self._previous = read_previous_version(results)
        by_kind: dict[ResultKind, list[Result]] = {}
        for one in results:
            by_kind.setdefault(one.kind, []).append(one)
        return by_kind


def test_a_thousand_acts(server: httpx.Client, tmp_path: Path) -> None:
    review = LongReview(tmp_path / "site", seed=1000)
    versions = Versions(review)
    ehr = FhirDestination(name="ehr", url=str(server.base_url.join("/fhir")), timeout_s=600.0)
    statuses: list[str] = []

    with review.site.client() as client:
        sign_in(client, "rosa")
        for number in range(1, ACTS + 1):
            review.do_something()
            assert expected(review.smear) == review.by_hand.count()
            if number % EVERY:
                continue
            for act in SIGNATURES.get(number, ()):
                review.sign(act)
            made = versions.next()
            truth = review.by_hand.count()
            said = said_by(one for some in made.values() for one in some)
            said["page"] = in_page(client.get(f"/smears/{review.smear_id}").text)
            said["gallery"] = in_gallery(review.smear)
            assert said == dict.fromkeys(said, truth)

            dicom = [one for kind in made.keys() & DICOM_KINDS for one in made[kind]]
            assert errors_in(dicom, tmp_path) == []
            [bundle] = made[ResultKind.FHIR_BUNDLE]
            assert errors_of(server, bundle.content) == []
            assert ehr.deliver([bundle]).accepted == (bundle.uid,)
            statuses.append(status_everywhere(server, made))

    assert statuses[:6] == ["preliminary"] * 6
    assert statuses[6] == "final"
    assert set(statuses[7:12]) <= {"corrected", "amended"}
    assert statuses[13] == statuses[-1] == "entered-in-error"
    assert set(statuses[16:19]) <= {"corrected", "amended"}
    assert_history(server, made, statuses)


def status_everywhere(server: httpx.Client, made: dict[ResultKind, list[Result]]) -> str:
    """The status that the server keeps; every output of the version says the same one."""
    report = resource_in(made, "DiagnosticReport")
    status = str(server.get(f"/fhir/DiagnosticReport/{report['id']}").json()["status"])
    sign_off = next(one for one in SignOff if FHIR_STATUS[one] == status)
    [message], [table] = made[ResultKind.HL7_MESSAGE], made[ResultKind.TABLE]
    [obr] = [line for line in message.content.decode().split("\r") if line.startswith("OBR|")]
    [told] = {row.split(",")[-5] for row in table.content.decode().splitlines()[1:]}

    assert obr.split("|")[25] == HL7_RESULT_STATUS[sign_off]
    assert told == sign_off
    sr = read(made[ResultKind.STRUCTURED_REPORT][0])
    is_verified = sr.VerificationFlag == "VERIFIED"
    assert is_verified == (sr.PreliminaryFlag == "FINAL") == ("VerifyingObserverSequence" in sr)
    assert not is_verified or sign_off not in (SignOff.UNSIGNED, SignOff.WITHDRAWN)
    return status


def resource_in(made: dict[ResultKind, list[Result]], kind: str) -> dict[str, str]:
    [bundle] = made[ResultKind.FHIR_BUNDLE]
    entries = json.loads(bundle.content)["entry"]
    return next(e["resource"] for e in entries if e["resource"]["resourceType"] == kind)


def assert_history(
    server: httpx.Client, made: dict[ResultKind, list[Result]], statuses: list[str]
) -> None:
    """The server has every version of the one report, in turn."""
    report = resource_in(made, "DiagnosticReport")
    history = server.get(f"/fhir/DiagnosticReport/{report['id']}/_history").json()["entry"]
    kept = [one["resource"]["status"] for one in history]
    assert sorted(kept) == sorted(statuses)


def test_series_rise_and_each_version_names_the_one_before(tmp_path: Path) -> None:
    review = LongReview(tmp_path, seed=2)
    versions = Versions(review, ResultKind.STRUCTURED_REPORT)
    reports: list[Dataset] = []

    for act in (None, Act.SIGN, None, Act.SIGN, Act.WITHDRAW):
        for _ in range(5):
            review.do_something()
        if act:
            review.sign(act)
        reports.append(read(versions.next()[ResultKind.STRUCTURED_REPORT][0]))

    numbers = [int(one.SeriesNumber) for one in reports]
    assert numbers == sorted(set(numbers))
    for before, after in pairwise(reports):
        [study] = after.PredecessorDocumentsSequence
        [named] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == before.SOPInstanceUID
