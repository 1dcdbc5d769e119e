"""Three PACS, of which one hangs, one refuses and one works: none delays another (law 6)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import evt

import listener.service as service
from config.model import Settings
from config.settings import make_settings
from listener.demo.mock_servers import LOOPBACK
from listener.service import Service
from listener.workflow.worker import WorkflowSettings
from tests.acceptance.killable import QuickAnalysis, QuickClassifier
from tests.acceptance.standins import FaultyPacs
from tests.builders import build_image
from tests.listener.house import until
from tests.listener.peers import store

SMEARS = 3
KINDS = ("presentation_state", "segmentation", "key_objects")
RESULTS = SMEARS * len(KINDS)
CANNOT_UNDERSTAND = 0xC000
ELEMENTS_DISCARDED = 0xB006
OUT_OF_RESOURCES = 0xA700


class HangingPacs(FaultyPacs):
    """Takes an association and the bytes, and answers nothing until `wake`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_hanging = threading.Event()
        self._awake = threading.Event()

    def on_store(self, event: evt.Event) -> int:
        self.is_hanging.set()
        self._awake.wait()
        return super().on_store(event)

    def wake(self) -> None:
        """Answer what hangs, and everything from now on."""
        self._awake.set()


@dataclass(frozen=True, kw_only=True)
class Site:
    """The real service and its three PACS."""

    running: Service
    hanging: HangingPacs
    refusing: FaultyPacs
    working: FaultyPacs

    def send_smears(self) -> None:
        images = [build_image(number=number, series=number) for number in range(1, SMEARS + 1)]
        assert self.running.dicom_port is not None
        answers: Sequence[Dataset] = store(self.running.dicom_port, *images)
        assert [answer.Status for answer in answers] == [0x0000] * SMEARS

    def parked(self) -> set[tuple[str, str]]:
        return {(one.destination, one.code) for one in self.running.status().parked}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(service, "load_classifier", lambda _, **__: QuickClassifier())
    monkeypatch.setattr(service, "ImageAnalysis", QuickAnalysis)
    monkeypatch.setattr(service, "WorkflowSettings", partial(WorkflowSettings, poll_s=0.05))
    with ExitStack() as stack:
        hanging = stack.enter_context(HangingPacs(tmp_path / "hanging"))
        refusing = stack.enter_context(
            FaultyPacs(tmp_path / "refusing", statuses=[CANNOT_UNDERSTAND] * 1000)
        )
        working = stack.enter_context(
            FaultyPacs(tmp_path / "working", statuses=[OUT_OF_RESOURCES, ELEMENTS_DISCARDED])
        )
        settings = _settings(tmp_path / "data", hanging=hanging, refusing=refusing, working=working)
        running = stack.enter_context(service.running(settings))
        # Before the service stops, so that nothing of it waits for a peer that never answers.
        stack.callback(hanging.wake)
        yield Site(running=running, hanging=hanging, refusing=refusing, working=working)


def test_one_hangs_one_refuses_and_the_third_has_everything(site: Site) -> None:
    site.send_smears()

    until(lambda: len(site.working.stored) == RESULTS)
    assert site.hanging.is_hanging.wait(600)
    assert site.hanging.stored == ()

    until(lambda: len(site.running.status().parked) == SMEARS)
    assert site.parked() == {("refusing", "results_refused")}
    assert site.refusing.stored == ()


def test_what_hung_gets_everything_once_it_answers(site: Site) -> None:
    site.send_smears()
    until(lambda: len(site.working.stored) == RESULTS)

    site.hanging.wake()

    until(lambda: len(site.hanging.stored) == RESULTS)
    assert {one.name for one in site.hanging.stored} == {one.name for one in site.working.stored}


def test_a_parked_delivery_goes_on_when_a_person_says_so(site: Site) -> None:
    site.send_smears()
    until(lambda: len(site.running.status().parked) == SMEARS)
    site.refusing.mend()

    site.running.workflow.client.retry_all()

    until(lambda: len(site.refusing.stored) == RESULTS)
    until(lambda: site.parked() == set())


def test_a_warning_is_success_with_a_note_in_the_audit_trail(site: Site, tmp_path: Path) -> None:
    site.send_smears()
    until(lambda: len(site.working.stored) == RESULTS)

    def notes() -> list[list[str]]:
        events = (
            json.loads(line)
            for file in (tmp_path / "data" / "audit").glob("audit-*.jsonl")
            for line in file.read_text("utf-8").splitlines(keepends=True)
            if line.endswith("\n")  # the last one may still be being written
        )
        return [one["statuses"] for one in map(_flat, events) if "statuses" in one]

    until(notes)
    assert notes() == [[f"0x{ELEMENTS_DISCARDED:04X}"]]


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its fields beside it, wherever the trail keeps them."""
    return {**event, **event.get("fields", {})}


def _settings(data_dir: Path, **pacs: FaultyPacs) -> Settings:
    return make_settings(
        {
            "service": {"data_dir": str(data_dir), "stop_grace_s": 5.0},
            "dicom": {"port": 0},
            "web": {"enabled": False},
            "smear": {"quiet_s": 0.0},
            "results": {"kinds": list(KINDS)},
            "retention": {"min_free_disk_mb": 0},
            "destination": [
                {
                    "type": "dicom",
                    "name": name,
                    "ae_title": "STANDIN",
                    "host": LOOPBACK,
                    "port": one.port,
                    "first_delay_s": 0.1,
                    "max_delay_s": 0.5,
                    "max_tries": 20,
                }
                for name, one in pacs.items()
            ],
        }
    )
