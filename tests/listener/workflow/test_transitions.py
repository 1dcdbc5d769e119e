"""Whatever is killed, whenever: an accepted image is reported and delivered, once as seen outside.

The real steps run on real folders; only the queue is in memory, so that hypothesis can choose
every order of events and kill the worker at every moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.queue.dbos_adapter import QueueRow
from listener.queue.jobs import (
    ClaimedImage,
    CommitmentWait,
    DeliveryAttempt,
    Job,
    JobKind,
    close_job,
    image_job,
    image_of,
)
from listener.queue.parked import retry_job
from listener.storage.receipts import DeliveryState, ReceiptLine
from listener.storage.smear_grouping import smear_id_of
from listener.workflow.transitions import Transitions
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import NeedsReview, SmearlinkError
from reporting.audit.trail import Event
from reporting.delivery import (
    CommitmentReport,
    DeliveryPostponed,
    DeliveryRefused,
    Receipt,
    Refusal,
)
from reporting.results import ResultKind
from tests.fakes import RecordingAudit
from tests.listener.house import BAD_SERIES, Shelf, WorkflowSite, make_house, receive

SERIES = "1.2.3.4"


class Killed(BaseException):
    """The process is gone from here on."""


class TurnedQueue:
    """A durable queue in memory: jobs by id, each done once, delays left to the test's order."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.unfinished: list[str] = []
        self.parked: dict[str, SmearlinkError] = {}
        self.kill_in: int | None = None
        self._batches = 0

    def enqueue(self, *jobs: Job) -> None:
        self._maybe_die()
        self._add(jobs)
        self._maybe_die()

    def _add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.id not in self.jobs:
                self.jobs[job.id] = job
                self.unfinished.append(job.id)

    def unfinished_images(self, smear_id: SmearId) -> Iterator[SOPInstanceUID]:
        return (
            image_of(job_id)
            for job_id in self.unfinished
            if self.jobs[job_id].smear_id == smear_id and job_id.startswith("image:")
        )

    def drop_parked_deliveries(self, smear_id: SmearId, destination: str, *, below: int) -> None:
        for job_id in list(self.parked):
            if job_id.startswith(f"deliver:{destination}:{smear_id}:"):
                go = DeliveryAttempt.of(self.jobs[job_id].arguments)
                if go.version < below:
                    del self.parked[job_id]

    def run(self, flow: Transitions, job_id: str) -> None:
        """Run one job; a kill leaves it unfinished, as a dead worker's job is."""
        job = self.jobs[job_id]
        functions = {
            JobKind.ANALYSE_IMAGE: lambda: self.run_batch(flow, [job_id]),
            JobKind.CLOSE_SMEAR: lambda: flow.close_smear(*job.arguments),  # type: ignore[arg-type]
            JobKind.DELIVER: lambda: flow.deliver(DeliveryAttempt.of(job.arguments)),
            JobKind.CHECK_COMMITMENT: lambda: flow.check_commitment(
                CommitmentWait.of(job.arguments)
            ),
        }
        try:
            functions[job.kind]()
            self._maybe_die()
        except Killed:
            self.kill_in = None
            return
        except SmearlinkError as err:
            self.parked[job_id] = err
        if job_id in self.unfinished:
            self.unfinished.remove(job_id)

    def run_batch(self, flow: Transitions, job_ids: Sequence[str]) -> None:
        """Analyse images together; what follows comes with their end, or neither does."""
        done: list[ClaimedImage] = []
        retries: list[Job] = []
        for job_id in job_ids:
            self._maybe_die()
            claimed = claimed_image(self.jobs[job_id])
            if (retry := flow.analyse_image(claimed)) is None:
                done.append(claimed)
            else:
                retries.append(retry)
        self._batches += 1
        closes = flow.close_after(done, batch_id=str(self._batches))
        self._maybe_die()
        self.unfinished = [job_id for job_id in self.unfinished if job_id not in job_ids]
        self._add([*retries, *closes])

    def close_of(self, batch: int) -> str:
        """The job that reports the smear of the images of a batch."""
        return f"close:{SERIES}:batch-{batch}"

    def run_all(self, flow: Transitions) -> None:
        """Run in order until nothing is left."""
        while self.unfinished:
            self.run(flow, self.unfinished[0])

    def _maybe_die(self) -> None:
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                raise Killed


def claimed_image(job: Job) -> ClaimedImage:
    """As a worker claims it for the first time."""
    image, smear_id, attempt = job.arguments
    return ClaimedImage(
        job_id=job.id,
        image=SOPInstanceUID(str(image)),
        smear_id=SmearId(str(smear_id)),
        attempt=int(attempt or 1),
        starts=1,
    )


def make_flow(house: WorkflowSite, queue: TurnedQueue) -> Transitions:
    return Transitions(
        images=house.images,
        reports=house.reports,
        sender=house.sender,
        destinations=house.destinations,
        queue=queue,
        audit=house.audit,
        quiet_s=10.0,
        jitter=lambda: 0.0,
    )


def bring(house: WorkflowSite, queue: TurnedQueue, number: int, series: str = SERIES) -> None:
    image = receive(house.inbox, series, number)
    queue.enqueue(image_job(image.sop_instance_uid, smear_id_of(image, "series")))


@pytest.fixture
def pacs() -> Shelf:
    return Shelf()


@pytest.fixture
def house(tmp_path: Path, pacs: Shelf) -> WorkflowSite:
    return make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])


@pytest.fixture
def queue() -> TurnedQueue:
    return TurnedQueue()


@pytest.fixture
def flow(house: WorkflowSite, queue: TurnedQueue) -> Transitions:
    return make_flow(house, queue)


def versions(house: WorkflowSite, series: str = SERIES) -> int:
    latest = house.results.smear(SmearId(series)).latest()
    return latest.version if latest else 0


@settings(max_examples=60)
@given(data=st.data())
def test_every_image_is_reported_and_delivered_whatever_is_killed(data: st.DataObject) -> None:
    """Any arrival order, any queue order, any kills, any refusals that pass."""
    with TemporaryDirectory() as folder:
        troubles: list[Exception] = [
            DeliveryPostponed("away", code="connection_refused")
            for _ in range(data.draw(st.integers(0, 2), label="troubles"))
        ]
        shelf, ehr = Shelf(troubles=troubles), Shelf(name="ehr")
        house = make_house(Path(folder), audit=RecordingAudit(), destinations=[shelf, ehr])
        queue = TurnedQueue()
        to_come = [
            (number, series)
            for series in (SERIES, "1.2.3.5")
            for number in range(data.draw(st.integers(1, 3), label="images"))
        ]
        while to_come or queue.unfinished:
            if to_come and (not queue.unfinished or data.draw(st.booleans(), label="arrives")):
                bring(house, queue, *to_come.pop(0))
                continue
            job_id = data.draw(st.sampled_from(queue.unfinished), label="job")
            queue.kill_in = data.draw(st.one_of(st.none(), st.integers(0, 4)), label="kill")
            flow = make_flow(house, queue)
            if job_id.startswith("image:"):
                images = [one for one in queue.unfinished if one.startswith("image:")]
                batch = data.draw(st.lists(st.sampled_from(images), unique=True), label="batch")
                with suppress(Killed):
                    queue.run_batch(flow, list(dict.fromkeys([job_id, *batch])))
            else:
                queue.run(flow, job_id)
            queue.kill_in = None

        assert not queue.parked
        for series in (SERIES, "1.2.3.5"):
            folder_of = house.results.smear(SmearId(series))
            latest = folder_of.latest()
            assert latest is not None
            assert set(latest.sources) == folder_of.analysed() == set(_waiting(house, series))
            for destination in (shelf, ehr):
                for result in latest.results:
                    assert (
                        destination.arrived[result.uid][-1]
                        == folder_of.read(latest.version, result).content
                    )
        for destination in (shelf, ehr):
            for contents in destination.arrived.values():
                immutable = {content for content in contents if not content.startswith(b"bundle")}
                assert len(immutable) <= 1, "one UID was sent with two contents"


def _waiting(house: WorkflowSite, series: str) -> list[str]:
    return [image for image in house.inbox.waiting() if image.startswith(f"{series}.")]


def test_an_image_that_breaks_a_rule_is_parked_and_its_smear_goes_on(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions
) -> None:
    bring(house, queue, 1, BAD_SERIES)
    bring(house, queue, 1)

    queue.run_all(flow)

    assert list(house.inbox.parked()) == [(f"{BAD_SERIES}.1", "decode_failed")]
    assert (versions(house), versions(house, BAD_SERIES)) == (1, 0)


def test_a_smear_waits_for_images_that_are_still_queued(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions
) -> None:
    bring(house, queue, 1)
    bring(house, queue, 2)
    queue.run(flow, f"image:{SERIES}.1")

    queue.run(flow, queue.close_of(1))

    assert versions(house) == 0


def test_a_parked_image_does_not_hold_its_smear_up(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions
) -> None:
    bring(house, queue, 1)
    bring(house, queue, 2)
    queue.run(flow, f"image:{SERIES}.1")
    house.inbox.park(f"{SERIES}.2", "decode_failed")

    queue.run(flow, queue.close_of(1))

    assert versions(house) == 1


def test_a_late_image_amends_the_report_and_leaves_its_first_objects_as_they_were(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    bring(house, queue, 1)
    queue.run_all(flow)
    first = house.results.smear(SmearId(SERIES)).latest()
    assert first is not None

    bring(house, queue, 2)
    queue.run_all(flow)

    second = house.results.smear(SmearId(SERIES)).latest()
    assert second is not None
    assert second.version == 2
    field = next(r for r in first.results if r.kind is ResultKind.ANNOTATED_FIELD)
    assert field in second.results
    assert len(pacs.arrived[field.uid]) == 1


def test_an_older_version_never_overtakes_its_amendment(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    bring(house, queue, 1)
    queue.run(flow, f"image:{SERIES}.1")
    queue.run(flow, queue.close_of(1))
    bring(house, queue, 2)
    queue.run(flow, f"image:{SERIES}.2")
    queue.run(flow, queue.close_of(2))

    queue.run(flow, f"deliver:pacs:{SERIES}:v2:0.1")
    queue.run(flow, f"deliver:pacs:{SERIES}:v1:0.1")

    bundles = [c for contents in pacs.arrived.values() for c in contents if b"bundle" in c]
    assert bundles == [b"bundle v2 of 2"]


def test_a_destination_that_stays_away_is_parked_after_its_tries(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.troubles = [DeliveryPostponed("away", code="connection_refused")] * 9
    bring(house, queue, 1)

    queue.run_all(flow)

    assert pacs.attempts == 3
    assert [(err.code, type(err)) for err in queue.parked.values()] == [
        ("connection_refused", NeedsReview)
    ]
    audit = house.audit
    assert isinstance(audit, RecordingAudit)
    assert len(audit.of(Event.DELIVERY_POSTPONED)) == 2
    assert len(audit.of(Event.DELIVERY_PARKED)) == 1


def test_a_postponed_delivery_is_queued_with_its_reason(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.troubles = [DeliveryPostponed("pacs is away.", code="peer_unreachable")]
    bring(house, queue, 1)

    queue.run_all(flow)

    reasons = [job.delay_reason for job in queue.jobs.values() if job.kind is JobKind.DELIVER]
    assert reasons == ["", "peer_unreachable: pacs is away."]


def test_a_refusal_is_parked_at_once_and_what_was_taken_is_not_sent_again(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    bring(house, queue, 1)
    queue.run(flow, f"image:{SERIES}.1")
    queue.run(flow, queue.close_of(1))
    latest = house.results.smear(SmearId(SERIES)).latest()
    assert latest is not None
    taken = latest.results[0]
    refusal = Refusal(uid=latest.results[1].uid, status="0xA900", reason="no such class")
    pacs.troubles = [
        DeliveryRefused("refused", code="refused", receipt=_receipt(taken.uid), refused=(refusal,))
    ]

    queue.run_all(flow)
    again = DeliveryAttempt(smear_id=SmearId(SERIES), version=1, destination="pacs", series=1)
    flow.deliver(again)

    assert [err.code for err in queue.parked.values()] == ["refused"]
    assert taken.uid not in pacs.arrived
    assert len(pacs.arrived) == len(latest.results) - 1


def _receipt(uid: str) -> Receipt:
    return Receipt(accepted=(uid,))


def test_a_delivered_amendment_clears_the_parked_delivery_of_the_version_before(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.troubles = [DeliveryRefused("refused", code="refused")]
    bring(house, queue, 1)
    queue.run_all(flow)
    assert queue.parked

    bring(house, queue, 2)
    queue.run_all(flow)

    assert not queue.parked


def test_a_wished_close_comes_back_until_the_images_are_analysed(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions
) -> None:
    bring(house, queue, 1)
    queue.enqueue(close_job(SmearId(SERIES), trigger="wish-1", known=None))

    queue.run(flow, f"close:{SERIES}:wish-1")
    queue.run(flow, f"image:{SERIES}.1")
    queue.run(flow, f"close:{SERIES}:wish-1:2")

    assert versions(house) == 1


def test_a_conflict_that_never_passes_is_parked_as_such_and_a_retry_brings_it_home(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.troubles = [
        DeliveryPostponed(
            "it was deleted there", code="fhir_conflict", parked_as="fhir_conflict_persists"
        )
    ] * 3
    bring(house, queue, 1)
    queue.run_all(flow)
    ((job_id, err),) = queue.parked.items()

    assert err.code == "fhir_conflict_persists"
    assert "it was deleted there" in str(err)
    queue.enqueue(retry_job(_row_of(queue.jobs[job_id])))
    queue.run_all(flow)

    assert len(pacs.arrived) == 3
    assert set(_states(house).values()) == {DeliveryState.CONFIRMED}


def test_a_destination_that_takes_one_object_an_attempt_is_not_given_up(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    """It hangs up after each object, and every attempt brings the delivery further."""
    pacs.most_at_once = 1
    for number in range(1, 9):
        bring(house, queue, number)

    queue.run_all(flow)

    assert not queue.parked
    assert len(pacs.arrived) == 10
    assert pacs.attempts > 5
    assert set(_states(house).values()) == {DeliveryState.CONFIRMED}


def test_tries_are_counted_again_from_the_last_object_that_arrived(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.most_at_once = 1
    pacs.troubles = [
        DeliveryPostponed("away", code="peer_unreachable"),
        DeliveryPostponed("away", code="peer_unreachable"),
    ]
    bring(house, queue, 1)

    queue.run_all(flow)
    assert not queue.parked
    pacs.troubles = [DeliveryPostponed("away", code="peer_unreachable")] * 3
    bring(house, queue, 2)
    queue.run_all(flow)

    assert [err.code for err in queue.parked.values()] == ["peer_unreachable"]


def test_a_commitment_report_settles_the_delivery(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    _report(house, pacs, *pacs.arrived)

    queue.run_all(flow)

    assert set(_states(house).values()) == {DeliveryState.CONFIRMED}
    assert house.commitments.find(pacs.transactions[0]) is None


def test_what_a_commitment_report_disowns_is_sent_again(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    lost, *kept = pacs.arrived
    _report(house, pacs, *kept, failed=[lost])
    pacs.awaits_commitment = False

    queue.run_all(flow)

    assert {uid: len(contents) for uid, contents in pacs.arrived.items()} == {
        lost: 2,
        **dict.fromkeys(kept, 1),
    }


def test_a_report_that_names_some_confirms_those_and_leaves_the_rest_open(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    named, *unnamed = pacs.arrived
    _report(house, pacs, named)

    queue.run(flow, queue.unfinished[0])

    assert _states(house) == {
        named: DeliveryState.CONFIRMED,
        **dict.fromkeys(unnamed, DeliveryState.AWAITING_COMMITMENT),
    }
    assert len(queue.unfinished) == 1


def test_the_other_half_of_a_report_is_read_too(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    first, *others = pacs.arrived
    _report(house, pacs, first)
    queue.run(flow, queue.unfinished[0])
    _report(house, pacs, *others)

    queue.run_all(flow)

    assert set(_states(house).values()) == {DeliveryState.CONFIRMED}
    assert not queue.parked
    assert len(pacs.transactions) == 1


def test_what_a_report_never_names_is_asked_for_again_and_then_parked(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    named, *unnamed = pacs.arrived
    _report(house, pacs, named)

    queue.run_all(flow)

    assert [err.code for err in queue.parked.values()] == ["commitment_overdue"]
    assert len(pacs.transactions) == 4
    assert _states(house)[named] is DeliveryState.CONFIRMED
    assert {_states(house)[uid] for uid in unnamed} == {DeliveryState.AWAITING_COMMITMENT}


def test_what_is_disowned_in_two_reports_is_sent_again_twice(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    """Each report is about other instances, so each asks for a delivery of its own."""
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    first, second, *kept = pacs.arrived
    transaction = pacs.transactions[0]
    _report(house, pacs, failed=[first])
    queue.run(flow, queue.unfinished[0])
    queue.run(flow, queue.unfinished[0])
    _report(house, pacs, *kept, failed=[second], transaction=transaction)
    _report(house, pacs, first)

    _run_until(queue, flow, lambda: len(pacs.arrived[second]) == 2)
    _report(house, pacs, second)
    queue.run_all(flow)

    assert {uid: len(contents) for uid, contents in pacs.arrived.items()} == {
        first: 2,
        second: 2,
        **dict.fromkeys(kept, 1),
    }
    assert set(_states(house).values()) == {DeliveryState.CONFIRMED}


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_reports_in_any_pieces_settle_the_delivery_whatever_is_killed(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        pacs, queue = Shelf("pacs", awaits_commitment=True), TurnedQueue()
        house = make_house(Path(folder), audit=RecordingAudit(), destinations=[pacs])
        flow = make_flow(house, queue)
        bring(house, queue, 1)
        queue.kill_in = data.draw(st.none() | st.integers(0, 12), label="kill in")
        _run_until_commitment(queue, flow)
        left = list(pacs.arrived)
        while left:
            named = data.draw(st.lists(st.sampled_from(left), unique=True, min_size=1))
            failed = [uid for uid in named if data.draw(st.booleans(), label="fails")]
            transactions = {line.transaction_uid for line in _lines(house) if line.uid in named}
            for transaction in transactions:
                of_it = [
                    line.uid
                    for line in _lines(house)
                    if line.uid in named and line.transaction_uid == transaction
                ]
                _report(
                    house,
                    pacs,
                    *(uid for uid in of_it if uid not in failed),
                    failed=[uid for uid in of_it if uid in failed],
                    transaction=transaction,
                )
            queue.kill_in = data.draw(st.none() | st.integers(0, 3), label="kill in")
            if data.draw(st.booleans(), label="look"):
                queue.run(flow, queue.unfinished[0])
            left = [uid for uid in left if uid not in named]
        queue.kill_in = None

        while queue.unfinished:
            for line in _lines(house):
                if line.state is DeliveryState.AWAITING_COMMITMENT:
                    _report(house, pacs, line.uid, transaction=line.transaction_uid)
            queue.run(flow, queue.unfinished[0])

        assert not queue.parked
        assert set(_states(house).values()) == {DeliveryState.CONFIRMED}


def test_a_commitment_that_never_comes_is_asked_for_again_and_then_parked(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)

    queue.run_all(flow)

    assert [err.code for err in queue.parked.values()] == ["commitment_overdue"]
    asked = {job_id.split(":")[1] for job_id in queue.jobs if job_id.startswith("commitment:")}
    assert asked == set(pacs.transactions)
    assert len(asked) == 4


def test_a_destination_that_cannot_be_asked_again_is_parked_in_the_end(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    _run_until_commitment(queue, flow)
    pacs.troubles = [DeliveryPostponed("away", code="peer_unreachable")] * 100

    queue.run_all(flow)

    assert [err.code for err in queue.parked.values()] == ["peer_unreachable"]
    assert len(pacs.troubles) == 97


def test_a_retry_sends_what_was_disowned_too_often(
    house: WorkflowSite, queue: TurnedQueue, flow: Transitions, pacs: Shelf
) -> None:
    pacs.awaits_commitment = True
    bring(house, queue, 1)
    while not queue.parked:
        _run_until_commitment(queue, flow)
        _report(house, pacs, failed=list(pacs.arrived))
        queue.run(flow, queue.unfinished[0])
    (job_id,) = queue.parked
    before = len(next(iter(pacs.arrived.values())))
    pacs.awaits_commitment = False

    assert queue.parked[job_id].code == "commitment_refused"
    queue.enqueue(retry_job(_row_of(queue.jobs[job_id])))
    queue.run_all(flow)

    assert {len(contents) for contents in pacs.arrived.values()} == {before + 1}
    assert set(_states(house).values()) == {DeliveryState.CONFIRMED}


def test_arguments_of_an_older_version_are_read() -> None:
    wait = CommitmentWait.of(("series-1", 1, "pacs", 0, "2.25.1", 0, 0, 3, 8.0))
    go = DeliveryAttempt.of(("series-1", 1, "pacs", 0, 2, 1))

    assert (wait.look, wait.waited_s, wait.failures) == (3, 8.0, 0)
    assert (go.attempt, go.cause) == (2, "")


def _row_of(job: Job) -> QueueRow:
    return QueueRow(
        id=job.id,
        kind=job.kind,
        arguments=job.arguments,
        starts=1,
        delay_s=0.0,
        is_delayed=False,
        delayed_until_ms=0,
        queue=job.queue,
        smear_id=job.smear_id,
        error=None,
        ended_at=None,
    )


def _report(
    house: WorkflowSite,
    pacs: Shelf,
    *committed: str,
    failed: Sequence[str] = (),
    transaction: str = "",
) -> None:
    """What the listener does with a report of that destination."""
    refusals = (Refusal(uid=uid, status="0x0112", reason="no such object") for uid in failed)
    report = CommitmentReport(
        transaction_uid=transaction or pacs.transactions[-1],
        committed=committed,
        failed=tuple(refusals),
    )
    house.commitments.keep(report, destinations=["pacs"])


def _lines(house: WorkflowSite) -> list[ReceiptLine]:
    return list(house.results.smear(SmearId(SERIES)).receipts("pacs").latest().values())


def _states(house: WorkflowSite) -> dict[str, DeliveryState]:
    return {line.uid: line.state for line in _lines(house)}


def _run_until_commitment(queue: TurnedQueue, flow: Transitions) -> None:
    _run_until(queue, flow, lambda: queue.unfinished[0].startswith("commitment:"))


def _run_until(queue: TurnedQueue, flow: Transitions, is_so: Callable[[], bool]) -> None:
    while not is_so():
        queue.run(flow, queue.unfinished[0])
