"""Stores findings, reports and receipts, one folder per smear.

    results/tmp/<worker>/                       drafts of one worker, and results that go into
                                                them; swept when it is dead
    results/<smear>/fields/<image>.json         what was found in an image, all frames
    results/<smear>/v<N>/index.json, <result>   the N-th report, whole or absent, never changed
    results/<smear>/receipts/<destination>.jsonl
    results/<smear>/review/<revision>.json      what a person did, event by event

Names are UIDs, digests and names of destinations: never patient data. A report exists from the
rename that gives its folder the name `v<N>`; two workers that build the same one end with one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from listener.storage.receipts import ReceiptJournal, iso
from listener.storage.reviews import ReviewLog
from pipeline.domain import RESEARCH_USE_ONLY, FieldFindings, SmearId, SOPInstanceUID
from pipeline.errors import Defect
from pipeline.findings.serialization import field_from_record, field_to_record
from reporting.durable_files import (
    PRIVATE_FOLDER,
    make_folder,
    publish_file,
    sync_folder,
    write_synced,
)
from reporting.results import DICOM_KINDS, Result, ResultKind

_SAFE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._\-]{0,127}")
_VERSION = re.compile(r"v([1-9][0-9]*)")
_INDEX = "index.json"
_TMP = "tmp"

WRITERS = 4
"""Threads that write a report's files: their waits for the disk coincide, and a journal commits
once for all of them."""
MOST_UNWRITTEN_BYTES = 8 * 2**20
"""Results in memory that are still to be written; a single larger one goes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedResult:
    """One result of a report, as its index names it."""

    kind: ResultKind
    name: str
    media_type: str
    uid: str
    sha256: str
    size_bytes: int
    is_pseudonymous: bool = False
    """Made under pseudonyms, for those destinations alone that want them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenResult:
    """A result that is durable in a folder from which a report takes it."""

    folder: Path
    indexed: IndexedResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportIndex:
    """What one report is made of, and where it goes. No patient data."""

    smear_id: SmearId
    version: int
    issued_at: datetime
    model_sha256: str
    software_version: str
    sources: tuple[SOPInstanceUID, ...]
    """Sorted."""
    destinations: tuple[str, ...]
    results: tuple[IndexedResult, ...]
    review_revision: int = 0
    """Of the review that the report holds; 0 where nobody had reviewed the smear."""


class ResultsFolder:
    """All results of a site; several workers may share it."""

    def __init__(self, root: Path, *, worker_id: str) -> None:
        self._root = root
        self._worker_id = worker_id

    def smear(self, smear_id: SmearId) -> SmearFolder:
        """The folder of one smear; it need not exist yet."""
        return SmearFolder(
            self._root / _safe(smear_id), smear_id=smear_id, tmp=self._tmp(self._worker_id)
        )

    def smears(self) -> Iterator[SmearId]:
        """Every smear with findings, in no order."""
        if not self._root.is_dir():
            return
        with os.scandir(self._root) as entries:
            for entry in entries:
                if entry.name != _TMP and entry.is_dir():
                    yield SmearId(entry.name)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder of this worker for results that a report is made of; deleted at the end."""
        tmp = self._tmp(self._worker_id)
        make_folder(tmp)
        folder = tmp / f"staged-{uuid4().hex}"
        folder.mkdir(mode=PRIVATE_FOLDER)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep_drafts(self, worker_id: str) -> int:
        """Deletes the drafts of a worker that died (or of this one, before it starts).

        A draft is first taken away, in one step: its worker may have lost its lock alone and be
        about to publish it, and a report must not lose its files while it gets its name.
        """
        own = self._tmp(self._worker_id)
        make_folder(own)
        count = 0
        for draft in list(self._tmp(worker_id).glob("*")):
            taken = own / f"swept-{uuid4().hex}"
            try:
                draft.rename(taken)
            except FileNotFoundError:
                continue
            count += 1
            if taken.is_dir():
                shutil.rmtree(taken, ignore_errors=True)
            else:
                taken.unlink(missing_ok=True)
        return count

    def _tmp(self, worker_id: str) -> Path:
        return self._root / _TMP / _safe(worker_id)


class SmearFolder:
    """Findings, reports and receipts of one smear."""

    def __init__(self, path: Path, *, smear_id: SmearId, tmp: Path) -> None:
        self._path = path
        self._smear_id = smear_id
        self._tmp = tmp

    def has_fields(self, image: SOPInstanceUID) -> bool:
        """Whether all frames of an image were analysed."""
        return self._fields_path(image).exists()

    def analysed(self) -> frozenset[SOPInstanceUID]:
        """Every image of the smear that was analysed."""
        folder = self._path / "fields"
        return frozenset(SOPInstanceUID(path.stem) for path in folder.glob("*.json"))

    def save_fields(self, image: SOPInstanceUID, fields: Sequence[FieldFindings]) -> None:
        """Stores the findings of all frames of an image; durable on return."""
        record = {
            "format": 1,
            "research_use_only": True,
            "label": RESEARCH_USE_ONLY,
            "fields": [field_to_record(findings) for findings in fields],
        }
        path = self._fields_path(image)
        make_folder(path.parent)
        make_folder(self._tmp)
        publish_file(path, _json(record), tmp=self._tmp)

    def fields(self, image: SOPInstanceUID) -> tuple[FieldFindings, ...]:
        """The findings of all frames of an image."""
        record = json.loads(self._fields_path(image).read_bytes())
        return tuple(field_from_record(field) for field in record["fields"])

    def stamp(self) -> str:
        """Changes whenever a report, an analysed image, a receipt or a reviewer's act is added."""
        journals = sorted((self._path / "receipts").glob("*.jsonl"))
        places = (self._path, self._path / "fields", self._path / "review", *journals)
        return ":".join(str(place.stat().st_mtime_ns) for place in places if place.exists())

    def latest(self) -> ReportIndex | None:
        """The newest report, or None before the first."""
        versions = self._versions()
        return self.index(max(versions)) if versions else None

    def index(self, version: int) -> ReportIndex:
        """The index of a report that exists."""
        values = json.loads((self._path / f"v{version}" / _INDEX).read_bytes())
        return ReportIndex(
            smear_id=SmearId(values["smear_id"]),
            version=values["version"],
            issued_at=datetime.fromisoformat(values["issued_at"]),
            model_sha256=values["model_sha256"],
            software_version=values["software_version"],
            sources=tuple(SOPInstanceUID(uid) for uid in values["sources"]),
            destinations=tuple(values["destinations"]),
            results=tuple(
                IndexedResult(**{**row, "kind": ResultKind(row["kind"])})
                for row in values["results"]
            ),
            review_revision=values.get("review_revision", 0),
        )

    def publish(
        self,
        results: Iterable[Result | WrittenResult],
        *,
        version: int,
        issued_at: datetime,
        model_sha256: str,
        software_version: str,
        sources: Iterable[SOPInstanceUID],
        destinations: Sequence[str],
        review_revision: int = 0,
        pseudonymous: Iterable[Result] = (),
    ) -> ReportIndex:
        """Make report `version` of results as they come, one in memory at a time.

        Those that are written already are moved into it before the next one is asked for.
        `pseudonymous` are the same results once more, under pseudonyms.

        A DICOM object that an earlier report holds under the same UID is taken from there, byte
        for byte: an instance never changes (PS3.3 C.12.1.1.1). When another worker was faster,
        its report is the report and this one is dropped. Raises OSError when the disk gives out,
        or when this worker was taken for dead meanwhile and its draft was swept.
        """
        make_folder(self._tmp)
        draft = self._tmp / uuid4().hex
        draft.mkdir(mode=PRIVATE_FOLDER)
        try:
            index = ReportIndex(
                smear_id=self._smear_id,
                version=version,
                issued_at=issued_at,
                model_sha256=model_sha256,
                software_version=software_version,
                sources=tuple(sorted(sources)),
                destinations=tuple(destinations),
                review_revision=review_revision,
                results=(
                    *self._written(results, draft),
                    *self._written(pseudonymous, draft, is_pseudonymous=True),
                ),
            )
            write_synced(draft / _INDEX, _json(_index_record(index)))
            sync_folder(draft)
            make_folder(self._path)
            _publish_folder(draft, self._path / f"v{version}")
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return self.index(version)

    def read(self, version: int, result: IndexedResult) -> Result:
        """One result with its bytes; raises Defect when they are not those that were written."""
        content = (self._path / f"v{version}" / result.name).read_bytes()
        if hashlib.sha256(content).hexdigest() != result.sha256:
            raise Defect(
                f"Result {result.uid} was changed after it was made: restore it from a backup",
                code="result_damaged",
            )
        return Result(
            kind=result.kind,
            name=result.name,
            media_type=result.media_type,
            uid=result.uid,
            content=content,
        )

    def receipts(self, destination: str) -> ReceiptJournal:
        """What a destination confirmed of this smear."""
        return ReceiptJournal(self._path / "receipts" / f"{_safe(destination)}.jsonl")

    def review(self) -> ReviewLog:
        """The review log of this smear."""
        return ReviewLog(self._path / "review", tmp=self._tmp)

    def _written(
        self,
        results: Iterable[Result | WrittenResult],
        draft: Path,
        *,
        is_pseudonymous: bool = False,
    ) -> Iterator[IndexedResult]:
        earlier = self._earlier_objects()
        with ResultWriters() as writers:
            pending: deque[Future[WrittenResult]] = deque()
            for result in results:
                about = result.indexed if isinstance(result, WrittenResult) else result
                known = earlier.get(about.uid) if about.kind in DICOM_KINDS else None
                if known:
                    pending.append(writers.submit(self._linked, known, draft))
                elif isinstance(result, WrittenResult):
                    pending.append(_moved(result, draft))
                else:
                    pending.append(writers.write(result, draft, is_pseudonymous=is_pseudonymous))
                while pending and pending[0].done():
                    yield pending.popleft().result().indexed
            for written in pending:
                yield written.result().indexed

    def _linked(self, known: tuple[int, IndexedResult], draft: Path) -> WrittenResult:
        version, indexed = known
        os.link(self._path / f"v{version}" / indexed.name, draft / indexed.name)
        return WrittenResult(folder=draft, indexed=indexed)

    def _earlier_objects(self) -> Mapping[str, tuple[int, IndexedResult]]:
        return {
            result.uid: (version, result)
            for version in self._versions()
            for result in self.index(version).results
        }

    def _versions(self) -> tuple[int, ...]:
        if not self._path.is_dir():
            return ()
        matches = (_VERSION.fullmatch(entry.name) for entry in self._path.iterdir())
        return tuple(sorted(int(match[1]) for match in matches if match))

    def _fields_path(self, image: SOPInstanceUID) -> Path:
        return self._path / "fields" / f"{_safe(image)}.json"


class ResultWriters:
    """Threads that write results, durable; use in a `with`, which waits for all of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="report-writer")
        self._changed = threading.Condition()
        self._unwritten_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._threads.shutdown()

    def write(
        self, result: Result, folder: Path, *, is_pseudonymous: bool = False
    ) -> Future[WrittenResult]:
        """Write one result into a folder; waits while MOST_UNWRITTEN_BYTES are to be written."""
        size = len(result.content)
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size))
            self._unwritten_bytes += size
        return self._threads.submit(self._write, result, folder, is_pseudonymous)

    def submit(self, act: Callable[..., WrittenResult], *arguments: Any) -> Future[WrittenResult]:
        """Do something else with files beside the writing."""
        return self._threads.submit(act, *arguments)

    def _has_room(self, size: int) -> bool:
        waiting = self._unwritten_bytes
        return not waiting or waiting + size <= MOST_UNWRITTEN_BYTES

    def _write(self, result: Result, folder: Path, is_pseudonymous: bool) -> WrittenResult:
        try:
            write_synced(folder / _safe(result.name), result.content)
            indexed = IndexedResult(
                kind=result.kind,
                name=result.name,
                media_type=result.media_type,
                uid=result.uid,
                sha256=hashlib.sha256(result.content).hexdigest(),
                size_bytes=len(result.content),
                is_pseudonymous=is_pseudonymous,
            )
            return WrittenResult(folder=folder, indexed=indexed)
        finally:
            with self._changed:
                self._unwritten_bytes -= len(result.content)
                self._changed.notify_all()


def _moved(written: WrittenResult, draft: Path) -> Future[WrittenResult]:
    """Moves a file into the draft; done on return."""
    name = _safe(written.indexed.name)
    (written.folder / name).rename(draft / name)
    moved: Future[WrittenResult] = Future()
    moved.set_result(written)
    return moved


def _publish_folder(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError as err:
        if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    sync_folder(target.parent)


def _index_record(index: ReportIndex) -> dict[str, Any]:
    return {
        "format": 1,
        "research_use_only": True,
        "label": RESEARCH_USE_ONLY,
        **asdict(index),
        "issued_at": iso(index.issued_at),
    }


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode("utf-8")


def _safe(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise Defect("A name is not fit for a file: it must be made of UIDs", code="unsafe_name")
    return name
