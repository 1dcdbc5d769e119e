"""A smear with what the network found and what people did to it, read from the data folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from listener.storage.data_folder import Store
from listener.storage.smear_grouping import in_order_of_acquisition
from pipeline.domain import SmearFindings, SmearId, SOPInstanceUID
from pipeline.errors import Rejected, SmearlinkError
from pipeline.findings.review import ReviewState, fold, review_smear
from pipeline.findings.smear_summary import gather_smear


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReviewedSmear:
    """Findings of the network, state of the review, and the smear that follows from both."""

    found: SmearFindings
    state: ReviewState

    @property
    def smear(self) -> SmearFindings:
        """The smear as people left it."""
        return review_smear(self.found, self.state)


def read_smear(store: Store, smear_id: SmearId, *, readers: int = 1) -> ReviewedSmear:
    """The smear as it is on disk now; `readers` must sign it before it counts as signed.

    Raises `Defect` where nothing of it was analysed, and `NeedsReview` where two networks
    answered for it.
    """
    folder = store.results.smear(smear_id)
    images = folder.analysed()
    fields = [field for image in sorted(images) for field in folder.fields(image)]
    present = [image for image in images if _is_kept(store, image)]
    acquired = in_order_of_acquisition(store.inbox, present)
    return ReviewedSmear(
        found=gather_smear(smear_id, fields, acquired=acquired),
        state=fold(folder.review().events(), readers=readers),
    )


def reviewed_smears(store: Store, *, readers: int = 1) -> Iterator[ReviewedSmear]:
    """Every smear with at least one review event; what cannot be counted is left out."""
    for smear_id in sorted(store.results.smears()):
        if store.results.smear(smear_id).review().revision() == 0:
            continue
        try:
            yield read_smear(store, smear_id, readers=readers)
        except SmearlinkError:
            continue


def _is_kept(store: Store, image: SOPInstanceUID) -> bool:
    """Whether the image is still there, or retention deleted it."""
    try:
        store.inbox.path_of(image)
    except Rejected:
        return False
    return True
