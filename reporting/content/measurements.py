"""The measurements of a smear, each with its name and code: FHIR, HL7 and the PDF report these.

Always the same list, grade and counts first. A measurement that could not be taken has no value
and says why, so that a new version never leaves a value of the one before standing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from config import codes
from config.codes import Concept
from pipeline.domain import Interval, ReferralReason, SmearFindings, SmearReview
from pipeline.findings.percentages import (
    MIN_CELLS_FOR_PERCENT,
    has_percentages,
    percent,
    percent_text,
    wilson,
)
from pipeline.findings.smear_summary import (
    BLAST_WORD,
    differential_words,
    found_cell_count,
    referred_cell_count,
    smudge_cell_count,
    type_word,
    usable_field_count,
)
from reporting.content.narrative import (
    FLAG_WORDS,
    GRADE_WORDS,
    REASON_WORDS,
    WARNING_WORDS,
    fields_in_words,
    refused_fields_by_flag,
)

LYMPHOCYTE_WORD = "lymphocyte"
"""The last word of every type of lymphocyte."""
NOT_COUNTED = "No white cell could be counted"
"""Why a share has no value where nothing was counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of the counted white cells, 0 to 1; reported in %, as exact as the count allows."""

    value: float
    counted: int
    """Of how many cells: the share itself, or the interval that it belongs to."""

    @property
    def percent(self) -> float:
        """With the digits that the count supports."""
        return percent(self.value, self.counted)

    @property
    def text(self) -> str:
        """`25 %`."""
        return percent_text(self.value, self.counted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measurement; `parts` are measurements about it."""

    name: str
    """Stable: identities are derived from it."""
    title: str
    value: Share | Concept | int | str | None
    unit: Concept | None = None
    """Of a whole number: cells or fields."""
    code: Concept | None = None
    """None where no published code fits."""
    parts: tuple[Measurement, ...] = ()
    remark: str = ""
    absent: str = ""
    """Why there is no value."""


def measurements_of(
    smear: SmearFindings, *, least_cells: int = MIN_CELLS_FOR_PERCENT
) -> Iterator[Measurement]:
    """Every measurement of the smear; no percentages below `least_cells` counted cells."""
    yield Measurement(
        name="grade",
        title=codes.SMEAR_FINDING.display,
        code=codes.SMEAR_FINDING,
        value=GRADE_WORDS[smear.grade],
        remark=smear.grade_reason,
    )
    yield from _counts(smear, least_cells)
    for word, count in differential_words(smear).items():
        yield _share(word, count, smear.white_cells_counted, least_cells)
    if smear.review is not None:
        yield _model_counts(smear.review)
    yield _field_quality(smear)


def _model_counts(review: SmearReview) -> Measurement:
    """What the network alone counted, beside the counts that people left."""
    model = review.model_counts
    return _cells(
        "model-counted",
        "White cells counted by the network alone",
        model.white_cells_counted,
        parts=(
            _cells("model-leukemic", "Cells it called leukemic", model.leukemic_count),
            _cells("model-referred", "Cells it referred", model.referred_count),
            _cells("changed", "Cells changed by a person", len(review.changes)),
            _cells("confirmed", "Cells confirmed by a person", review.confirmed),
        ),
    )


def _counts(smear: SmearFindings, least_cells: int) -> Iterator[Measurement]:
    """Every cell found, in the one bucket where it stands."""
    yield _cells("cells-found", "Cells found", found_cell_count(smear))
    yield _cells(
        "white-cells-counted",
        "White cells counted on the smear",
        smear.white_cells_counted,
        remark=WARNING_WORDS[smear.count_warning] if smear.count_warning else "",
    )
    yield _cells_referred(smear, least_cells)
    yield _cells(
        "cells-undetermined",
        "Cells of undetermined type, in no percentage",
        smear.undetermined_count,
    )
    for cell_type, count in smear.not_leukocytes.items():
        words = f"{type_word(cell_type).capitalize()}s found, in no percentage"
        yield _cells(f"{cell_type}s-apart", words, count)


def _share(word: str, count: int, counted: int, least_cells: int) -> Measurement:
    """Cells of one kind per 100 leukocytes, with their number and the 95 % Wilson interval."""
    is_blast = word == BLAST_WORD
    name = "blasts" if is_blast else word.replace(" ", "_")
    code = codes.BLASTS_PER_LEUKOCYTES if is_blast else codes.CELL_TYPE_SHARE.get(name)
    title = code.display if code else f"{word.capitalize()}s/Leukocytes in Blood"
    cells = _cells(f"{name}-count", "Cells called leukemic" if is_blast else "Cells seen", count)
    if not has_percentages(counted, least=least_cells):
        return Measurement(
            name=name,
            title=title,
            code=code,
            value=None,
            parts=(cells,) if counted else (),
            absent=_why_no_percentage(counted, least_cells),
        )
    interval = wilson(count, counted)
    return Measurement(
        name=name,
        title=title,
        code=code,
        value=Share(value=interval.value, counted=counted),
        parts=(*_limits(name, interval, counted), cells),
    )


def _limits(name: str, interval: Interval, counted: int) -> Iterator[Measurement]:
    for end, value in (("low", interval.low), ("high", interval.high)):
        side = "Lower" if end == "low" else "Upper"
        yield Measurement(
            name=f"{name}-{end}",
            title=f"{side} limit of the 95% interval",
            value=Share(value=value, counted=counted),
        )


def _why_no_percentage(counted: int, least_cells: int) -> str:
    if not counted:
        return NOT_COUNTED
    return f"{counted} white cells were counted, and fewer than {least_cells} give no percentage"


def _cells(
    name: str, title: str, count: int, *, parts: tuple[Measurement, ...] = (), remark: str = ""
) -> Measurement:
    return Measurement(
        name=name, title=title, value=count, unit=codes.CELLS_UNIT, parts=parts, remark=remark
    )


def _fields(name: str, title: str, count: int) -> Measurement:
    return Measurement(name=name, title=title, value=count, unit=codes.FIELDS_UNIT)


def _cells_referred(smear: SmearFindings, least_cells: int) -> Measurement:
    """A cell with two reasons stands under both; smudge cells are referred as well."""
    reasons = tuple(
        _cells(f"referred-{reason}", f"Referred: {REASON_WORDS[reason]}", count)
        for reason in ReferralReason
        if (count := smear.referred.get(reason, 0))
    )
    smudges = _cells("smudge-cells", "Smudge cells among them", smudge_cell_count(smear))
    return _cells(
        "cells-referred",
        "Cells referred to an expert",
        referred_cell_count(smear),
        parts=(smudges, _smudges_per_lymphocytes(smear, least_cells), *reasons),
    )


def _smudges_per_lymphocytes(smear: SmearFindings, least_cells: int) -> Measurement:
    """Smudge cells per 100 counted lymphocytes; smudge cells are not among the 100."""
    words = differential_words(smear)
    lymphocytes = sum(count for word, count in words.items() if word.endswith(LYMPHOCYTE_WORD))
    smudges = smudge_cell_count(smear)
    told = f"not given, only {_number(lymphocytes, 'lymphocyte')}"
    if has_percentages(lymphocytes, least=least_cells):
        counts = f"{_number(smudges, 'smudge cell')}, {_number(lymphocytes, 'lymphocyte')}"
        told = f"{round(100 * smudges / lymphocytes)} ({counts})"
    return Measurement(
        name="smudge-cells-per-lymphocytes", title="Smudge cells per 100 lymphocytes", value=told
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _field_quality(smear: SmearFindings) -> Measurement:
    """Fields used and refused; the DICOM code where not one could be used."""
    used = usable_field_count(smear)
    refused = refused_fields_by_flag(smear)
    return Measurement(
        name="field-quality",
        title="Quality of the smear's fields",
        value=fields_in_words(smear) if used else codes.UNUSABLE_IMAGE,
        parts=(
            _fields("fields-analysed", "Fields analysed", len(smear.fields)),
            _fields("fields-used", "Fields used", used),
            *(
                _fields(f"fields-{flag}", f"Fields refused: {FLAG_WORDS[flag]}", refused[flag])
                for flag in sorted(refused)
            ),
        ),
    )
