"""Shows progress and tables on a terminal; plain lines when stdout is not a TTY."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from listener.queue.status import ParkedWork
from pipeline.domain import RESEARCH_USE_ONLY
from reporting.delivery.dimse_status import describe_status

if TYPE_CHECKING:
    from pydicom import FileDataset

    from listener.cli.check import Check, RouteExplanation
    from listener.demo.results import DemoOutcome, DemoRow
    from listener.modality.find_files import FoundFiles
    from listener.modality.secondary_capture import Order
    from reporting.audit.trail import Verification
    from reporting.delivery.transport.tls import TlsFiles

DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
DIGITS = 12
"""Digits of a digest that people see; --json shows all of them."""

FILE_WIDTH = 140
"""Columns of tables when the output is a file or a pipe."""
WIDE = 110
"""Columns from which the demonstration's table has room for file names."""


def open_console(*, is_error: bool = False) -> Console:
    """A console on standard output or error, as wide as the terminal or as a file wants it."""
    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() else FILE_WIDTH
    # Paths and messages may hold brackets and colons, which Rich would take for styles.
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def tell(words: str) -> None:
    """One line for people."""
    open_console().print(words)


class ProgressDisplay:
    """Progress of long work: bars on a terminal, one line per step elsewhere."""

    def __init__(self) -> None:
        self._console = open_console(is_error=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Work of known length; call what is yielded once per piece."""
        if not self._console.is_terminal:
            self._console.print(f"{title}: {total}")
            yield lambda: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=total)
            yield lambda: progress.advance(task)

    @contextmanager
    def spinner(self, title: str) -> Iterator[Callable[[str], None]]:
        """Work of unknown length; call what is yielded with what is left."""
        if not self._console.is_terminal:
            self._console.print(title)
            yield lambda left: None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=None)

            def show(left: str) -> None:
                progress.update(task, description=f"{title}: {left}")

            yield show


def send_with_progress(
    paths: Sequence[Path],
    to: str,
    calling_ae_title: str,
    order: Order,
    tls: TlsFiles | None = None,
) -> int:
    """Send files and say what became of each that was not stored; how many those are."""
    from listener.modality.find_files import find_images, shown
    from listener.modality.secondary_capture import read_files
    from listener.modality.store_scu import PeerAddress, send_images

    peer, found = PeerAddress.parse(to), find_images(paths)
    sent_files: list[Path] = []
    problems: list[str] = []
    stored = 0
    show_skipped(found)

    def images() -> Iterator[FileDataset]:
        for read in read_files(found.images, order):
            if read.image is None:
                problems.append(read.problem.message if read.problem else shown(read.path))
                advance()
            else:
                sent_files.append(read.path)
                yield read.image

    try:
        with ProgressDisplay().bar(f"Sending to {peer.ae_title}", len(found.images)) as advance:
            for sent in send_images(images(), peer, calling_ae_title=calling_ae_title, tls=tls):
                advance()
                stored += sent.is_stored
                if not sent.is_stored:
                    why = sent.comment or describe_status(sent.status)
                    problems.append(f"{shown(sent_files[-1])} 0x{sent.status:04X} {why}")
    finally:  # also when the receiver breaks off: what it has is said
        _show_sent(stored, problems, len(found.images))
    return len(problems)


def _show_sent(stored: int, problems: Sequence[str], total: int) -> None:
    console = open_console()
    missing = total - stored - len(problems)
    rest = f", {missing} not sent" if missing else ""
    console.print(f"{stored} stored, {len(problems)} refused{rest}")
    for problem in problems:
        print_indented(console, problem)


def show_skipped(found: FoundFiles) -> None:
    """Say on standard error which files of the folders are no images."""
    console = open_console(is_error=True)
    for line in found.skipped_lines():
        console.print(line, soft_wrap=True)


def print_parked(console: Console, parked: Sequence[ParkedWork]) -> None:
    """Print parked work, each with its reason and the key for `smearlink retry`."""
    if not parked:
        console.print("Nothing is parked.")
        return
    console.print(f"{len(parked)} parked; try again with: smearlink retry KEY", style="bold")
    for one in parked:
        where = f" → {one.destination}" if one.destination else ""
        print_indented(console, f"{one.kind}{where}: {one.code}: {one.message}")
        console.print(f"    KEY {one.key}", soft_wrap=True, style="dim")


def print_indented(console: Console, text: str) -> None:
    """Lines of whole words on a terminal, one line elsewhere."""
    if console.is_terminal:
        console.print(Padding(Text(text), (0, 0, 0, 2)))
    else:
        console.print(f"  {text}", soft_wrap=True)


def simple_table(title: str) -> Table:
    """A table with rules instead of boxes, legible in a terminal, a file and a mail."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def show_demo(outcome: DemoOutcome, out: Path) -> int:
    """Print the closing table; return 0 when everything arrived and the trail is intact."""
    console = open_console()
    console.print(_demo_table(outcome.rows, has_files=console.width >= WIDE))
    console.print(f"{out / 'results'}: pictures, DICOM, CSV and FHIR bundle of each smear")
    console.print(f"{out / 'pacs'}: {outcome.pacs_count} DICOM objects that the PACS received")
    console.print(f"{out / 'ehr'}: {outcome.ehr_count} FHIR resources that the endpoint received")
    console.print(f"{out / 'audit'}: the audit trail")
    if outcome.not_taken:
        console.print(f"{len(outcome.not_taken)} not analysed:", style="bold")
    for line in outcome.not_taken:
        print_indented(console, line)
    if outcome.undelivered:
        print_parked(console, outcome.undelivered)
    show_verification(outcome.verification)
    return 0 if outcome.is_good else 1


def _demo_table(rows: Sequence[DemoRow], *, has_files: bool) -> Table:
    table = simple_table(f"smearlink demo · {RESEARCH_USE_ONLY}")
    table.add_column("smear", justify="right")
    table.add_column("field", overflow="fold")
    for name in ("cells", "leukemic", "normal", "referred"):
        table.add_column(name, justify="right")
    table.add_column("highest\nprob.", justify="right")
    if has_files:
        table.add_column("annotated picture", overflow="fold")
    for row in rows:
        highest = "–" if row.highest is None else f"{row.highest:.2f}"
        flags = f"\n[{', '.join(row.flags)}]".replace("_", " ") if row.flags else ""
        counts = (row.cells, row.leukemic, row.normal, row.referred)
        files = (row.files,) if has_files else ()
        table.add_row(row.smear, f"{row.field}{flags}", *map(str, counts), highest, *files)
    return table


def show_verification(verification: Verification) -> None:
    """Print whether the audit trail is intact, and where it is not."""
    console = open_console()
    for place, kind, message in verification.rows():
        console.print(f"{place}: {kind}: {message}", soft_wrap=True)
    verdict = "whole" if verification.is_whole else "NOT whole"
    console.print(f"The audit trail is {verdict}.", style="bold")
    console.print(
        f"  {verification.events} events, {verification.checkpoints} signed checkpoints, "
        f"{verification.unsigned_events} events after the last of them"
    )


def show_checks(checks: Sequence[Check]) -> None:
    """Print one line per check; digests are shortened, terminals get lines of whole words."""
    console = open_console()
    for one in checks:
        said = Text(f"{one.name}: {DIGEST.sub(_beginning, one.said)}")
        mark = "ok  " if one.is_good else "FAIL"
        if not console.is_terminal:
            console.print(f"{mark} {said}", soft_wrap=True)
            continue
        lines = Table.grid(padding=(0, 1, 0, 0))
        lines.add_row(mark, said)
        console.print(lines)


def _beginning(digest: re.Match[str]) -> str:
    return f"{digest[0][:DIGITS]}\N{HORIZONTAL ELLIPSIS}"


_ANSWERS = {True: "yes ({})", False: "no ({})", None: "known after the analysis"}


def show_route(explanation: RouteExplanation) -> None:
    """Print each rule with its answer, and where results would go."""
    console = open_console()
    for match in explanation.matches:
        console.print(f"{match.rule}: {match.verdict} → {', '.join(match.to)}", style="bold")
        console.print(f"  when {match.when or '(always)'}", soft_wrap=True)
        for reason in match.reasons:
            answer = _ANSWERS[reason.answer].format(reason.found)
            console.print(f"  {reason.question}: {answer}", soft_wrap=True)
    console.print(f"destinations for certain: {', '.join(explanation.certain) or 'none'}")
    if explanation.possible:
        console.print(f"depending on the outcome also: {', '.join(explanation.possible)}")


def show_evaluation(result: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Print measurements of cells, then of fields, each with its 95 % interval."""
    console = open_console()
    for part, sources in result.items():
        for source, figures in sources.items():
            console.print(f"{part}: {source} (n = {figures['n']})", style="bold")
            for name, figure in figures.items():
                if isinstance(figure, Mapping):
                    interval = f"({figure['low']:.3f} to {figure['high']:.3f})"
                    console.print(f"  {name:<20} {figure['value']:8.3f}  {interval}")
    console.print(RESEARCH_USE_ONLY, style="dim")
