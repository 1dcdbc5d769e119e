"""A destination under pseudonyms gets nothing else, and its trouble is nobody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from config.settings import make_settings
from listener.queue.jobs import DeliveryAttempt
from listener.workflow.delivery import is_confirmed
from listener.workflow.destinations import make_destination_queues
from listener.workflow.pseudonyms import SitePseudonyms
from listener.workflow.steps import ReportSettings, ReportStep
from pipeline.domain import SmearId
from pipeline.errors import NeedsReview, Rejected
from reporting.audit.trail import Event
from reporting.result_set import build_result_set
from reporting.results import ResultKind
from tests.fakes import RecordingAudit
from tests.listener.house import Shelf, WorkflowSite, make_dataset, make_house, receive

SERIES = "1.2.3.4"
KINDS = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.FHIR_BUNDLE, ResultKind.TABLE})


@pytest.fixture
def audit() -> RecordingAudit:
    return RecordingAudit()


@pytest.fixture
def house(tmp_path: Path, audit: RecordingAudit) -> WorkflowSite:
    shelves = [Shelf(name="pacs", kinds=KINDS), Shelf(name="registry", kinds=KINDS)]
    return make_house(tmp_path, audit=audit, destinations=shelves)


def make_pseudonymous(house: WorkflowSite, root: Path, *names: str) -> SitePseudonyms:
    """From now on these destinations want pseudonyms."""
    house.destinations.replace(
        [replace(one, is_pseudonymous=one.name in names) for one in house.destinations]
    )
    settings = make_settings({"service": {"data_dir": str(root)}})
    return SitePseudonyms(settings, house.destinations)


def report(house: WorkflowSite, pseudonyms: Any) -> int:
    """Analyse what is in the inbox and report it with real results; the version made."""
    step = ReportStep(
        inbox=house.inbox,
        results=house.results,
        analysis=house.analysis,
        build_results=build_result_set,
        build_variant=build_result_set,
        route=lambda smear, *, header, image: tuple(one.name for one in house.destinations),
        settings=ReportSettings(kinds=KINDS, compress_images=True, software_version="0.1.0"),
        audit=house.audit,
        clock=lambda: datetime(2026, 11, 24, 20, tzinfo=UTC),
        pseudonyms=pseudonyms,
    )
    for image in list(house.inbox.waiting()):
        house.images.analyse(image, SmearId(SERIES))
    return step.close(SmearId(SERIES), known=None, is_waiting=False).version


def deliver(house: WorkflowSite, name: str, version: int = 1) -> int:
    go = DeliveryAttempt(smear_id=SmearId(SERIES), version=version, destination=name)
    return house.sender.deliver(go).sent


def arrived(house: WorkflowSite, name: str) -> list[bytes]:
    destination = house.destinations.get(name).destination
    assert isinstance(destination, Shelf)
    return [content for contents in destination.arrived.values() for content in contents]


def test_without_a_pseudonymous_report_nothing_goes_there(
    house: WorkflowSite, tmp_path: Path
) -> None:
    """A destination that was changed after the report was made."""
    receive(house.inbox, SERIES, 1)
    version = report(house, lambda destinations: None)
    make_pseudonymous(house, tmp_path, "registry")

    with pytest.raises(NeedsReview) as refused:
        deliver(house, "registry", version)

    assert refused.value.code == "no_pseudonymous_results"
    assert arrived(house, "registry") == []


def test_an_exposed_key_stops_the_start(house: WorkflowSite, tmp_path: Path) -> None:
    pseudonyms = make_pseudonymous(house, tmp_path, "registry")
    pseudonyms.check()
    (tmp_path / "pseudonyms.key").chmod(0o644)

    with pytest.raises(Rejected) as refused:
        pseudonyms.check()

    assert refused.value.code == "pseudonym_key_exposed"


def test_no_key_is_made_where_nobody_wants_pseudonyms(house: WorkflowSite, tmp_path: Path) -> None:
    make_pseudonymous(house, tmp_path).check()

    assert not (tmp_path / "pseudonyms.key").exists()


def test_burned_in_text_parks_one_destination_and_delays_no_other(
    house: WorkflowSite, tmp_path: Path, audit: RecordingAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    pseudonyms = make_pseudonymous(house, tmp_path, "registry")

    def burned_in(series: str, number: int) -> Any:
        dataset = make_dataset(series, number)
        dataset.BurnedInAnnotation = "YES"
        return dataset

    monkeypatch.setattr("tests.listener.house.make_dataset", burned_in)
    receive(house.inbox, SERIES, 1)

    version = report(house, pseudonyms)

    assert deliver(house, "pacs", version) == 3
    with pytest.raises(NeedsReview) as refused:
        deliver(house, "registry", version)
    assert refused.value.code == "no_pseudonymous_results"
    [refusal] = audit.of(Event.RESULT_REFUSED)
    assert refusal.fields["code"] == "burned_in_text"


def test_what_could_not_be_made_counts_as_not_confirmed(
    house: WorkflowSite, tmp_path: Path
) -> None:
    """So that retention keeps the images until a person has seen to it."""
    receive(house.inbox, SERIES, 1)
    report(house, lambda destinations: None)
    make_pseudonymous(house, tmp_path, "registry")
    folder = house.results.smear(SmearId(SERIES))
    index = folder.latest()
    assert index is not None

    outlet = house.destinations.get("registry")

    assert not is_confirmed(index, outlet, folder.receipts("registry"))


def test_each_gets_its_own_variant_and_both_are_confirmed(
    house: WorkflowSite, tmp_path: Path
) -> None:
    pseudonyms = make_pseudonymous(house, tmp_path, "registry")
    receive(house.inbox, SERIES, 1)

    version = report(house, pseudonyms)

    assert (deliver(house, "pacs", version), deliver(house, "registry", version)) == (3, 3)
    assert (deliver(house, "pacs", version), deliver(house, "registry", version)) == (0, 0)
    folder = house.results.smear(SmearId(SERIES))
    for outlet in house.destinations:
        assert is_confirmed(folder.index(version), outlet, folder.receipts(outlet.name))
    assert b'"P1"' in b"".join(arrived(house, "pacs"))
    for content in arrived(house, "registry"):
        for secret in (b"Doe^Jane", b'"P1"', f"{SERIES}.1".encode()):
            assert secret not in content


def test_dicom_and_fhir_name_the_same_pseudonym(house: WorkflowSite, tmp_path: Path) -> None:
    pseudonyms = make_pseudonymous(house, tmp_path, "registry")
    receive(house.inbox, SERIES, 1)
    deliver(house, "registry", report(house, pseudonyms))

    [picture] = (c for c in arrived(house, "registry") if c[128:132] == b"DICM")
    [bundle] = (c for c in arrived(house, "registry") if c.startswith(b"{"))

    dataset = dcmread(BytesIO(picture), stop_before_pixels=True)
    assert dataset.PatientIdentityRemoved == "YES"
    assert f'"{dataset.PatientID}"'.encode() in bundle
    assert f'urn:oid:{dataset.StudyInstanceUID}"'.encode() in bundle


def test_an_old_index_without_the_mark_is_no_pseudonymous_one(house: WorkflowSite) -> None:
    """Reports that were made before the mark existed."""
    receive(house.inbox, SERIES, 1)
    report(house, lambda destinations: None)
    path = next((house.results.smear(SmearId(SERIES))._path).glob("v1/index.json"))
    path.write_text(path.read_text().replace(',"is_pseudonymous":false', ""))

    index = house.results.smear(SmearId(SERIES)).index(1)

    assert not any(result.is_pseudonymous for result in index.results)


def test_the_setting_reaches_the_destination(tmp_path: Path) -> None:
    table = {"name": "registry", "type": "folder", "path": str(tmp_path), "pseudonymise": True}
    site = make_settings({"destination": [table, {**table, "name": "pc", "pseudonymise": False}]})

    queues = make_destination_queues(site.destinations)

    assert [one.is_pseudonymous for one in queues] == [True, False]
