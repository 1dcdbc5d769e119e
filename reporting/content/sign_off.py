"""Says how far a version of a report is signed, in words and in the codes of each standard.

Nothing but a signature makes a report final, so no word for a change of a final report (amended,
corrected, C) stands for an unsigned version, whatever its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.domain import (
    Call,
    CellChange,
    Comment,
    Signature,
    SignatureMeaning,
    SignOff,
    SmearFindings,
    SmearReview,
)
from pipeline.findings.percentages import has_percentages, interval_text
from pipeline.findings.smear_summary import type_word

MOST_COMMENTS = 20
MOST_CELLS_NAMED = 5
MOST_CHANGES = 12
"""Changed cells that are listed in a sentence; all of them stand in the table."""

FHIR_STATUS: Mapping[SignOff, str] = {
    SignOff.UNSIGNED: "preliminary",
    SignOff.FINAL: "final",
    SignOff.CORRECTED: "corrected",
    SignOff.AMENDED: "amended",
    SignOff.APPENDED: "appended",
    SignOff.WITHDRAWN: "entered-in-error",
}
"""R4 diagnostic-report-status."""

HL7_RESULT_STATUS: Mapping[SignOff, str] = {
    SignOff.UNSIGNED: "P",
    SignOff.FINAL: "F",
    SignOff.CORRECTED: "C",
    SignOff.AMENDED: "C",
    SignOff.APPENDED: "C",
    SignOff.WITHDRAWN: "X",
}
"""OBR-25 (HL7 table 0123)."""
HL7_OBSERVATION_STATUS: Mapping[SignOff, str] = {**HL7_RESULT_STATUS, SignOff.WITHDRAWN: "W"}
"""OBX-11 (HL7 table 0085); W posts the original as wrong."""

VERSION_WORDS: Mapping[SignOff, str] = {
    SignOff.UNSIGNED: "preliminary, not signed",
    SignOff.FINAL: "final, signed",
    SignOff.CORRECTED: "corrected after it was signed",
    SignOff.AMENDED: "amended after it was signed",
    SignOff.APPENDED: "extended after it was signed",
    SignOff.WITHDRAWN: "WITHDRAWN",
}

MEANING_WORDS: Mapping[SignatureMeaning, str] = {
    SignatureMeaning.REVIEWED: "Reviewed and signed",
    SignatureMeaning.COUNTERSIGNED: "Countersigned",
    SignatureMeaning.WITHDRAWN: "Withdrawn",
}


def sign_off_of(smear: SmearFindings) -> SignOff:
    """How far the version is signed; unsigned where nobody reviewed the smear."""
    return smear.review.sign_off if smear.review else SignOff.UNSIGNED


def is_signed(smear: SmearFindings) -> bool:
    """Whether a person answers for this very version."""
    review = smear.review
    is_standing = review is not None and review.is_current and bool(review.signatures)
    return is_standing and sign_off_of(smear) not in (SignOff.UNSIGNED, SignOff.WITHDRAWN)


def standing_signatures(smear: SmearFindings) -> tuple[Signature, ...]:
    """The signatures that make this version final: none of one that changed since."""
    if smear.review is None or not is_signed(smear):
        return ()
    return tuple(
        one for one in smear.review.signatures if one.meaning is not SignatureMeaning.WITHDRAWN
    )


def review_in_words(smear: SmearFindings, *, least_cells: int) -> Iterator[str]:
    """Who reviewed and signed, what they changed, and what the network alone had counted."""
    review = smear.review
    if review is None:
        yield "No person has reviewed and signed it."
        return
    yield _state_in_words(smear, review)
    yield from map(signature_in_words, review.signatures)
    yield _work_in_words(review)
    if review.changes:
        yield changes_in_words(smear)
    yield _model_in_words(review, least_cells)


def changes_in_words(smear: SmearFindings) -> str:
    """Which cells people changed, from what to what; the first of them where there are many."""
    changes = smear.review.changes if smear.review else ()
    shown = "; ".join(_change_in_words(smear, change) for change in changes[:MOST_CHANGES])
    more = f"; and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return f"Changed: {shown}{more}."


def comments_in_words(smear: SmearFindings) -> Iterator[str]:
    """What people remarked, the latest of them where there are many."""
    comments = smear.review.comments if smear.review else ()
    if len(comments) > MOST_COMMENTS:
        yield f"The latest {MOST_COMMENTS} of {len(comments)} comments:"
    for one in comments[-MOST_COMMENTS:]:
        yield f"Comment by {one.reviewer.name} {_about(smear, one)}: {one.text}"


def _about(smear: SmearFindings, comment: Comment) -> str:
    if not comment.cells:
        return "on the smear"
    named = ", ".join(cell_in_words(smear, key) for key in comment.cells[:MOST_CELLS_NAMED])
    more = len(comment.cells) - MOST_CELLS_NAMED
    return f"on {named} and {more} more" if more > 0 else f"on {named}"


def _change_in_words(smear: SmearFindings, change: CellChange) -> str:
    was = "referred" if change.model_call is Call.REFERRED else type_word(change.model_type)
    to = change.to.replace("_", " ")
    return f"{cell_in_words(smear, change.cell)} {was} to {to} ({change.reviewer.name})"


def cell_in_words(smear: SmearFindings, key: str) -> str:
    """`field 3 #41`, as on the pictures, of a cell key."""
    field, _, index = key.rpartition(":")
    numbers = {f"{f.sop_instance_uid}:{f.frame}": n for n, f in enumerate(smear.fields, start=1)}
    return f"field {numbers.get(field, '?')} #{index}"


def short_review_words(smear: SmearFindings) -> str:
    """For a strip of a picture."""
    if smear.review is None:
        return "AI result, not reviewed"
    names = ", ".join(person.name for person in smear.review.reviewers)
    by = f" by {names}" if names else ""
    if sign_off_of(smear) is SignOff.WITHDRAWN:
        return "WITHDRAWN: do not use"
    return f"Reviewed{by}, {'signed' if is_signed(smear) else 'not signed'}"


def signature_in_words(signature: Signature) -> str:
    """Name, time and meaning of a signature (21 CFR 11.50)."""
    person = signature.reviewer
    about = ", ".join(words for words in (person.role, person.organization) if words)
    reason = f"; reason: {signature.reason}" if signature.reason else ""
    moment = signature.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{MEANING_WORDS[signature.meaning]} by {person.name} ({about}) on {moment}{reason}."


def _state_in_words(smear: SmearFindings, review: SmearReview) -> str:
    if review.sign_off is SignOff.WITHDRAWN:
        return "WITHDRAWN: nothing in this report may be relied on."
    names = ", ".join(person.name for person in review.reviewers) or "a person"
    if is_signed(smear):
        return f"Reviewed by {names}; this version is signed."
    since = "changed since the last signature" if review.signatures else "not signed"
    return f"Reviewed by {names}; {since}."


def _work_in_words(review: SmearReview) -> str:
    parts = {
        "changed": len(review.changes),
        "confirmed": review.confirmed,
        "of these struck out as no cell": review.not_cells,
        "added": review.added,
        "left out beyond the target count": review.beyond_target,
    }
    said = ", ".join(f"{count} {words}" for words, count in parts.items() if count)
    return f"Cells: {said}." if said else "No cell was changed."


def _model_in_words(review: SmearReview, least_cells: int) -> str:
    model = review.model_counts
    counted = model.white_cells_counted
    share = ""
    if model.leukemic_fraction and has_percentages(counted, least=least_cells):
        share = f", {interval_text(model.leukemic_fraction, counted)}"
    return (
        f"The network alone called {model.leukemic_count} of {counted} counted cells "
        f"leukemic{share}, and referred {model.referred_count}."
    )
