"""The figures of a smear, each with its name and code: what FHIR, HL7 and the page all report.

Always the same list. A figure that could not be taken has the value None, so that an amended
report never leaves a figure of the former one standing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from config import codes
from config.codes import Concept
from pipeline.domain import CellType, ReferralReason, SmearFindings
from pipeline.findings.smear_summary import (
    LEUKOCYTES,
    found_cell_count,
    referred_cell_count,
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

NOT_COUNTED = "No white cell could be counted"
"""Why a figure has no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of the counted white cells, 0 to 1; reported in %."""

    value: float

    @property
    def percent(self) -> float:
        """To two decimals."""
        return round(100 * self.value, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure; `parts` are figures about it."""

    name: str
    """Stable: identities are derived from it."""
    title: str
    value: Share | Concept | int | str | None
    code: Concept | None = None
    """None where no published code fits."""
    parts: tuple[Figure, ...] = ()
    remark: str = ""


def figures_of(smear: SmearFindings) -> Iterator[Figure]:
    """Every figure of the smear, the share of blasts first."""
    yield _blast_share(smear)
    for cell_type in LEUKOCYTES:
        yield _cell_type_share(smear, cell_type)
    yield Figure(
        name="white-cells-counted",
        title="White cells counted on the smear",
        value=smear.white_cells_counted,
        remark=WARNING_WORDS[smear.count_warning] if smear.count_warning else "",
    )
    yield Figure(
        name="cells-undetermined",
        title="Cells of undetermined type, in no percentage",
        value=smear.undetermined_count,
    )
    for cell_type, count in smear.not_leukocytes.items():
        yield Figure(
            name=f"{cell_type}s-apart",
            title=f"{cell_type.capitalize()}s found, in no percentage",
            value=count,
        )
    yield _cells_referred(smear)
    yield Figure(name="cells-found", title="Cells found", value=found_cell_count(smear))
    yield _field_quality(smear)
    yield Figure(
        name="grade",
        title=codes.SMEAR_FINDING.display,
        code=codes.SMEAR_FINDING,
        value=GRADE_WORDS[smear.grade],
        remark=smear.grade_reason,
    )


def _blast_share(smear: SmearFindings) -> Figure:
    """Leukemic cells per 100 leukocytes with the limits of the 95 % Wilson interval."""
    code = codes.BLASTS_PER_LEUKOCYTES
    fraction = smear.leukemic_fraction
    if fraction is None:
        return Figure(name="blasts", title=code.display, code=code, value=None)
    return Figure(
        name="blasts",
        title=code.display,
        code=code,
        value=Share(value=fraction.value),
        parts=(
            Figure(
                name="blasts-low",
                title="Lower limit of the 95% interval",
                value=Share(value=fraction.low),
            ),
            Figure(
                name="blasts-high",
                title="Upper limit of the 95% interval",
                value=Share(value=fraction.high),
            ),
            Figure(name="blasts-count", title="Cells called leukemic", value=smear.leukemic_count),
        ),
    )


def _cell_type_share(smear: SmearFindings, cell_type: CellType) -> Figure:
    code = codes.CELL_TYPE_SHARE.get(cell_type)
    words = f"{cell_type.replace('_', ' ').capitalize()}s/Leukocytes in Blood"
    title = code.display if code else words
    counted = smear.white_cells_counted
    if not counted:
        return Figure(name=cell_type, title=title, code=code, value=None)
    seen = smear.differential.get(cell_type, 0)
    cells = Figure(name=f"{cell_type}-count", title="Cells seen", value=seen)
    return Figure(
        name=cell_type, title=title, code=code, value=Share(value=seen / counted), parts=(cells,)
    )


def _cells_referred(smear: SmearFindings) -> Figure:
    return Figure(
        name="cells-referred",
        title="Cells referred to an expert",
        value=referred_cell_count(smear),
        parts=tuple(
            Figure(
                name=f"referred-{reason}", title=f"Referred: {REASON_WORDS[reason]}", value=count
            )
            for reason in ReferralReason
            if (count := smear.referred.get(reason, 0))
        ),
    )


def _field_quality(smear: SmearFindings) -> Figure:
    """Fields used and refused; the DICOM code where not one could be used."""
    used = usable_field_count(smear)
    refused = refused_fields_by_flag(smear)
    return Figure(
        name="field-quality",
        title="Quality of the smear's fields",
        value=fields_in_words(smear) if used else codes.UNUSABLE_IMAGE,
        parts=(
            Figure(name="fields-analysed", title="Fields analysed", value=len(smear.fields)),
            Figure(name="fields-used", title="Fields used", value=used),
            *(
                Figure(
                    name=f"fields-{flag}",
                    title=f"Fields refused: {FLAG_WORDS[flag]}",
                    value=refused[flag],
                )
                for flag in sorted(refused)
            ),
        ),
    )
