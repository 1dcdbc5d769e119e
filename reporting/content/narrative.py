"""The sentences of a report, written once: FHIR, HL7 and the PDF use the same ones.

They speak of cells and counts; none proposes a diagnosis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pipeline.domain import CountWarning, Grade, QualityFlag, ReferralReason, SmearFindings
from pipeline.findings.percentages import MIN_CELLS_FOR_PERCENT, has_percentages, interval_text
from pipeline.findings.smear_summary import (
    Bucket,
    bucket_counts,
    found_cell_count,
    referred_cell_count,
    type_word,
    usable_field_count,
)

GRADE_WORDS: Mapping[Grade, str] = {
    Grade.NONE_SEEN: "None seen: no counted white cell was called leukemic",
    Grade.FEW: "Few: some counted white cells were called leukemic",
    Grade.MANY: "Many: one in five or more counted white cells were called leukemic",
    Grade.REFER: "Refer to an expert: the count alone cannot be relied on",
}

WARNING_WORDS: Mapping[CountWarning, str] = {
    CountWarning.BELOW_100: "Fewer than 100 white cells were counted: the count is rough.",
    CountWarning.BELOW_200: "Fewer than 200 white cells were counted: short of a full count.",
}

REASON_WORDS: Mapping[ReferralReason, str] = {
    ReferralReason.UNCERTAIN: "uncertain",
    ReferralReason.UNLIKE_TRAINING: "unlike the training data",
    ReferralReason.CUT_BY_EDGE: "cut by the edge",
    ReferralReason.SMUDGE_CELL: "smudge cell",
    ReferralReason.POOR_OUTLINE: "poor outline",
    ReferralReason.FIELD_QUALITY: "field quality",
    ReferralReason.UNIDENTIFIED: "not identified by the reviewer",
}

FLAG_WORDS: Mapping[QualityFlag, str] = {
    QualityFlag.OUT_OF_FOCUS: "out of focus",
    QualityFlag.UNDEREXPOSED: "underexposed",
    QualityFlag.OVEREXPOSED: "overexposed",
    QualityFlag.STAIN_OUT_OF_RANGE: "stain out of range",
    QualityFlag.TOO_THICK: "too thick",
    QualityFlag.TOO_THIN: "too thin",
    QualityFlag.EMPTY: "empty",
    QualityFlag.NOT_A_SMEAR: "not a blood smear",
    QualityFlag.GRAYSCALE: "grayscale picture",
    QualityFlag.TRUNCATED: "lower part of the picture missing",
    QualityFlag.SCALE_UNKNOWN: "scale unknown",
    QualityFlag.EXCLUDED: "excluded by the reviewer",
}

LIMITS = (
    "Found and called by software on single images. "
    "It counts cells and names no disease. An expert must look at the smear itself."
)


def findings_in_words(
    smear: SmearFindings, *, least_cells: int = MIN_CELLS_FOR_PERCENT
) -> Iterator[str]:
    """The report in sentences: what was found, then what it does not know."""
    yield f"{GRADE_WORDS[smear.grade]}."
    yield smear.grade_reason
    if smear.leukemic_fraction is not None:
        yield share_in_words(smear, least_cells=least_cells)
    if smear.count_warning:
        yield WARNING_WORDS[smear.count_warning]
    yield buckets_in_words(smear)
    yield fields_in_words(smear)
    if referred_cell_count(smear):
        yield referred_in_words(smear)


def share_in_words(smear: SmearFindings, *, least_cells: int = MIN_CELLS_FOR_PERCENT) -> str:
    """The share of blasts with its interval, or that the count is too small for one."""
    counted = smear.white_cells_counted
    if smear.leukemic_fraction is None or not has_percentages(counted, least=least_cells):
        return f"Fewer than {least_cells} white cells were counted, so no percentage is given."
    return f"Blasts of the counted cells: {interval_text(smear.leukemic_fraction, counted)}."


def buckets_in_words(smear: SmearFindings) -> str:
    """Where every cell that was found stands; the numbers add up."""
    buckets = bucket_counts(smear)
    apart = [
        _count(count, type_word(cell_type))
        for cell_type, count in smear.not_leukocytes.items()
        if count
    ]
    if buckets[Bucket.UNDETERMINED]:
        apart.append(f"{buckets[Bucket.UNDETERMINED]} of undetermined type")
    listed = [
        f"{buckets[Bucket.COUNTED]} counted",
        f"{buckets[Bucket.REFERRED]} referred to an expert",
        *apart,
    ]
    return f"{_count(found_cell_count(smear), 'cell')} found: {', '.join(listed)}."


def referred_in_words(smear: SmearFindings) -> str:
    """How many cells an expert should see, and why; a cell may have several reasons."""
    reasons = ", ".join(f"{REASON_WORDS[r]} {n}" for r, n in sorted(smear.referred.items()))
    return f"{_count(referred_cell_count(smear), 'cell')} referred to an expert ({reasons})."


def fields_in_words(smear: SmearFindings) -> str:
    """How many fields were used, and why the others were not."""
    used = f"{usable_field_count(smear)} of {_count(len(smear.fields), 'field')} used"
    flags = refused_fields_by_flag(smear)
    if not flags:
        return f"{used}."
    reasons = ", ".join(f"{FLAG_WORDS[f]} {n}" for f, n in sorted(flags.items()))
    return f"{used}; refused: {reasons}."


def refused_fields_by_flag(smear: SmearFindings) -> Mapping[QualityFlag, int]:
    """Refused fields by flag; a field with two flags stands under both."""
    return Counter(
        flag
        for field in smear.fields
        if not field.quality.is_usable
        for flag in field.quality.flags
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
