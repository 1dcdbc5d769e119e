"""How soon the console answers: `python -m tests.benchmarks.bench_console`.

Processor time of the query of the Smears page over 100,000 smears, of the Audit page over a
million events, and of the page and pictures of a smear with 400 cells.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from listener.web.console.audit_index import AuditIndex
from listener.web.console.database import AUDIT_EVENT, ConsoleDatabase
from listener.web.console.smear_index import SmearIndex
from tests.listener.web.console.site import ConsoleSite
from tests.listener.web.console.test_service_pages import AUDIT_QUESTIONS, audit_row
from tests.listener.web.console.test_smear_index import SMEAR_QUESTIONS, make_row
from tests.listener.web.console.test_smear_pages import many_cells

ROUNDS = 4


def main() -> None:
    """Print the figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smears", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        figures = {
            "smears_p95_ms": smears_p95_ms(root / "smears", options.smears),
            "audit_p95_ms": audit_p95_ms(root / "audit", options.events),
            "page_of_400_cells_ms": page_of_400_cells_ms(root / "page"),
        }
    for name, value in figures.items():
        print(f"{name:<22} {value:8.1f}")
    print(json.dumps(figures))


def smears_p95_ms(folder: Path, count: int) -> float:
    """Every filter, search and the last page, with the list of devices."""
    folder.mkdir()
    index = SmearIndex(ConsoleDatabase(f"sqlite:///{folder / 'state.sqlite'}"))
    for start in range(0, count, 10_000):
        end = min(start + 10_000, count)
        index.save((make_row(number) for number in range(start, end)), at=datetime.now(UTC))

    def ask(one: int) -> None:
        asked, number = SMEAR_QUESTIONS[one]
        index.page(asked, number)
        index.devices()

    return p95_ms(ask, range(len(SMEAR_QUESTIONS)))


def audit_p95_ms(folder: Path, count: int) -> float:
    """Every filter of the Audit page."""
    folder.mkdir()
    database = ConsoleDatabase(f"sqlite:///{folder / 'state.sqlite'}")
    for start in range(0, count, 50_000):
        rows = [audit_row(number) for number in range(start, min(start + 50_000, count))]
        with database.writing() as connection:
            connection.execute(sa.insert(AUDIT_EVENT), rows)
    index = AuditIndex(database, folder)
    return p95_ms(lambda one: index.page(*AUDIT_QUESTIONS[one]), range(len(AUDIT_QUESTIONS)))


def page_of_400_cells_ms(folder: Path) -> float:
    """Page and all sprites of ten fields, nothing drawn before."""
    folder.mkdir()
    site = ConsoleSite(folder)
    fields = [many_cells(40, uid=f"1.2.4.{number}") for number in range(1, 11)]
    smear = site.put_smear(fields, builds=False)
    with site.client() as client:
        client.get("/smears")
        began = time.process_time()
        page = client.get(f"/smears/{smear}")
        for sprite in {part.split('"')[0] for part in page.text.split('<image href="')[1:]}:
            client.get(sprite)
        return (time.process_time() - began) * 1000


def p95_ms(ask: Callable[[int], object], questions: Iterable[int]) -> float:
    times = []
    for one in [*questions] * ROUNDS:
        began = time.process_time()
        ask(one)
        times.append(time.process_time() - began)
    return sorted(times)[int(len(times) * 0.95)] * 1000


if __name__ == "__main__":
    main()
