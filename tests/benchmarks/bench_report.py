"""How long a structured report of 200 cells takes: `python -m tests.benchmarks.bench_report`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pydicom import Dataset

from pipeline.domain import Call
from reporting.dicom.sr_measurement_groups import MOST_CELLS
from reporting.results import Result, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import results_of
from tests.reporting.sources import make_source

FIELDS = 8
CELLS_A_FIELD = 27
TRIES = 5


def build_report() -> tuple[Result, float]:
    """The report of a smear with more cells than it lists, and the best of some CPU times."""
    fields = [
        make_field_findings(
            sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}",
            width=1712,
            height=1368,
            calls=(Call.LEUKEMIC, Call.NORMAL, Call.REFERRED) * (CELLS_A_FIELD // 3),
        )
        for number in range(1, FIELDS + 1)
    ]
    smear = make_smear_findings(fields)
    sources: dict[str, Dataset] = {
        field.sop_instance_uid: make_source("microscopic", field) for field in fields
    }
    times = []
    for _ in range(TRIES):
        began = time.process_time()
        [report] = results_of(smear, sources, ResultKind.STRUCTURED_REPORT)
        times.append(time.process_time() - began)
    return report, min(times)


def main() -> None:
    report, cpu_s = build_report()
    print(f"{MOST_CELLS} cells: built in {cpu_s:.2f} s of CPU time, {len(report.content):,} bytes")
    if shutil.which("dciodvfy"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.dcm"
            file.write_bytes(report.content)
            began = time.perf_counter()
            subprocess.run(["dciodvfy", str(file)], capture_output=True, check=False)
            print(f"dciodvfy: {time.perf_counter() - began:.2f} s of wall time")


if __name__ == "__main__":
    main()
