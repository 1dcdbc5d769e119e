"""Reviews of smears by people, made by hand for tests of reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.domain import (
    Comment,
    ModelCounts,
    Reviewer,
    Signature,
    SignatureMeaning,
    SignOff,
    SmearFindings,
    SmearReview,
)
from pipeline.findings.smear_summary import referred_cell_count

READER = Reviewer(
    account="jmeyer", name="Jana Meyer", role="hematologist", organization="Lab North"
)
SIGNED_AT = datetime(2026, 11, 23, 8, 15, 0, tzinfo=UTC)


def reviewed(smear: SmearFindings, sign_off: SignOff = SignOff.FINAL) -> SmearFindings:
    """The smear as somebody looked at it, changed nothing and left it signed like this."""
    meanings = [] if sign_off is SignOff.UNSIGNED else [SignatureMeaning.REVIEWED]
    if sign_off is SignOff.WITHDRAWN:
        meanings.append(SignatureMeaning.WITHDRAWN)
    return replace(
        smear,
        review=SmearReview(
            revision=1 + len(meanings),
            sign_off=sign_off,
            is_current=True,
            signatures=tuple(
                Signature(reviewer=READER, at=SIGNED_AT, meaning=meaning, revision=2)
                for meaning in meanings
            ),
            reviewers=(READER,),
            model_counts=ModelCounts(
                white_cells_counted=smear.white_cells_counted,
                leukemic_count=smear.leukemic_count,
                referred_count=referred_cell_count(smear),
                differential=smear.differential,
                leukemic_fraction=smear.leukemic_fraction,
            ),
            changes=(),
            confirmed=1,
            not_cells=0,
            beyond_target=0,
            target_count=0,
            added=0,
            excluded_fields=(),
            starred=(),
            comments=(),
        ),
    )


def commented(smear: SmearFindings, *comments: tuple[str, tuple[str, ...]]) -> SmearFindings:
    """The smear as somebody signed it, with remarks: text, and keys of cells."""
    smear = reviewed(smear)
    assert smear.review is not None
    kept = tuple(
        Comment(
            event_id=f"{number:032}",
            at=SIGNED_AT + timedelta(minutes=number),
            reviewer=READER,
            cells=cells,
            text=text,
        )
        for number, (text, cells) in enumerate(comments)
    )
    return replace(smear, review=replace(smear.review, comments=kept))
