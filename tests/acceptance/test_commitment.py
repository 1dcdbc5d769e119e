"""Storage commitment between the whole service and a real Orthanc (PS3.4 Annex J)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

import listener.service as service
from listener.service import Service
from listener.storage.receipts import DeliveryState
from listener.workflow.worker import WorkflowSettings
from pipeline.domain import SmearId
from tests.acceptance.orthanc import (
    ABSENT,
    AE_TITLE,
    LOOPBACK,
    REASON,
    Orthanc,
    running_orthanc,
)
from tests.acceptance.serving import port_of, served, until
from tests.acceptance.standins import closed_port, free_ports
from tests.builders import build_image
from tests.listener.peers import store

pytestmark = [pytest.mark.peers, pytest.mark.skipif(ABSENT, reason=REASON)]

KINDS = ("structured_report", "gallery", "key_objects")
OURS = "SMEARLINK"
CONFIRMED = {DeliveryState.CONFIRMED}
Site = tuple[Service, Orthanc]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WorkflowSettings", partial(WorkflowSettings, poll_s=0.02))


def test_what_it_reports_on_an_association_of_its_own_settles_the_delivery(
    tmp_path: Path,
) -> None:
    with site(tmp_path, reaches_us=True) as (running, orthanc):
        image = build_image(number=1, series=1)

        store(port_of(running), image)

        lines = receipts(running, image.SeriesInstanceUID)
        until(lambda: len(lines()) == len(KINDS) and set(lines().values()) == CONFIRMED)
        assert orthanc.get("/statistics")["CountInstances"] == len(KINDS)
        until(lambda: running.status().is_idle)
        assert running.status().parked == ()


def test_when_it_cannot_reach_us_it_is_asked_again_and_then_a_person(tmp_path: Path) -> None:
    """Nothing is lost meanwhile: everything was stored, and waits visibly for a look."""
    with site(tmp_path, reaches_us=False) as (running, orthanc):
        image = build_image(number=1, series=1)

        store(port_of(running), image)

        until(lambda: running.status().parked)
        [parked] = running.status().parked
        assert (parked.destination, parked.code) == ("pacs", "commitment_overdue")
        states = receipts(running, image.SeriesInstanceUID)()
        assert set(states.values()) == {DeliveryState.AWAITING_COMMITMENT}
        assert orthanc.get("/statistics")["CountInstances"] == len(KINDS)


@contextmanager
def site(folder: Path, *, reaches_us: bool) -> Iterator[Site]:
    """The service with Orthanc as its one destination; an Orthanc that knows its port or not."""
    [our_port], dead_port = free_ports(1), closed_port()
    there = (OURS, LOOPBACK, our_port if reaches_us else dead_port)
    with ExitStack() as stack:
        orthanc = stack.enter_context(
            running_orthanc(folder / "orthanc", modalities={"smearlink": there})
        )
        pacs = {
            "name": "pacs",
            "type": "dicom",
            "ae_title": AE_TITLE,
            "host": LOOPBACK,
            "port": orthanc.dicom_port,
            "storage_commitment": True,
            "commitment_timeout_s": 60.0 if reaches_us else 1.0,
        }
        running = stack.enter_context(
            served(
                folder / "site",
                [pacs],
                dicom={"ae_title": OURS, "port": our_port},
                results={"kinds": list(KINDS)},
            )
        )
        yield running, orthanc


def receipts(running: Service, series_uid: str) -> Callable[[], dict[str, DeliveryState]]:
    """How the delivery of each result stands, by UID."""
    journal = running.store.results.smear(SmearId(series_uid)).receipts("pacs")
    return lambda: {uid: line.state for uid, line in journal.latest().items()}
