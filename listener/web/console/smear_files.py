"""Reads a smear's files: its findings with identity, and its row for the index."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from pydicom import Dataset, dcmread

from listener.storage.inbox import Inbox
from listener.storage.receipts import DeliveryState
from listener.storage.results import ReportIndex, ResultsFolder, SmearFolder
from listener.storage.smear_grouping import in_order_of_acquisition
from listener.web.console.smear_index import DeliveryStanding, ReviewStanding, SmearRow
from pipeline.domain import QualityFlag, SignOff, SmearFindings, SmearId, SOPInstanceUID
from pipeline.errors import SmearlinkError
from pipeline.findings.review import ReviewState, review_smear
from pipeline.findings.smear_summary import gather_smear, referred_cell_count
from reporting.results import DICOM_KINDS

KEPT_IN_MEMORY = 8
"""Smears whose findings stay parsed: one that a person pages through is asked for often."""

IsDelivered = Callable[[ReportIndex, str, SmearFolder], bool]
"""Whether a destination, by name, stands behind everything that it was to get of a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearIdentity:
    """Whose smear it is, from the header of its first image."""

    accession: str = ""
    patient_id: str = ""
    patient_name: str = ""
    specimen: str = ""
    notes: str = ""
    study_uid: str = ""
    pseudonym: str = ""
    """Of the patient, as the site's results under pseudonyms have it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenSmear:
    """One smear as its page shows it."""

    smear: SmearFindings
    index: ReportIndex
    identity: SmearIdentity


class SmearFiles:
    """The results folder and the inbox, read for people."""

    def __init__(
        self,
        inbox: Inbox,
        results: ResultsFolder,
        is_delivered: IsDelivered,
        pseudonym_of: Callable[[Dataset], str],
        review_of: Callable[[SmearId], ReviewState],
    ) -> None:
        self._inbox, self._results = inbox, results
        self._is_delivered = is_delivered
        self._pseudonym_of = pseudonym_of
        self._review_of = review_of
        self._open: OrderedDict[tuple[str, int], OpenSmear] = OrderedDict()
        self._lock = Lock()

    def open(self, smear_id: SmearId) -> OpenSmear | None:
        """A reported smear; None before its first report, or when there is none."""
        folder = self._results.smear(smear_id)
        index = folder.latest()
        if index is None:
            return None
        key = (str(smear_id), index.version)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        made = OpenSmear(
            smear=self._gather(smear_id, folder, index),
            index=index,
            identity=self._identity(folder, index),
        )
        with self._lock:
            self._open[key] = made
            while len(self._open) > KEPT_IN_MEMORY:
                self._open.popitem(last=False)
        return made

    def stamp(self, smear_id: SmearId) -> str:
        """Changes whenever a report, an analysed image or a reviewer's act is added."""
        return self._results.smear(smear_id).stamp()

    def row(
        self, smear_id: SmearId, *, parked: Iterable[tuple[str, str]] = (), earlier: SmearRow | None
    ) -> SmearRow | None:
        """The row of a smear as people left it; None when nothing of it was analysed.

        `parked` are (smear, destination) of deliveries that an operator must see. `earlier` gives
        the moment of arrival once the images are past their retention period.
        """
        folder = self._results.smear(smear_id)
        stamp = folder.stamp()
        index = folder.latest()
        if index is None:
            return self._row_before_report(smear_id, folder, stamp)
        opened = self.open(smear_id)
        if opened is None:
            return None
        smear = review_smear(opened.smear, self._review_of(smear_id))
        identity = opened.identity
        stuck = {destination for parked_smear, destination in parked if parked_smear == smear_id}
        source, received_at = self._arrival(index.sources)
        if received_at is None:
            received_at = earlier.received_at if earlier else index.issued_at
        flags = {flag for field in smear.fields for flag in field.quality.flags}
        return SmearRow(
            smear_id=smear_id,
            version=index.version,
            study_uid=identity.study_uid,
            accession=identity.accession,
            patient_id=identity.patient_id,
            patient_name=identity.patient_name,
            specimen=identity.specimen,
            pseudonym=identity.pseudonym,
            device=source or (earlier.device if earlier else ""),
            received_at=received_at,
            reported_at=index.issued_at,
            fields=len(smear.fields),
            fields_rejected=sum(not field.quality.is_usable for field in smear.fields),
            cells=sum(len(field.cells) for field in smear.fields),
            counted=smear.white_cells_counted,
            blasts=smear.leukemic_count,
            referred=referred_cell_count(smear),
            share=smear.leukemic_fraction,
            grade=smear.grade,
            flags=tuple(flag for flag in QualityFlag if flag in flags),
            deliveries={
                name: DeliveryStanding.PARKED if name in stuck else self._standing(index, name)
                for name in index.destinations
            },
            review=_review_standing(smear),
            stamp=stamp,
        )

    def header(self, image: SOPInstanceUID) -> Dataset | None:
        """An image's header; None past its retention period."""
        try:
            return self._inbox.read_header(image)
        except SmearlinkError:
            return None

    def _gather(self, smear_id: SmearId, folder: SmearFolder, index: ReportIndex) -> SmearFindings:
        fields = [field for image in index.sources for field in folder.fields(image)]
        try:
            acquired = in_order_of_acquisition(self._inbox, index.sources)
        except SmearlinkError:
            acquired = ()  # past retention: in the order of their UIDs
        return gather_smear(smear_id, fields, acquired=acquired)

    def _identity(self, folder: SmearFolder, index: ReportIndex) -> SmearIdentity:
        header = self.header(min(index.sources)) or self._header_of_result(folder, index)
        return self._identity_in(header) if header is not None else SmearIdentity()

    def _identity_in(self, header: Dataset) -> SmearIdentity:
        return SmearIdentity(
            accession=_text(header, "AccessionNumber"),
            patient_id=_text(header, "PatientID"),
            patient_name=_person(header),
            specimen=_text(header, "ContainerIdentifier"),
            notes=_text(header, "ImageComments"),
            study_uid=_text(header, "StudyInstanceUID"),
            pseudonym=self._pseudonym_of(header),
        )

    def _header_of_result(self, folder: SmearFolder, index: ReportIndex) -> Dataset | None:
        """Results carry the identity of their images, and stay when those are gone."""
        for result in index.results:
            if result.kind in DICOM_KINDS and not result.is_pseudonymous:
                content = folder.read(index.version, result).content
                return dcmread(io.BytesIO(content), stop_before_pixels=True)
        return None

    def _row_before_report(
        self, smear_id: SmearId, folder: SmearFolder, stamp: str
    ) -> SmearRow | None:
        images = sorted(folder.analysed())
        header = self.header(images[0]) if images else None
        if header is None:
            return None
        identity = self._identity_in(header)
        source, received_at = self._arrival(images)
        return SmearRow(
            smear_id=smear_id,
            version=0,
            study_uid=identity.study_uid,
            accession=identity.accession,
            patient_id=identity.patient_id,
            patient_name=identity.patient_name,
            specimen=identity.specimen,
            pseudonym=identity.pseudonym,
            device=source,
            received_at=received_at or datetime.now(UTC),
            reported_at=None,
            fields=len(images),
            fields_rejected=0,
            cells=0,
            counted=0,
            blasts=0,
            referred=0,
            share=None,
            grade=None,
            flags=(),
            deliveries={},
            stamp=stamp,
        )

    def _arrival(self, images: Iterable[SOPInstanceUID]) -> tuple[str, datetime | None]:
        """From whom and when the first image came; nothing past its retention period."""
        try:
            first = min((self._inbox.facts(image) for image in images), key=lambda i: i.received_at)
        except (SmearlinkError, ValueError):
            return "", None
        return first.source, first.received_at

    def _standing(self, index: ReportIndex, name: str) -> DeliveryStanding:
        folder = self._results.smear(index.smear_id)
        if self._is_delivered(index, name, folder):
            return DeliveryStanding.DELIVERED
        states = {line.state for line in folder.receipts(name).latest().values()}
        if DeliveryState.AWAITING_COMMITMENT in states:
            return DeliveryStanding.AWAITING_COMMITMENT
        return DeliveryStanding.WAITING


def _review_standing(smear: SmearFindings) -> ReviewStanding:
    review = smear.review
    if review is None:
        return ReviewStanding.NOT_REVIEWED
    if review.sign_off is SignOff.UNSIGNED:
        return ReviewStanding.IN_REVIEW
    if review.sign_off is SignOff.WITHDRAWN:
        return ReviewStanding.WITHDRAWN
    return ReviewStanding.SIGNED if review.is_current else ReviewStanding.CHANGED


def _person(header: Dataset) -> str:
    """The name as people write it: family, given; its first group of characters (PS3.5 6.2.1)."""
    name = header.get("PatientName")
    if not name:
        return ""
    family, given = str(name.family_name).strip(), str(name.given_name).strip()
    return ", ".join(part for part in (family, given) if part)


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()
