"""Objects as the result set makes them, read back from their bytes: for tests of one kind."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydicom import Dataset, FileDataset, dcmread

from pipeline.domain import FieldFindings, SmearFindings
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS, ReportContext, Result, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import make_context
from tests.reporting.sources import make_source


def results_of(
    smear: SmearFindings,
    sources: Mapping[Any, Dataset],
    *kinds: ResultKind,
    **context: Any,
) -> list[Result]:
    """The results of these kinds, all DICOM ones if none is named."""
    return list(
        build_result_set(
            smear,
            read_source=sources.__getitem__,
            context=context_for(*kinds, **context),
        )
    )


def context_for(*kinds: ResultKind, **changed: Any) -> ReportContext:
    return replace(make_context(), kinds=frozenset(kinds or DICOM_KINDS), **changed)


def made(
    kind: ResultKind,
    field: FieldFindings | None = None,
    *,
    source: Dataset | None = None,
    **context: Any,
) -> FileDataset:
    """The one object of `kind` that a smear of one field gives."""
    field = field or make_field_findings()
    source = source or make_source("slide_coordinates", field)
    [result] = results_of(
        make_smear_findings([field]), {field.sop_instance_uid: source}, kind, **context
    )
    return read(result)


def read(result: Result) -> FileDataset:
    return dcmread(io.BytesIO(result.content))
