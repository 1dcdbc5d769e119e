"""What a worker sees to beside its work: the dead, the forgotten, its own lock, and old work."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from listener.queue.client import QueueClient
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import Job, close_job, image_job
from listener.queue.worker_lock import FileHold, FileLocks
from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.results import ResultsFolder
from listener.workflow import maintenance
from listener.workflow.maintenance import LOOKS_UNTIL_LOST, Maintenance, UpkeepTimes
from pipeline.domain import SmearId, SOPInstanceUID
from reporting.audit.trail import Event
from tests.fakes import RecordingAudit
from tests.listener.house import receive

SMEAR = SmearId("1.2.3")
LONG_AGO_MS = 1_000


@dataclass
class Bench:
    """An upkeep on real folders and a real queue; what it would requeue is only noted."""

    root: Path
    client: QueueClient
    inbox: Inbox
    locks: FileLocks
    hold: FileHold
    requeued: list[str] = field(default_factory=list)
    in_threads: set[str] = field(default_factory=set)
    audit: RecordingAudit = field(default_factory=RecordingAudit)

    def upkeep(self, monotonic: Callable[[], float] = time.monotonic) -> Maintenance:
        return Maintenance(
            client=self.client,
            inbox=self.inbox,
            results=ResultsFolder(self.root / "results", worker_id="w1"),
            lease=self.hold,
            locks=self.locks,
            running=self.running,
            requeue=self.requeue,
            requeue_of=self.requeue_of,
            retention=None,
            audit=self.audit,
            monotonic=monotonic,
        )

    def requeue_of(self, worker_id: str) -> None:
        self.requeued.append(worker_id)

    def requeue(self, job_id: str) -> None:
        self.requeued.append(job_id)

    def running(self) -> set[str]:
        return self.in_threads

    def change(self, job: Job, **columns: object) -> None:
        changes = ", ".join(f"{name} = ?" for name in columns)
        with closing(sqlite3.connect(self.root / "state.sqlite")) as connection, connection:
            connection.execute(
                f"UPDATE workflow_status SET {changes} WHERE workflow_uuid = ?",  # noqa: S608
                (*columns.values(), job.id),
            )

    def in_hand_of(self, worker_id: str, number: int) -> Job:
        job = image_job(SOPInstanceUID(f"{SMEAR}.{number}"), SMEAR)
        self.client.enqueue(job)
        self.change(job, status="PENDING", executor_id=worker_id)
        return job


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    inbox = Inbox(tmp_path / "inbox")
    client = QueueClient(url, inbox=inbox, gather_by="series")
    locks = FileLocks(tmp_path / "workers")
    hold = locks.try_take("w1")
    assert hold is not None
    yield Bench(root=tmp_path, client=client, inbox=inbox, locks=locks, hold=hold)
    client.close()


def test_the_work_of_the_dead_alone_is_taken_over(bench: Bench) -> None:
    living = bench.locks.try_take("living")
    assert living is not None
    for number, worker_id in enumerate(("w1", "living", "dead"), start=1):
        bench.in_hand_of(worker_id, number)

    taken = bench.upkeep().adopt_dead_workers()

    living.close()
    assert (taken, bench.requeued) == (1, ["dead"])
    assert bench.audit.events == [Event.WORKER_TAKEN_OVER]


def test_the_drafts_of_the_dead_are_swept(bench: Bench) -> None:
    """What it had half-written is nobody's."""
    draft = bench.root / "results" / "tmp" / "dead" / "draft"
    draft.mkdir(parents=True)
    bench.in_hand_of("dead", 1)

    bench.upkeep().adopt_dead_workers()

    assert not draft.exists()


def test_the_dead_one_s_name_is_free_again_afterwards(bench: Bench) -> None:
    bench.in_hand_of("dead", 1)

    bench.upkeep().adopt_dead_workers()

    assert bench.locks.try_take("dead") is not None


def test_claimed_work_that_no_thread_runs_is_queued_again(bench: Bench) -> None:
    """Only after a while, as all work is so for a moment; and only this worker's own."""
    lost, running, of_another = (
        bench.in_hand_of(worker_id, number)
        for number, worker_id in enumerate(("w1", "w1", "w2"), start=1)
    )
    bench.in_threads = {running.id}
    upkeep = bench.upkeep()

    rounds = [upkeep.requeue_orphans() for _ in range(LOOKS_UNTIL_LOST)]

    assert rounds == [0] * (LOOKS_UNTIL_LOST - 1) + [1]
    assert bench.requeued == [lost.id]
    assert of_another.id in bench.client.in_progress("w2")


def test_work_that_is_late_to_begin_is_left_alone(bench: Bench) -> None:
    late = bench.in_hand_of("w1", 1)
    upkeep = bench.upkeep()
    for _ in range(2):
        for _ in range(LOOKS_UNTIL_LOST - 1):
            upkeep.requeue_orphans()
        bench.in_threads = {late.id}
        upkeep.requeue_orphans()
        bench.in_threads = set()

    assert bench.requeued == []


def test_a_lost_lock_is_taken_again(bench: Bench) -> None:
    upkeep = bench.upkeep()
    bench.hold.close()

    upkeep.renew_lock()

    assert bench.locks.try_take("w1") is None


def test_an_image_that_the_queue_has_not_heard_of_is_asked_for_once(bench: Bench) -> None:
    upkeep = bench.upkeep()
    known, forgotten = (receive(bench.inbox, SMEAR, number) for number in (1, 2))
    bench.client.enqueue_image(known)

    rounds = [upkeep.reconcile(), upkeep.reconcile()]
    late = receive(bench.inbox, SMEAR, 3)
    rounds.append(upkeep.reconcile())

    assert rounds == [1, 0, 1]
    waiting = set(bench.client.unfinished_images(SMEAR))
    assert waiting == {one.sop_instance_uid for one in (known, forgotten, late)}


def test_an_image_that_went_and_came_again_is_asked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever chunks end; every other image is asked for once."""
    monkeypatch.setattr(maintenance, "_CHUNK", 2)
    asked: list[SOPInstanceUID] = []
    not_enqueued = bench.client.not_enqueued

    def note(images: Sequence[SOPInstanceUID]) -> list[SOPInstanceUID]:
        asked.extend(images)
        return not_enqueued(images)

    monkeypatch.setattr(bench.client, "not_enqueued", note)
    upkeep = bench.upkeep()
    uids = [receive(bench.inbox, SMEAR, number).sop_instance_uid for number in range(5)]
    upkeep.reconcile()
    asked_first = sorted(asked)
    bench.inbox.remove(uids[3])
    upkeep.reconcile()
    receive(bench.inbox, SMEAR, 3)
    upkeep.reconcile()

    assert asked_first == uids
    assert asked[5:] == [uids[3]]


class TestALargeInbox:
    """Listing it takes long, so that it is done where something may have been missed."""

    @pytest.fixture(autouse=True)
    def _long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As if each listing took an age."""
        monkeypatch.setattr(maintenance, "SHORT_LISTING_S", -1.0)
        monkeypatch.setattr(maintenance, "LISTING_SHARE", 1e-9)

    def test_one_at_rest_is_not_listed(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(maintenance, "LISTING_SHARE", 1e9)
        receive(bench.inbox, SMEAR, 1)
        os.utime(bench.root / "inbox" / "new", (1_000, 1_000))
        upkeep = bench.upkeep()
        first = upkeep.reconcile()
        monkeypatch.setattr(Inbox, "waiting", lambda _: pytest.fail("listed"))

        assert (first, upkeep.reconcile()) == (1, 0)

    def test_it_is_listed_again_after_a_while(self, bench: Bench) -> None:
        now = 0.0
        upkeep = bench.upkeep(lambda: now)
        upkeep.reconcile()
        receive(bench.inbox, SMEAR, 1)

        too_soon = upkeep.reconcile()
        now = 1e12

        assert (too_soon, upkeep.reconcile()) == (0, 1)

    def test_it_is_listed_at_once_when_an_image_was_not_enqueued(self, bench: Bench) -> None:
        upkeep = bench.upkeep()
        upkeep.reconcile()
        receive(bench.inbox, SMEAR, 1)

        upkeep.note_missed()

        assert upkeep.reconcile() == 1

    def test_it_is_listed_at_once_when_a_worker_has_died(self, bench: Bench) -> None:
        upkeep = bench.upkeep()
        upkeep.reconcile()
        receive(bench.inbox, SMEAR, 2)
        bench.in_hand_of("dead", 1)

        upkeep.adopt_dead_workers()

        assert upkeep.reconcile() == 1

    def test_it_is_listed_at_once_after_a_sweep_and_after_a_failure(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upkeep = bench.upkeep()
        upkeep.reconcile()
        receive(bench.inbox, SMEAR, 1)
        upkeep.sweep()
        with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
            broken.setattr(bench.client, "not_enqueued", lambda _: 1 / 0)
            upkeep.reconcile()

        assert upkeep.reconcile() == 1


def receive_more_than_one_comparison(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images, of which one is compared at a time."""
    monkeypatch.setattr(maintenance, "_CHUNK", 1)
    for number in (1, 2, 3):
        receive(bench.inbox, SMEAR, number)


def test_a_stop_does_not_wait_until_a_large_inbox_is_compared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_more_than_one_comparison(bench, monkeypatch)
    stopping = threading.Event()
    enqueue = bench.client.enqueue_image

    def enqueue_and_stop(*images: StoredInstance) -> None:
        enqueue(*images)
        stopping.set()

    monkeypatch.setattr(bench.client, "enqueue_image", enqueue_and_stop)

    bench.upkeep().run(UpkeepTimes(), stopping)

    assert len(list(bench.client.unfinished_images(SMEAR))) == 1


def test_a_dead_worker_does_not_wait_until_a_large_inbox_is_compared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_more_than_one_comparison(bench, monkeypatch)
    stopping = threading.Event()
    enqueue = bench.client.enqueue_image
    requeued_before: list[list[str]] = []

    def enqueue_beside_a_death(*images: StoredInstance) -> None:
        enqueue(*images)
        requeued_before.append([*bench.requeued])
        if len(requeued_before) == 1:
            bench.in_hand_of("dead", 9)
        elif len(requeued_before) == 3:
            stopping.set()

    monkeypatch.setattr(bench.client, "enqueue_image", enqueue_beside_a_death)

    bench.upkeep().run(UpkeepTimes(takeover_s=0.0), stopping)

    assert requeued_before[0] == []
    assert requeued_before[2][:1] == ["dead"]


def test_a_sweep_forgets_finished_work_only_after_its_time(bench: Bench) -> None:
    old, young, parked, waiting = (
        close_job(SMEAR, trigger=name, known=None) for name in ("old", "young", "parked", "waiting")
    )
    for job, state in ((old, "SUCCESS"), (young, "SUCCESS"), (parked, "ERROR"), (waiting, None)):
        bench.client.enqueue(job)
        if state:
            bench.change(job, status=state)
        if job is not young:
            bench.change(job, created_at=LONG_AGO_MS, updated_at=LONG_AGO_MS)

    bench.upkeep().sweep()

    left = {row.id for row in bench.client.rows_beginning("close:")}
    assert left == {young.id, parked.id, waiting.id}


def test_a_duty_that_fails_keeps_no_other_from_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = bench.upkeep()
    stopping = threading.Event()
    receive(bench.inbox, SMEAR, 1)
    monkeypatch.setattr(upkeep, "renew_lock", lambda: 1 / 0)
    monkeypatch.setattr(upkeep, "sweep", stopping.set)

    upkeep.run(UpkeepTimes(), stopping)

    assert list(bench.client.unfinished_images(SMEAR)) == [f"{SMEAR}.1"]
