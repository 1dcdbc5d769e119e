"""The real service in this process, on a model of a few kilobytes: for whole paths in tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.settings import make_settings
from listener import service
from listener.service import Service
from listener.storage.smear_grouping import smear_id_of
from listener.workflow.worker import WorkflowSettings
from reporting.audit.trail import public_path, read_public_key, verify_trail
from tests.tiny_model import write_tiny_model

POLL_S = 0.1
"""How often the queue is looked at, and this test looks itself."""

PATIENCE_S = 600.0
"""How long a test waits for what must come; only a failing test waits so long."""


@contextmanager
def served(
    root: Path, destinations: Sequence[Mapping[str, Any]] = (), **sections: Mapping[str, Any]
) -> Iterator[Service]:
    """A service that listens for DICOM, from its start to its orderly end."""
    settings: dict[str, Any] = {
        "service": {"data_dir": str(root / "data"), "stop_grace_s": 10.0},
        "dicom": {"port": 0},
        "web": {"enabled": False},
        "smear": {"quiet_s": 0.0},
        "model": {"folder": str(write_tiny_model(root / "model")), "threads": 1},
        "results": {"kinds": ["annotated_field", "fhir_bundle"]},
        "retention": {"min_free_disk_mb": 0},
        "destination": [*destinations],
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section}
    hurried = partial(WorkflowSettings, poll_s=POLL_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "WorkflowSettings", hurried)
        with service.running(make_settings(settings)) as running:
            yield running


def port_of(running: Service) -> int:
    """Where it listens."""
    assert running.dicom_port is not None
    return running.dicom_port


def until_idle(running: Service) -> None:
    """Come back when nothing waits, nothing is in work and every waiting image was settled."""
    until(lambda: running.status().is_idle and not _unsettled(running))


def until(is_so: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up, "it never came to be so"
        time.sleep(POLL_S)


def parked_images(running: Service) -> dict[str, str]:
    """What `smearlink status` shows of images that were set aside: UID and code."""
    parked = running.status().parked
    return {one.sop_instance_uid: one.code for one in parked if one.kind == "image"}


def parked_deliveries(running: Service) -> dict[str, str]:
    """Destinations that did not take their results, and why."""
    parked = running.status().parked
    return {one.destination: one.code for one in parked if one.kind == "delivery"}


def trail_text(root: Path) -> str:
    """Everything that was audited, after the trail was found whole."""
    folder = root / "data" / "audit"
    key = read_public_key(public_path(root / "data" / "audit.key"))
    problems = verify_trail(folder, key).problems
    # While a service writes, the end of a line may have come since.
    assert problems == () or verify_trail(folder, key).problems == ()
    return "".join(path.read_text() for path in sorted(folder.rglob("*.jsonl")))


def _unsettled(running: Service) -> list[str]:
    """Images in the inbox that no queue has seen yet, and no report names."""
    inbox, results = running.store.inbox, running.store.results
    waiting = list(inbox.waiting())
    return [
        uid
        for uid in waiting
        if not results.smear(smear_id_of(inbox.facts(uid), "series")).has_fields(uid)
    ]
