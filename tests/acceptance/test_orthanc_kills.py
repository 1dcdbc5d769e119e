"""A real PACS gets every object once, however often the service that sends them is killed."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Self

import pytest

from tests.acceptance.killing import trial
from tests.acceptance.orthanc import ABSENT, AE_TITLE, REASON, Orthanc, running_orthanc

STEPS = range(45, 100, 9)
"""From the end of the start to the last delivery, as in test_kill.py."""

pytestmark = [pytest.mark.peers, pytest.mark.skipif(ABSENT, reason=REASON)]


class OrthancReceiver:
    """Orthanc, counted as `killing.CountingPacs` is; lives as long as the server around it."""

    def __init__(self, orthanc: Orthanc) -> None:
        self._orthanc = orthanc
        self.port = orthanc.dicom_port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def contents(self) -> dict[str, set[str]]:
        """By SOP Instance UID the instances that Orthanc keeps under it."""
        found: dict[str, set[str]] = defaultdict(set)
        for instance in self._orthanc.get("/instances?expand"):
            found[instance["MainDicomTags"]["SOPInstanceUID"]].add(instance["ID"])
        return found

    @property
    def stored(self) -> list[io.BytesIO]:
        return [io.BytesIO(self._orthanc.file(uid)) for uid in self.contents]


def test_orthanc_has_every_object_once_after_kills(tmp_path: Path) -> None:
    with (
        running_orthanc(tmp_path / "orthanc") as orthanc,
        trial(tmp_path, pacs=OrthancReceiver(orthanc)) as killing,
    ):
        killing.pacs_ae_title = AE_TITLE
        for step in STEPS:
            killing.die_at(step)

        verdict = killing.finish()

        print(verdict)
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert verdict.kills >= 3, "the trial was too gentle to show anything"
        assert orthanc.get("/statistics")["CountInstances"] == len(killing.pacs.contents) > 0
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()
