"""The steps behind the jobs: analyse an image, report a smear. They know no queue.

Every step may run twice, even in two processes: what it makes becomes visible by one rename, and
what is there already is left alone (law 2).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydicom import Dataset

from listener.storage.inbox import Inbox
from listener.storage.results import ReportIndex, ResultsFolder, SmearFolder, WrittenResult
from listener.storage.smear_grouping import in_order_of_acquisition
from listener.workflow.error_boundary import translate_errors
from listener.workflow.memory_budget import MOST_SHARED_BYTES, MemoryBudget, bytes_needed
from pipeline.domain import Call, FieldFindings, SmearFindings, SmearId, SOPInstanceUID
from pipeline.errors import Defect, NeedsReview, Rejected, RetryLater, SmearlinkError
from pipeline.findings.percentages import MIN_CELLS_FOR_PERCENT
from pipeline.findings.review import fold, review_smear
from pipeline.findings.smear_summary import gather_smear
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.dicom.deidentification import Pseudonymiser
from reporting.previous_version import KINDS_READ, read_previous_version
from reporting.results import PreviousVersion, ReportContext, Result, ResultKind


class Analysis(Protocol):
    """A `listener.workflow.image_analysis.ImageAnalysis`."""

    @property
    def model_key(self) -> str:
        """Which networks answer, as in `ModelIdentity.key`."""

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        """Findings of every frame of an image, in order."""


LEAST_STEP = timedelta(seconds=1)
"""Between the times of two versions where the clock gives none."""

ResultBuilder = Callable[..., Iterator[Result]]
"""`reporting.result_set.build_result_set`."""

SharedBuilder = Callable[..., Iterator[Result | WrittenResult]]
"""The same, some of it written already by a process beside."""

Pseudonyms = Callable[[Sequence[str]], Pseudonymiser | None]
"""What makes the pseudonyms, or None when none of these destinations wants them."""

Router = Callable[..., tuple[str, ...]]
"""Names the destinations of a report; a `listener.workflow.destinations.Routes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What a site wants in its reports."""

    kinds: frozenset[ResultKind]
    compress_images: bool
    software_version: str
    min_cells_for_percent: int = MIN_CELLS_FOR_PERCENT
    hl7_pdf: bool = False
    pdf_font: Path | None = None
    model_card: str = ""
    """Of the network, in Markdown."""
    readers: int = 1
    """People who must sign a smear before it counts as signed."""


class ReportStatus(StrEnum):
    """What an attempt to report a smear found."""

    WAITING = "waiting"
    """Images of it are still to be analysed."""
    OVERTAKEN = "overtaken"
    """A newer image was analysed since, whose own job reports the smear."""
    EMPTY = "empty"
    UNCHANGED = "unchanged"
    """The last report holds exactly these images already."""
    REPORTED = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseResult:
    """The outcome of one attempt to report a smear."""

    standing: ReportStatus
    version: int = 0
    destinations: tuple[str, ...] = ()


class ImageStep:
    """Analyses one image, or parks it where a person sees it."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        results: ResultsFolder,
        analysis: Analysis,
        audit: AuditSink,
        memory: MemoryBudget | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._inbox = inbox
        self._results = results
        self._analysis = analysis
        self._audit = audit
        self._monotonic = monotonic

    def analyse(self, image: SOPInstanceUID, smear_id: SmearId) -> str | None:
        """Analyse an image and keep its findings; the code under which it was parked, if it was.

        Raises RetryLater only: everything else that goes wrong parks this image alone.
        """
        folder = self._results.smear(smear_id)
        try:
            with translate_errors():
                if not folder.has_fields(image):
                    self._analyse(image, folder)
        except RetryLater:
            raise
        except SmearlinkError as err:
            return self.park(image, err)
        return None

    def park(self, image: SOPInstanceUID, err: SmearlinkError) -> str:
        """Park an image under the error's code."""
        with translate_errors():
            self._inbox.park(image, err.code)
        self._audit.record(
            Event.IMAGE_PARKED,
            outcome=Outcome.SERIOUS_FAILURE,
            sop_instance_uid=image,
            code=err.code,
            error_type=type(err.__cause__ or err).__name__,
        )
        return err.code

    def analysed_count(self, smear_id: SmearId) -> int:
        """How many images of a smear were analysed so far."""
        with translate_errors():
            return len(self._results.smear(smear_id).analysed())

    def is_settled(self, image: SOPInstanceUID, smear_id: SmearId) -> bool:
        """Whether an image was analysed, parked or removed."""
        with translate_errors():
            return self._results.smear(smear_id).has_fields(image) or not self._inbox.is_waiting(
                image
            )

    def _analyse(self, image: SOPInstanceUID, folder: SmearFolder) -> None:
        self._check_that_it_can_join(folder)
        with _reserved(self._memory, self._inbox, (image,)):
            began = self._monotonic()
            fields = self._analysis(self._inbox.read(image))
        calls = Counter(cell.call for field in fields for cell in field.cells)
        self._audit.record(
            Event.IMAGE_ANALYSED,
            sop_instance_uid=image,
            frames=len(fields),
            cells_found=calls.total(),
            leukemic=calls[Call.LEUKEMIC],
            normal=calls[Call.NORMAL],
            referred=calls[Call.REFERRED],
            duration_ms=round((self._monotonic() - began) * 1000),
            model_sha256=fields[0].model.sha256,
            execution_provider=fields[0].model.execution_provider,
        )
        folder.save_fields(image, fields)

    def _check_that_it_can_join(self, folder: SmearFolder) -> None:
        """Raise NeedsReview where people decided about cells that another network found.

        They keep their findings, and a smear with two networks could neither be reported nor read.
        """
        if not folder.review().revision():
            return
        known = (field for one in folder.analysed() for field in folder.fields(one))
        if any(field.model.key != self._analysis.model_key for field in known):
            raise NeedsReview(
                "Its smear was reviewed with findings of another network or calibration, and "
                "cannot take it. Send it in a series of its own.",
                code="reviewed_with_another_network",
            )


class ReportStep:
    """Turns the analysed images of one smear into the next version of its report."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        results: ResultsFolder,
        analysis: Analysis,
        build_results: SharedBuilder,
        build_variant: ResultBuilder,
        route: Router,
        settings: ReportSettings,
        audit: AuditSink,
        clock: Callable[[], datetime],
        pseudonyms: Pseudonyms = lambda _destinations: None,
        memory: MemoryBudget | None = None,
        frames_at_once: int = 1,
        give_back: Callable[[], None] = lambda: None,
    ) -> None:
        """`build_variant` builds what reads other sources than the inbox's, as under pseudonyms;
        `frames_at_once` are worked on by `build_results`; `give_back` gives free memory back, of
        the analysis before a report and of the report after it.
        """
        self._give_back = give_back
        self._memory = memory
        self._frames_at_once = frames_at_once
        self._pseudonyms = pseudonyms
        self._inbox = inbox
        self._results = results
        self._analysis = analysis
        self._build_results = build_results
        self._build_variant = build_variant
        self._route = route
        self._settings = settings
        self._audit = audit
        self._clock = clock

    def close(
        self,
        smear_id: SmearId,
        *,
        known: int | None,
        is_waiting: bool,
        reviewed_to: int | None = None,
    ) -> CloseResult:
        """Report a smear if it is due.

        `known` is how many images were analysed when this close was asked for; None closes
        whatever is there. `is_waiting` says that images of the smear are still in the queue.
        `reviewed_to` is the revision of the review that asks for the report, if one does: a later
        act has a close of its own.
        """
        with translate_errors():
            folder = self._results.smear(smear_id)
            analysed = folder.analysed()
            latest = folder.latest()
            if is_waiting:
                return CloseResult(standing=ReportStatus.WAITING)
            if not analysed:
                return CloseResult(standing=ReportStatus.EMPTY)
            if known is not None and len(analysed) > known:
                return CloseResult(standing=ReportStatus.OVERTAKEN)
            log = folder.review()
            if reviewed_to is not None and log.revision() > reviewed_to:
                return CloseResult(standing=ReportStatus.OVERTAKEN)
            if (
                latest is not None
                and frozenset(latest.sources) == analysed
                and latest.review_revision == log.revision()
            ):
                return _closing(ReportStatus.UNCHANGED, latest)
            with _reserved(self._memory, self._inbox, analysed, at_once=self._frames_at_once):
                self._give_back()
                index = self._report(smear_id, folder, analysed, latest)
        self._give_back()
        self._audit.record(
            Event.SMEAR_REPORTED,
            smear_id=smear_id,
            version=index.version,
            count=len(index.results),
            model_sha256=index.model_sha256,
        )
        return _closing(ReportStatus.REPORTED, index)

    def _report(
        self,
        smear_id: SmearId,
        folder: SmearFolder,
        images: frozenset[SOPInstanceUID],
        latest: ReportIndex | None,
    ) -> ReportIndex:
        version = latest.version + 1 if latest else 1
        fields = [field for image in sorted(images) for field in self._fields(folder, image)]
        with _naming_what_is_gone():
            acquired = in_order_of_acquisition(self._inbox, images)
        review = fold(folder.review().events(), readers=self._settings.readers)
        smear = review_smear(gather_smear(smear_id, fields, acquired=acquired), review)
        first = min(images)
        now = self._clock()
        if latest is not None and now < latest.issued_at:
            # The clock was set back: viewers and laboratories take the older time for the older.
            now = (latest.issued_at + LEAST_STEP).astimezone(now.tzinfo)
        context = ReportContext(
            version=version,
            issued_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            software_version=self._settings.software_version,
            compress_images=self._settings.compress_images,
            kinds=self._settings.kinds,
            previous=_previous(folder, latest, under_pseudonyms=False),
            min_cells_for_percent=self._settings.min_cells_for_percent,
            hl7_pdf=self._settings.hl7_pdf,
            pdf_font=self._settings.pdf_font,
            model_card=self._settings.model_card,
        )
        refuse = self._refuse(smear_id, version)
        destinations = self._route(
            smear, header=self._inbox.read_header(first), image=self._inbox.facts(first)
        )
        return folder.publish(
            self._build_results(smear, read_source=self._source, context=context, refuse=refuse),
            version=version,
            issued_at=context.issued_at,
            model_sha256=smear.model.sha256,
            software_version=context.software_version,
            sources=images,
            destinations=destinations,
            review_revision=review.revision,
            pseudonymous=self._under_pseudonyms(
                smear,
                replace(context, previous=_previous(folder, latest, under_pseudonyms=True)),
                destinations,
            ),
        )

    def _refuse(
        self, smear_id: SmearId, version: int
    ) -> Callable[[ResultKind, SmearlinkError], None]:
        """Records a document that could not be built; the others are reported without it."""

        def record(kind: ResultKind, err: SmearlinkError) -> None:
            self._audit.record(
                Event.RESULT_REFUSED,
                outcome=Outcome.SERIOUS_FAILURE,
                smear_id=smear_id,
                version=version,
                kinds=[str(kind)],
                code=err.code,
            )

        return record

    def _under_pseudonyms(
        self, smear: SmearFindings, context: ReportContext, destinations: Sequence[str]
    ) -> Iterator[Result]:
        """The results once more under pseudonyms, where a destination wants them.

        What forbids them (text burned into a source) keeps nobody else waiting: the destination
        that wanted them is parked when its turn comes.
        """
        made = 0
        try:
            pseudonymiser = self._pseudonyms(destinations)
            if pseudonymiser is None:
                return
            variant = pseudonymiser.variant(smear, read_source=self._source, context=context)
            for result in self._build_variant(
                variant.smear,
                read_source=variant.read_source,
                context=variant.context,
                refuse=self._refuse(smear.smear_id, context.version),
            ):
                made += 1
                yield result
        except (NeedsReview, Rejected) as err:
            if made:
                raise
            self._audit.record(
                Event.RESULT_REFUSED,
                outcome=Outcome.SERIOUS_FAILURE,
                smear_id=smear.smear_id,
                version=context.version,
                code=err.code,
            )

    def _fields(self, folder: SmearFolder, image: SOPInstanceUID) -> tuple[FieldFindings, ...]:
        fields = folder.fields(image)
        if all(field.model.key == self._analysis.model_key for field in fields):
            return fields
        if folder.review().revision():
            # People decided about these cells: another network might number them otherwise.
            return fields
        # Found by an older model: one report speaks with one voice.
        fields = self._analysis(self._source(image))
        folder.save_fields(image, fields)
        return fields

    def _source(self, image: SOPInstanceUID) -> Dataset:
        with _naming_what_is_gone():
            return self._inbox.read(image)


def _previous(
    folder: SmearFolder, latest: ReportIndex | None, *, under_pseudonyms: bool
) -> PreviousVersion | None:
    """What the version before left behind; None where it cannot be read any more."""
    if latest is None:
        return None
    wanted = [
        result
        for result in latest.results
        if result.kind in KINDS_READ and result.is_pseudonymous is under_pseudonyms
    ]
    try:
        return read_previous_version([folder.read(latest.version, one) for one in wanted])
    except (Defect, FileNotFoundError):
        return None


@contextmanager
def _reserved(
    memory: MemoryBudget | None,
    inbox: Inbox,
    images: Iterable[SOPInstanceUID],
    *,
    at_once: int = 1,
) -> Iterator[None]:
    """Holds the memory for the largest of these images, of which one at a time is worked on, or
    several `at_once` if they are small.
    """
    if memory is None:
        yield
        return
    largest = max((_bytes_for(inbox, image) for image in images), default=0)
    with memory.reserved(largest * at_once if largest <= MOST_SHARED_BYTES else largest):
        yield


def _bytes_for(inbox: Inbox, image: SOPInstanceUID) -> int:
    """0 for an image that is gone or damaged, which is told when it is read."""
    try:
        return bytes_needed(inbox.read_header(image), to_read=inbox.bytes_to_read(image))
    except Rejected:
        return 0


@contextmanager
def _naming_what_is_gone() -> Iterator[None]:
    """Raise NeedsReview for an image that the inbox no longer has.

    One that is damaged on disk keeps its own code.
    """
    try:
        yield
    except Rejected as err:
        if err.code != "image_absent":
            raise
        raise NeedsReview(
            "A late image or a review reopens a smear whose earlier images are gone from the "
            "inbox (retention): send them again, then retry",
            code="image_retired",
        ) from err


def _closing(standing: ReportStatus, index: ReportIndex) -> CloseResult:
    return CloseResult(standing=standing, version=index.version, destinations=index.destinations)
