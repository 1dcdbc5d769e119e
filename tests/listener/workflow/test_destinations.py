"""Settings become destinations and routes that do what the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from config.sections import ALL_RESULT_KINDS
from config.settings import make_settings
from listener.queue.jobs import delivery_queue
from listener.storage.inbox import StoredInstance
from listener.workflow.destinations import (
    DestinationQueue,
    Routes,
    make_destination,
    make_destination_queue,
    make_destination_queues,
    parse_rules,
)
from pipeline.errors import Rejected
from reporting.delivery import SENSIBLE_KINDS
from reporting.delivery.destinations import dicom_store as dicom
from reporting.delivery.destinations import fhir_server as fhir
from reporting.delivery.destinations import folder, ndjson
from reporting.delivery.destinations import hl7_mllp as hl7
from reporting.delivery.destinations import stow_rs as stow
from reporting.results import ResultKind
from tests.fakes import RecordingAudit
from tests.findings import make_smear_findings
from tests.listener.house import Shelf, make_dataset, make_house, receive

PLACES: dict[str, tuple[type, dict[str, Any]]] = {
    "dicom": (dicom.DicomDestination, {"ae_title": "PACS", "host": "pacs.example", "port": 104}),
    "stow": (stow.StowDestination, {"url": "https://archive.example/dicom-web"}),
    "fhir": (fhir.FhirDestination, {"url": "https://ehr.example/fhir"}),
    "folder": (folder.FolderDestination, {"path": "out"}),
    "hl7": (hl7.Hl7Destination, {"host": "lis.example", "port": 2575}),
}


def test_a_route_that_cannot_be_read_names_itself_and_the_place() -> None:
    settings = _settings("folder", route=[{"name": "odd", "when": "any_leukmic", "to": ["x"]}])

    with pytest.raises(Rejected, match=r"Route odd: .*any_leukemic"):
        parse_rules(settings.routes)


def test_results_and_settings_use_the_same_words() -> None:
    assert set(ALL_RESULT_KINDS) == {kind.value for kind in ResultKind}


@pytest.mark.parametrize("kind", list(PLACES))
def test_each_type_becomes_its_own_way_out_with_sensible_results(kind: str) -> None:
    (place,) = _settings(kind).destinations

    destination = make_destination(place)

    assert type(destination) is PLACES[kind][0]
    assert destination.name == "x"
    assert destination.kinds == SENSIBLE_KINDS[kind] != frozenset()


def test_named_results_replace_the_sensible_ones() -> None:
    (place,) = _settings("dicom", kinds=["gallery"]).destinations

    assert make_destination(place).kinds == {ResultKind.GALLERY}


def test_ndjson_is_a_folder_of_files(tmp_path: Path) -> None:
    table = {"name": "x", "type": "fhir", "mode": "ndjson", "folder": str(tmp_path)}
    (place,) = make_settings({"destination": [table]}).destinations

    assert type(make_destination(place)) is ndjson.NdjsonDestination


def test_the_retry_policy_reaches_the_queue() -> None:
    patience = {
        "concurrency": 3,
        "rate_per_minute": 12,
        "max_tries": 5,
        "first_delay_s": 1.5,
        "max_delay_s": 99.0,
        "commitment_timeout_s": 7.0,
        "pseudonymise": True,
    }
    (place,) = _settings("dicom", **patience).destinations

    queue = make_destination_queue(place)

    told = {name: getattr(queue, name) for name in patience if name != "pseudonymise"}
    assert told == {name: value for name, value in patience.items() if name != "pseudonymise"}
    assert queue.is_pseudonymous
    assert queue.queue == "deliver-x"


def test_destinations_keep_the_order_of_the_settings(tmp_path: Path) -> None:
    tables = [
        {"name": name, "type": "folder", "path": str(tmp_path / name)} for name in ("b", "a", "c")
    ]
    settings = make_settings({"destination": tables})

    assert [one.name for one in make_destination_queues(settings.destinations)] == ["b", "a", "c"]


def test_without_routes_every_destination_gets_every_smear(tmp_path: Path) -> None:
    image, header = _received(tmp_path)

    names = Routes((), ["a", "b"])(make_smear_findings(), header=header, image=image)

    assert names == ("a", "b")


def test_routes_ask_about_the_outcome_and_a_reload_replaces_them(tmp_path: Path) -> None:
    image, header = _received(tmp_path)
    smear = make_smear_findings()
    route = [{"name": "r", "when": "any_leukemic", "to": ["x"]}]
    routes = Routes(parse_rules(_settings("folder", route=route).routes), ["x", "y"])

    before = routes(smear, header=header, image=image)
    routes.replace((), ["y"])

    assert before == ("x",)
    assert routes(smear, header=header, image=image) == ("y",)


def _settings(kind: str, *, route: Any = (), **more: Any) -> Any:
    place = {"name": "x", "type": kind, **PLACES[kind][1], **more}
    return make_settings({"destination": [place], "route": list(route)})


def _received(root: Path) -> tuple[StoredInstance, Dataset]:
    house = make_house(root, audit=RecordingAudit())
    return receive(house.inbox, "1.2.3", 1), make_dataset("1.2.3", 1)


def test_each_destination_has_a_queue_of_its_own() -> None:
    queues = {DestinationQueue(destination=Shelf(name=name)).queue for name in ("pacs", "ehr")}

    assert queues == {delivery_queue("pacs"), delivery_queue("ehr")}
    assert len(queues) == 2
