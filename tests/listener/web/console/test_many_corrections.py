"""After many random acts of several people, every output and the page say the same numbers."""

from __future__ import annotations

from pathlib import Path

from pipeline.findings.review import Act
from reporting.results import ResultKind
from tests.acceptance.many_corrections import LongReview
from tests.listener.web.console.site import sign_in
from tests.reporting.counts_said import expected, in_gallery, in_page, said_by
from tests.reporting.made import results_of
from tests.reporting.sources import make_source

WITH_NUMBERS = (
    ResultKind.STRUCTURED_REPORT,
    ResultKind.FHIR_BUNDLE,
    ResultKind.HL7_MESSAGE,
    ResultKind.TABLE,
    ResultKind.PDF_REPORT,
)


def test_page_list_and_results_say_what_was_counted_by_hand(tmp_path: Path) -> None:
    """The short form; `tests/acceptance/test_many_corrections.py` has the 1,000 acts."""
    review = LongReview(tmp_path, seed=18)
    sources = {str(f.sop_instance_uid): make_source("microscopic", f) for f in review.fields}
    for number in range(120):
        review.do_something()
        if number == 100:
            review.sign(Act.SIGN)
        assert expected(review.smear) == review.by_hand.count()

    smear, truth = review.smear, review.by_hand.count()
    said = said_by(results_of(smear, sources, *WITH_NUMBERS))
    with review.site.client() as client:
        sign_in(client, "rosa")
        said["page"] = in_page(client.get(f"/smears/{review.smear_id}").text)
    said["gallery"] = in_gallery(smear)
    row = review.site.index_smear(review.smear_id)

    assert said == dict.fromkeys(said, truth)
    assert (row.cells, row.counted, row.referred, row.blasts) == (
        truth.found,
        truth.counted,
        truth.referred,
        truth.differential.get("blast", 0),
    )
