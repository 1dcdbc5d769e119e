"""The process that builds parts of reports for the service; see listener.workflow.shared_reports.

It is told what to build through a socket that it inherits, and ends with the other end of it,
whatever it is doing: what it leaves behind is in a folder of drafts.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue

import cv2
from pydicom import Dataset

from listener.process_memory import settle
from listener.storage.inbox import Inbox
from listener.storage.results import ResultWriters, WrittenResult
from listener.workflow.report_parts import READY, PartBuilt, PartRefused, ReportTask
from pipeline.domain import SOPInstanceUID
from pipeline.rendering.gallery import Card
from reporting.dicom.source_attributes import header_of
from reporting.field_results import FieldResults

Request = ReportTask | int
Answer = PartBuilt | PartRefused


def main(descriptor: int) -> None:
    """Build what is asked for until the service closes its end."""
    # A stop is the service's: it finishes its reports within its time, and then closes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection: Connection[Answer | str, Request] = Connection(descriptor)
    requests: SimpleQueue[Request] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    cv2.setNumThreads(1)
    settle()
    connection.send(READY)
    with ResultWriters() as writers:
        build_parts(requests, connection.send, writers)


def _listen(connection: Connection[Answer | str, Request], requests: SimpleQueue[Request]) -> None:
    try:
        while True:
            requests.put(connection.recv())
    finally:
        os._exit(0)


def build_parts(
    requests: SimpleQueue[Request], answer: Callable[[Answer], None], writers: ResultWriters
) -> None:
    """Build part after part; each is answered when its results are durable."""
    task: _Task | None = None
    unanswered: deque[_Part] = deque()
    while True:
        while unanswered and (requests.empty() or unanswered[0].is_written):
            answer(unanswered.popleft().answer())
        request = requests.get()
        if isinstance(request, ReportTask):
            task = _Task(request, writers)
        elif task is not None:
            unanswered.append(task.build(request))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of which the results are being written."""

    number: int
    writes: tuple[Future[WrittenResult], ...] | None
    """None for one that could not be built."""
    cards: Mapping[int, Card]

    @property
    def is_written(self) -> bool:
        return all(write.done() for write in self.writes or ())

    def answer(self) -> Answer:
        """Waits until all is written."""
        if self.writes is None:
            return PartRefused(number=self.number)
        try:
            results = tuple(write.result() for write in self.writes)
        except Exception:  # noqa: BLE001 - the service says why when it tries itself
            return PartRefused(number=self.number)
        return PartBuilt(number=self.number, results=results, cards=self.cards)


class _Task:
    """One report of which parts are built."""

    def __init__(self, task: ReportTask, writers: ResultWriters) -> None:
        self._folder = task.folder
        self._writers = writers
        self._inbox = Inbox(task.inbox)
        self._last: tuple[SOPInstanceUID, Dataset] | None = None
        self._cards_told: set[int] = set()
        self._fields = FieldResults(
            task.smear,
            task.objects,
            headers=lambda image: header_of(self._read(image)),
            read_source=self._read,
            context=task.context,
        )

    def build(self, number: int) -> _Part:
        """Build one part and have it written; whatever goes wrong refuses this part alone."""
        try:
            writes = tuple(
                self._writers.write(result, self._folder) for result in self._fields.of_part(number)
            )
        except Exception:  # noqa: BLE001 - the service says why when it tries itself
            return _Part(number=number, writes=None, cards={})
        cut = self._fields.cards_cut()
        cards = {rank: card for rank, card in cut.items() if rank not in self._cards_told}
        self._cards_told |= set(cards)
        return _Part(number=number, writes=writes, cards=cards)

    def _read(self, image: SOPInstanceUID) -> Dataset:
        """The image; header and frames of one part are read together."""
        if self._last is None or self._last[0] != image:
            self._last = None
            self._last = image, self._inbox.read(image)
        return self._last[1]


if __name__ == "__main__":
    main(int(sys.argv[1]))
