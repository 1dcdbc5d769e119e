"""Builds a report together with processes beside the service, so that it uses several cores.

A report is built of parts, one for each image, and of what speaks of the whole smear. Parts wait on
a board; the report's own thread and each process take the next one when they are free. A process
writes its results durable into a folder of this worker's drafts, from which the report takes them
in the usual order, so that nobody can tell who has built what.

A process never matters: what one that dies, hangs or refuses has not built is built here. It is
started for the first large smear, ends when it has had nothing to do for a while, and ends with the
service. It is started from scratch, not forked: a process with threads must not be forked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from listener.storage.results import ResultsFolder, ResultWriters, WrittenResult
from listener.workflow.memory_budget import MOST_SHARED_BYTES, bytes_needed
from listener.workflow.part_board import PartBoard
from listener.workflow.part_builder import PartBuilder
from listener.workflow.report_parts import ReportTask
from pipeline.domain import SmearFindings
from reporting.durable_files import PRIVATE_FOLDER
from reporting.field_results import ReadSource
from reporting.result_set import Refuse, ResultSet
from reporting.results import ReportContext, Result

LEAST_PARTS = 4
"""Smaller reports are built here: handing over costs more than it saves."""
LEAST_PARTS_TO_START = 24
"""A process takes half a second to start; it is started for what is worth that."""
IDLE_S = 120.0
"""A process ends after so long without a report."""
PATIENCE_S = 60.0
"""A process that has not finished a part after this, while the report waits for it, is ended."""

START = (sys.executable, "-P", "-m", "listener.workflow.report_process")


class SharedReports:
    """Builds reports with processes beside this one; to be closed after the last report."""

    def __init__(
        self,
        *,
        inbox: Path,
        results: ResultsFolder,
        processes: int,
        least_parts_to_start: int = LEAST_PARTS_TO_START,
        idle_s: float = IDLE_S,
        patience_s: float = PATIENCE_S,
        command: Sequence[str] = START,
    ) -> None:
        """`command` starts a process; the number of its socket's descriptor is added to it."""
        self._inbox = inbox
        self._results = results
        self._least_parts_to_start = least_parts_to_start
        self._patience_s = patience_s
        self._builders = [PartBuilder(command, idle_s=idle_s) for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [one.pid for one in self._builders if one.pid is not None]

    def __call__(
        self,
        smear: SmearFindings,
        *,
        read_source: ReadSource,
        context: ReportContext,
        refuse: Refuse | None = None,
    ) -> Iterator[Result | WrittenResult]:
        """As `reporting.result_set.build_result_set`; `read_source` reads the inbox as it is."""
        results = ResultSet(smear, read_source=read_source, context=context, refuse=refuse)
        if not self._is_worth_sharing(results):
            yield from results.in_order()
            return
        with self._results.staging() as folder, ResultWriters() as writers:
            board = PartBoard(_cards_first(results))
            tasks = (
                ReportTask(
                    smear=smear,
                    objects=results.objects,
                    context=context,
                    inbox=self._inbox,
                    folder=_made(folder / f"process-{number}"),
                )
                for number in range(len(self._builders))
            )
            may_start = len(results.parts) >= self._least_parts_to_start
            builders = [
                builder
                for builder, task in zip(self._builders, tasks, strict=True)
                if builder.join(board, task, may_start=may_start)
            ]
            if not builders:
                yield from results.in_order()
                return
            try:
                of_smear = self._build(results, board, builders, writers, _made(folder / "own"))
            finally:
                board.close()
            for number in range(len(results.parts)):
                yield from board.results(number)
            yield from (write.result() for write in of_smear)

    def close(self) -> None:
        """End the processes."""
        for builder in self._builders:
            builder.close()

    def _is_worth_sharing(self, results: ResultSet) -> bool:
        if not self._builders or len(results.parts) < LEAST_PARTS:
            return False
        return max(map(bytes_needed, results.headers)) <= MOST_SHARED_BYTES

    def _build(
        self,
        results: ResultSet,
        board: PartBoard,
        builders: Sequence[PartBuilder],
        writers: ResultWriters,
        folder: Path,
    ) -> list[Future[WrittenResult]]:
        """Build until nothing is left to build; the results of the whole smear as soon as its
        cards are cut.
        """

        def written(made: Iterable[Result]) -> list[Future[WrittenResult]]:
            return [writers.write(result, folder) for result in made]

        with_cards = frozenset(results.parts_with_cards)
        of_smear: list[Future[WrittenResult]] | None = None
        while True:
            seen = board.changes
            if of_smear is None and board.are_built(with_cards):
                results.add_cards(board.cards())
                of_smear = written(results.of_smear())
            elif (number := board.take_here()) is not None:
                board.built_here(number, written(results.of_part(number)))
            elif of_smear is not None and board.is_done:
                return of_smear
            elif not board.wait(seen, self._patience_s):
                for builder in builders:
                    builder.kill()


def _cards_first(results: ResultSet) -> list[int]:
    """The order in which parts are built: what the whole smear waits for comes first."""
    with_cards = results.parts_with_cards
    rest = set(range(len(results.parts))) - set(with_cards)
    return [*with_cards, *sorted(rest)]


def _made(folder: Path) -> Path:
    """A folder of its own for each writer: one that is killed leaves half a file there."""
    folder.mkdir(mode=PRIVATE_FOLDER)
    return folder
