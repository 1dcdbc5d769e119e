"""What a smear's report costs: CPU time and peak memory, by fields and cells.

    python -m tests.benchmarks.bench_report [--sizes 1x200 20x10 100x2] [--plot FILE]

All kinds of results. Each size runs in a process of its own; its sources are made before the
clock starts and read from files, as the service does. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
from pydicom import Dataset, dcmread

from pipeline.domain import Call, SOPInstanceUID
from reporting.result_set import build_result_set
from reporting.results import ReportContext, ResultKind
from tests.benchmarks.plots import draw_bars
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.sources import make_source

CALLS = (Call.LEUKEMIC, Call.NORMAL, Call.REFERRED)
SIZES = ("1x20", "1x200", "20x10", "100x2", "300x2")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One report."""

    fields: int
    cells: int
    cpu_s: float
    peak_mb: int
    results_mb: float


def cost_of(fields: int, cells_per_field: int) -> Cost:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_build, args=(fields, cells_per_field, theirs))
    process.start()
    theirs.close()
    cost: Cost = ours.recv()
    process.join()
    return cost


def _build(
    fields: int, cells_per_field: int, answer: multiprocessing.connection.Connection
) -> None:
    cv2.setNumThreads(1)
    found = [
        make_field_findings(
            sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}",
            width=1712,
            height=1368,
            calls=tuple(CALLS[cell % len(CALLS)] for cell in range(cells_per_field)),
        )
        for number in range(1, fields + 1)
    ]
    smear = make_smear_findings(found)
    context = ReportContext(
        version=1,
        issued_at=datetime.now(UTC),
        software_version="0",
        compress_images=True,
        kinds=frozenset(ResultKind),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for field in found:
            source = make_source("microscopic", field)
            source.save_as(folder / f"{field.sop_instance_uid}.dcm", enforce_file_format=True)

        def read_source(image: SOPInstanceUID) -> Dataset:
            return dcmread(folder / f"{image}.dcm")

        began, size = time.process_time(), 0
        for result in build_result_set(smear, read_source=read_source, context=context):
            size += len(result.content)
        cpu_s = time.process_time() - began
    answer.send(
        Cost(
            fields=fields,
            cells=fields * cells_per_field,
            cpu_s=round(cpu_s, 2),
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            results_mb=round(size / 1e6, 1),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="fields x cells per field")
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    costs = []
    for size in asked.sizes:
        fields, cells = map(int, size.split("x"))
        costs.append(cost_of(fields, cells))
        print(costs[-1], flush=True)
    if asked.plot:
        bars = {f"{one.fields} fields, {one.cells} cells": one.cpu_s for one in costs}
        draw_bars(asked.plot, "CPU time of a report, all kinds of results", bars, "s")
    print(json.dumps([asdict(cost) for cost in costs]))


if __name__ == "__main__":
    main()
