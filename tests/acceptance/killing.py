"""A trial by killing: images flow into a service that dies again and again; then all is counted."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE

import listener.workflow.image_workers as image_workers
from listener.demo.mock_servers import StandInFhir
from listener.storage.receipts import DeliveryState
from listener.storage.results import ReportIndex, ResultsFolder, SmearFolder
from pipeline.domain import SmearId
from reporting.audit.trail import public_path, read_events, read_public_key, verify_trail
from reporting.delivery.transport.pynetdicom_fixes import fix_reactor_pause
from reporting.results import DICOM_KINDS, ResultKind
from tests.acceptance.counting_peers import CountingPacs, EveryPeer
from tests.acceptance.killable import Life, live
from tests.builders import build_image

PATIENCE_S = 600.0
"""How long a test waits for what must come; only a failing test waits so long."""

IMAGES_A_SERIES = 3
DRAFT = re.compile("[0-9a-f]{32}")
"""The name of a file that is still being written."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.acceptance.killable"])


class OutOfPatience(AssertionError):
    """Something did not come to be so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of all acknowledged images."""

    images: int
    kills: int
    lost: int
    duplicated: int

    def __str__(self) -> str:
        return (
            f"images {self.images}, kills {self.kills}, "
            f"lost {self.lost}, duplicated {self.duplicated}"
        )


class Running:
    """One life of the service, seen from outside."""

    def __init__(self, life: Life) -> None:
        self._wire, there = _processes.Pipe()
        self._process: ForkServerProcess = _processes.Process(
            target=live, args=(life, there), daemon=True
        )
        self._process.start()
        there.close()
        self.port: int | None = None

    def is_up(self) -> bool:
        """Wait until it serves; False when it died on the way."""
        with suppress(EOFError, ConnectionResetError):
            self.port = self._wire.recv()
        return self.port is not None

    def ask(self, question: str) -> Any:
        """Its answer, or None when it is dead."""
        with suppress(EOFError, OSError):
            self._wire.send(question)
            return self._wire.recv()
        return None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.wait()

    def kill_if(self, is_so: Callable[[], object]) -> bool:
        """kill -9 if something is so while the process stands still; else let it go on."""
        os.kill(self.pid, signal.SIGSTOP)
        if is_so():
            self.kill()
            return True
        os.kill(self.pid, signal.SIGCONT)
        return False

    def stop(self) -> None:
        """A graceful stop."""
        self.ask("stop")
        self.wait()

    def wait(self) -> None:
        """Until the process is gone."""
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None, "the service does not end"
        self._wire.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        return not self._process.is_alive()


@dataclass
class Trial:
    """A data folder, two receivers that outlive every service, and what was acknowledged."""

    root: Path
    pacs: CountingPacs
    fhir: StandInFhir
    database_url: str = ""
    pacs_ae_title: str = "STANDIN"
    everyone: EveryPeer | None = None
    """Receivers of every other kind too; then `pacs` is the one that reports on commitment."""
    most_starts: int = image_workers.MOST_STARTS
    """Of one image; more where a trial kills so often that an innocent one would be given up."""
    kills: int = 0
    acknowledged: list[Dataset] = field(default_factory=list)
    _number: int = 0
    _lives: list[Running] = field(default_factory=list)

    def start(self, **changed: Any) -> Running:
        """A run of the service on this folder; the end of the trial ends it at the latest."""
        running = Running(self.life(**changed))
        self._lives.append(running)
        return running

    def end_lives(self) -> None:
        """Kill what still runs, as after a test that failed."""
        for running in self._lives:
            if not running.is_dead:
                running.kill()

    def life(self, **changed: Any) -> Life:
        """What `start` starts."""
        life = Life(
            data_dir=self.root / "data",
            pacs_port=self.pacs.port,
            pacs_ae_title=self.pacs_ae_title,
            fhir_url=self.fhir.url,
            database_url=self.database_url,
            most_starts=self.most_starts,
        )
        if self.everyone is not None:
            life = replace(
                life,
                has_commitment=True,
                more_destinations=tuple(one.destination for one in self.everyone.others),
                syslog=self.everyone.syslog,
            )
        return replace(life, **changed)

    def port(self) -> int | None:
        """Where the service of this moment listens, if it does."""
        return self._lives[-1].port if self._lives else None

    def send(self, port: int | None) -> bool:
        """Send the next image by C-STORE; True when it was answered with Success.

        Without that it is sent again next time, as a device would.
        """
        image = build_image(number=self._number + 1, series=1 + self._number // IMAGES_A_SERIES)
        if port is None or not is_stored(image, port):
            return False
        self.acknowledged.append(image)
        self._number += 1
        return True

    def die_at(self, kill_at: int, **changed: Any) -> bool:
        """One life with an image in it; False when it ended before step `kill_at`."""
        running = self.start(kill_at=kill_at, **changed)
        if running.is_up() and self.send(running.port):
            until(lambda: running.is_dead or self._is_done(running))
        is_killed = running.is_dead or running.ask("status") is None
        if is_killed:
            running.wait()
            self.kills += 1
        else:
            running.stop()
        return is_killed

    def die_after(self, delay_s: float) -> None:
        """One life with an image flowing in, killed from outside some time after it is up."""
        running = self.start()
        assert running.is_up()
        end = threading.Timer(delay_s, running.kill)
        end.start()
        self.send(running.port)
        end.join()
        self.kills += 1

    def die_before_the_report(self) -> None:
        """One life, killed when it has requested storage commitment and heard nothing yet.

        Returns when the report on it has met the dead service.
        """
        assert self.everyone is not None
        pacs = self.everyone.pacs
        requests, in_vain = pacs.requests, pacs.tried_in_vain
        running = self.start()
        with pacs.holding():
            assert running.is_up()
            until(lambda: self.send(running.port))
            until(lambda: pacs.requests > requests)
            running.kill()
        self.kills += 1
        until(lambda: pacs.tried_in_vain > in_vain)

    def finish(self) -> Verdict:
        """One more life, unharmed, until nothing is left to do or nothing more comes."""
        running = self.start()
        assert running.is_up()
        before = len(self.acknowledged) + 1
        while (lost := self.lost()) < before:
            before = lost
            with suppress(OutOfPatience):  # then the count says how bad it is
                until(lambda left=lost: self._is_done(running) or self.lost() < left)
        with suppress(OutOfPatience):
            until(lambda: self._is_done(running))
        running.stop()
        return self.verdict()

    def verdict(self) -> Verdict:
        """Count what is not where it must be, and what is there more often than once."""
        return Verdict(
            images=len(self.acknowledged),
            kills=self.kills,
            lost=self.lost(),
            duplicated=self._duplicated(),
        )

    def lost(self) -> int:
        """Acknowledged images whose results are not where they must be."""
        return sum(not self._has_arrived(image) for image in self.acknowledged)

    def leftovers(self) -> list[Path]:
        """Files that a dead process left half-made."""
        data = self.root / "data"
        drafts = [
            *(data / "inbox" / "tmp").rglob("*"),
            *(data / "results" / "tmp").rglob("*"),
            *data.glob(".*"),
            *data.glob("*.tmp/*"),
            *(path for path in data.glob("*") if DRAFT.fullmatch(path.name)),
        ]
        return [path for path in drafts if path.is_file()]

    def audit_problems(self) -> tuple[Any, ...]:
        """What the verification of the audit trail finds wrong."""
        key = read_public_key(public_path(self.root / "data" / "audit.key"))
        return verify_trail(self.root / "data" / "audit", key).problems

    def _is_done(self, running: Running) -> bool:
        answer = running.ask("status")
        if answer is None:
            return True
        is_idle, parked = answer
        assert not parked, f"parked: {parked}"
        return is_idle and self.lost() == 0

    def _has_arrived(self, image: Dataset) -> bool:
        smear = self._results.smear(SmearId(image.SeriesInstanceUID))
        latest = smear.latest()
        if latest is None or image.SOPInstanceUID not in latest.sources:
            return False
        objects = [one.uid for one in latest.results if one.kind in DICOM_KINDS]
        bundles = [one for one in latest.results if one.kind is ResultKind.FHIR_BUNDLE]
        return (
            all(uid in self.pacs.contents for uid in objects)
            and all(
                self._is_filed(json.loads(smear.read(latest.version, one).content))
                for one in bundles
            )
            and (self.everyone is None or self._is_everywhere(smear, latest, objects))
        )

    def _is_everywhere(
        self, smear: SmearFolder, latest: ReportIndex, objects: Sequence[str]
    ) -> bool:
        """Whether every other receiver has its part, and the PACS has committed to its own."""
        assert self.everyone is not None
        states = {uid: line.state for uid, line in smear.receipts("pacs").latest().items()}
        is_committed = all(states.get(uid) is DeliveryState.CONFIRMED for uid in objects)
        return is_committed and all(
            peer.has(smear.read(latest.version, one))
            for peer in self.everyone.others
            for one in latest.results
            if one.kind in peer.kinds
        )

    def not_forwarded(self) -> int:
        """Events of the trail that the audit repository never received."""
        assert self.everyone is not None
        trail = {event["hash"] for event in read_events(self.root / "data" / "audit")}
        assert trail, "nothing was audited"
        return len(trail - self.everyone.forwarded())

    def open_commitments(self) -> int:
        """Storage commitment requests that nobody waits for: their delivery asked again."""
        folder = self.root / "data" / "commitments"
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    def _reports(self) -> list[ReportIndex]:
        """Every version of every smear."""
        folders = [self._results.smear(smear) for smear in self._results.smears()]
        latest = [(folder, folder.latest()) for folder in folders]
        return [
            folder.index(version)
            for folder, last in latest
            if last is not None
            for version in range(1, last.version + 1)
        ]

    def _is_filed(self, bundle: Mapping[str, Any]) -> bool:
        entries = {entry["request"]["url"]: entry["resource"] for entry in bundle["entry"]}
        return all(
            self.fhir.versions.get(url, [None])[-1] == resource for url, resource in entries.items()
        )

    def _duplicated(self) -> int:
        two_contents = sum(len(contents) > 1 for contents in self.pacs.contents.values())
        series = {str(image.SeriesInstanceUID) for image in self.acknowledged}
        reports = [url for url in self.fhir.versions if url.startswith("DiagnosticReport/")]
        pictures: dict[tuple[str, str], int] = defaultdict(int)
        for path in self.pacs.stored:
            stored = dcmread(path, stop_before_pixels=True)
            if "SourceImageSequence" in stored:
                # Each version of a report shows a field once, in a series of its own.
                source = stored.SourceImageSequence[0].ReferencedSOPInstanceUID
                pictures[stored.SeriesInstanceUID, source] += 1
        found = {
            "objects with two contents": two_contents,
            "FHIR reports": max(0, len(reports) - len(series)),
            "pictures": sum(shown - 1 for shown in pictures.values()),
            **self._duplicated_elsewhere(),
        }
        if any(found.values()):
            print(f"duplicated: {found}")
        return sum(found.values())

    def _duplicated_elsewhere(self) -> dict[str, int]:
        if self.everyone is None:
            return {}
        made = self._reports()
        return {
            str(peer.destination["name"]): peer.duplicated(made) for peer in self.everyone.others
        }

    @property
    def _results(self) -> ResultsFolder:
        return ResultsFolder(self.root / "data" / "results", worker_id="counting")


@contextmanager
def trial(
    root: Path,
    *,
    database_url: str = "",
    pacs: CountingPacs | None = None,
    everyone: EveryPeer | None = None,
) -> Iterator[Trial]:
    """A trial with its receivers running; `pacs` if a counting one that is well will not do.

    `everyone` are receivers of every kind, among them the PACS.
    """
    pacs = everyone.pacs if everyone is not None else pacs or CountingPacs(root / "pacs")
    with pacs, StandInFhir() as fhir:
        killing = Trial(
            root=root, pacs=pacs, fhir=fhir, database_url=database_url, everyone=everyone
        )
        if everyone is not None:
            everyone.pacs.port_of_service = killing.port
        try:
            yield killing
        finally:
            killing.end_lives()


def is_stored(image: Dataset, port: int) -> bool:
    """Send one image by C-STORE; True when it was answered with Success."""
    return status_of_store(image, port) == 0x0000


def status_of_store(image: Dataset, port: int) -> int | None:
    """The status that C-STORE was answered with, or None without an answer."""
    entity = AE(ae_title="DEVICE")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="SMEARLINK")
    if not association.is_established:
        return None
    fix_reactor_pause(association)
    with suppress(RuntimeError, ValueError, OSError):
        response = association.send_c_store(image)
        if association.is_established:
            association.release()
        return int(response.Status) if "Status" in response else None
    return None


def until(is_so: Callable[[], object]) -> None:
    """Come back when other processes have made something so."""
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > give_up:
            raise OutOfPatience("it never came to be so")
        time.sleep(0.1)
