"""What the version before left behind is read from its results, or said to be unreadable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import Defect
from reporting.previous_version import KINDS_READ, read_previous_version
from reporting.results import ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import read, results_of
from tests.reporting.sources import make_source


def test_the_report_and_the_pictures_in_use_are_named() -> None:
    field = make_field_findings()
    sources = {str(field.sop_instance_uid): make_source("microscopic", field)}
    results = results_of(make_smear_findings([field]), sources, *KINDS_READ, ResultKind.GALLERY)

    previous = read_previous_version(results)

    [report] = [read(one) for one in results if one.kind is ResultKind.STRUCTURED_REPORT]
    assert previous.structured_report is not None
    assert previous.structured_report.sop_instance_uid == report.SOPInstanceUID
    assert previous.structured_report.series_uid == report.SeriesInstanceUID
    assert len(previous.media_ids) == 1


def test_a_version_without_either_leaves_nothing() -> None:
    previous = read_previous_version([])

    assert previous.structured_report is None
    assert previous.media_ids == ()


@pytest.mark.parametrize("content", [b"", b"{}", b"no result", b'{"entry": [{}]}'])
@pytest.mark.parametrize("kind", sorted(KINDS_READ))
def test_what_cannot_be_read_is_a_defect(kind: ResultKind, content: bytes) -> None:
    field = make_field_findings()
    sources = {str(field.sop_instance_uid): make_source("microscopic", field)}
    [result] = results_of(make_smear_findings([field]), sources, kind)

    with pytest.raises(Defect):
        read_previous_version([replace(result, content=content)])
