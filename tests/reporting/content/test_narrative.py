"""The sentences of a report: every word of the vocabulary has one, and none names a disease."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Call, CountWarning, Grade, QualityFlag, ReferralReason
from reporting.content.narrative import (
    FLAG_WORDS,
    GRADE_WORDS,
    LIMITS,
    REASON_WORDS,
    WARNING_WORDS,
    findings_in_words,
    refused_fields_by_flag,
)
from tests.findings import make_field_findings, make_smear_findings

DISEASE = re.compile(r"leuk[a]?emia|lymphoma|diagnos|\bALL\b|\bAML\b", re.IGNORECASE)
CALLS = st.lists(st.sampled_from(Call), max_size=8)
FLAGS = st.frozensets(st.sampled_from(QualityFlag), max_size=3)


def test_every_word_has_a_sentence() -> None:
    assert set(GRADE_WORDS) == set(Grade)
    assert set(WARNING_WORDS) == set(CountWarning)
    assert set(REASON_WORDS) == set(ReferralReason)
    assert set(FLAG_WORDS) == set(QualityFlag)


@given(CALLS, FLAGS, st.booleans())
def test_no_sentence_names_a_disease(
    calls: list[Call], flags: frozenset[QualityFlag], is_usable: bool
) -> None:
    field = make_field_findings(calls=calls, flags=flags, is_usable=is_usable)

    said = " ".join([*findings_in_words(make_smear_findings([field])), LIMITS])

    assert not DISEASE.search(said)


def test_referred_cells_and_refused_fields_are_told() -> None:
    fields = [
        make_field_findings(sop_instance_uid="1.2.1", calls=[Call.REFERRED] * 2),
        make_field_findings(
            sop_instance_uid="1.2.2",
            flags=frozenset({QualityFlag.OUT_OF_FOCUS}),
            is_usable=False,
        ),
    ]

    said = " ".join(findings_in_words(make_smear_findings(fields)))

    assert "2 cells referred to an expert (uncertain 2)." in said
    assert "2 cells found: 0 counted, 2 referred to an expert." in said
    assert "1 of 2 fields used; refused: out of focus 1." in said


def test_a_field_with_two_flags_stands_under_both() -> None:
    flags = frozenset({QualityFlag.TOO_THICK, QualityFlag.EMPTY})
    smear = make_smear_findings([make_field_findings(flags=flags, is_usable=False)])

    assert refused_fields_by_flag(smear) == dict.fromkeys(flags, 1)
