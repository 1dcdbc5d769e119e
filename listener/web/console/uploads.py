"""Pictures that people upload: the same durable way as C-STORE, one file at a time.

A batch is one smear. Each file becomes an image whose UIDs follow from the batch and the file's
content, and lies in the inbox, synced to disk, before the page says that it was taken. So a lost
connection loses nothing that was answered, and what is sent again is the same image.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import sqlalchemy as sa

from listener.dicom.reception import Reception
from listener.modality.dicom_file import is_dicom
from listener.modality.secondary_capture import (
    Order,
    check_image,
    photograph_of_batch,
)
from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.part10 import MAX_HEADER_BYTES, split_header
from listener.storage.results import ResultsFolder
from listener.storage.smear_grouping import GatherBy, smear_id_of
from listener.web.console.database import UPLOAD, UPLOADED_FILE, ConsoleDatabase
from listener.workflow.memory_budget import BYTES_PER_PIXEL_BYTE, MemoryBudget
from pipeline.decoding.frames import ImageLimits
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import Rejected, SmearlinkError
from reporting.audit.trail import Actor, AuditSink

SOURCE = "CONSOLE"
MOST_FILES = 400
PIECE_BYTES = 2**20
ORDINARY_MEGAPIXELS = 12.0
"""A larger photograph waits until it has the memory for the largest that the site takes."""
RGB_BYTES = 3
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".dcm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Files that a person uploads as one smear."""

    id: str
    account: str
    accession: str
    patient_id: str
    notes: str
    spacing_um: float | None
    expected: int
    began_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """One file of a batch: taken, or refused with the reason."""

    name: str
    number: int
    size: int
    sop_instance_uid: str = ""
    smear_id: str = ""
    code: str = ""
    message: str = ""
    is_again: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether the file was accepted."""
        return not self.code


class Uploads:
    """Takes files in."""

    def __init__(
        self,
        *,
        database: ConsoleDatabase,
        inbox: Inbox,
        results: ResultsFolder,
        audit: AuditSink,
        on_received: Callable[[StoredInstance], None],
        gather_by: GatherBy,
        limits: ImageLimits,
        memory: MemoryBudget,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._inbox, self._results = database, inbox, results
        self._audit, self._on_received = audit, on_received
        self._gather_by: GatherBy = gather_by
        self._limits = limits
        self._memory = memory
        self._clock = clock

    def begin(self, account: str, words: Mapping[str, str], expected: int) -> Batch:
        """A new batch; Rejected when what was typed does not fit DICOM."""
        batch = Batch(
            id=uuid4().hex,
            account=account,
            accession=_checked(words.get("accession", ""), "accession number", 16),
            patient_id=_checked(words.get("patient_id", ""), "patient ID", 64),
            notes=_checked(words.get("notes", ""), "notes", 2000, is_text=True),
            spacing_um=_spacing(words.get("spacing_um", "")),
            expected=max(1, min(MOST_FILES, expected)),
            began_at=self._clock(),
        )
        with self._database.writing() as connection:
            connection.execute(
                sa.insert(UPLOAD).values(
                    batch=batch.id,
                    account=account,
                    accession=batch.accession,
                    patient_id=batch.patient_id,
                    notes=batch.notes,
                    spacing_um=batch.spacing_um,
                    expected=batch.expected,
                    began_at=batch.began_at.timestamp(),
                )
            )
        return batch

    def find(self, batch_id: str, account: str) -> Batch | None:
        """A batch of this person."""
        query = sa.select(UPLOAD).where(UPLOAD.c.batch == batch_id, UPLOAD.c.account == account)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return _batch(row) if row is not None else None

    def latest(self, account: str, most: int = 10) -> list[Batch]:
        """A person's batches, newest first."""
        query = (
            sa.select(UPLOAD)
            .where(UPLOAD.c.account == account)
            .order_by(UPLOAD.c.began_at.desc())
            .limit(most)
        )
        with self._database.reading() as connection:
            return [_batch(row) for row in connection.execute(query)]

    def files(self, batch_id: str) -> list[UploadedFile]:
        """Everything that came of a batch, by number."""
        query = sa.select(UPLOADED_FILE).where(UPLOADED_FILE.c.batch == batch_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(UPLOADED_FILE.c.number)).all()
        return [_file(row) for row in rows]

    def take(
        self, batch: Batch, name: str, number: int, content: BinaryIO, actor: Actor
    ) -> UploadedFile:
        """One file: in the inbox, or refused with the reason; the boundary of a file."""
        name = name.replace("\\", "/").split("/")[-1][:200] or "unnamed"
        with tempfile.TemporaryDirectory(prefix="smearlink-upload-") as folder:
            path = Path(folder) / f"upload{_ending(name)}"
            sha256, size = _copied(content, path)
            told: dict[str, Any] = {"name": name, "number": number, "size": size}
            known = self._known(batch, sha256)
            if known is not None and known.is_taken:
                return UploadedFile(
                    **told,
                    sop_instance_uid=known.sop_instance_uid,
                    smear_id=known.smear_id,
                    is_again=True,
                )
            file = self._taken(batch, path, told, actor)
        self._remember(batch, sha256, file)
        return file

    def progress(self, file: UploadedFile) -> tuple[str, str]:
        """A word for how far an image came, and why it was set aside if it was."""
        if not file.is_taken:
            return "refused", file.message
        image = SOPInstanceUID(file.sop_instance_uid)
        folder = self._results.smear(SmearId(file.smear_id))
        if folder.has_fields(image):
            return "analysed", ""
        try:
            place = self._inbox.path_of(image).parent
        except SmearlinkError:
            return "deleted", ""
        is_parked = place.parent.name == "parked"
        return ("parked", place.name) if is_parked else ("waiting", "")

    def _taken(
        self, batch: Batch, path: Path, told: Mapping[str, Any], actor: Actor
    ) -> UploadedFile:
        reception = Reception(
            self._inbox,
            self._audit,
            actor=actor,
            on_received=self._on_received,
            protocol="console",
        )
        try:
            received = self._received(reception, batch, path, int(told["number"]))
        except Exception as err:  # noqa: BLE001 - the boundary of a file; recorded
            reception.refused("", err)
            return _refused(told, err)
        reception.stored(received)
        reception.enqueue(received)
        return UploadedFile(
            **told,
            sop_instance_uid=received.sop_instance_uid,
            smear_id=smear_id_of(received, self._gather_by),
            is_again=received.is_duplicate,
        )

    def _received(
        self, reception: Reception, batch: Batch, path: Path, number: int
    ) -> StoredInstance:
        if is_dicom(path):
            check_image(path)
            with path.open("rb") as file:
                return _kept(reception, file)
        ordinary = replace(
            self._limits, max_megapixels=min(ORDINARY_MEGAPIXELS, self._limits.max_megapixels)
        )
        try:
            with self._memory.reserved(_bytes_for(ordinary)):
                return self._photograph(reception, batch, path, number, ordinary)
        except Rejected as err:
            if err.code != "too_large":
                raise
        # Told by its header alone: nothing was decoded yet.
        with self._memory.reserved(_bytes_for(self._limits)):
            return self._photograph(reception, batch, path, number, self._limits)

    def _photograph(
        self, reception: Reception, batch: Batch, path: Path, number: int, limits: ImageLimits
    ) -> StoredInstance:
        order = Order(
            accession=batch.accession, patient_id=batch.patient_id, spacing_um=batch.spacing_um
        )
        image = photograph_of_batch(
            path.read_bytes(),
            batch=batch.id,
            started_at=batch.began_at.replace(tzinfo=None),
            number=number,
            order=order,
            limits=limits,
            notes=batch.notes,
        )
        buffer = io.BytesIO()
        image.save_as(buffer, enforce_file_format=True)
        buffer.seek(0)
        try:
            return _kept(reception, buffer)
        except Rejected as err:
            if err.code != "conflicting_duplicate":
                raise
            # The same picture, sent before under another number: it is here already.
            earlier = self._inbox.facts(str(image.SOPInstanceUID))
            return replace(earlier, is_duplicate=True)

    def _known(self, batch: Batch, sha256: str) -> UploadedFile | None:
        query = sa.select(UPLOADED_FILE).where(
            UPLOADED_FILE.c.batch == batch.id, UPLOADED_FILE.c.sha256 == sha256
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return _file(row) if row is not None else None

    def _remember(self, batch: Batch, sha256: str, file: UploadedFile) -> None:
        row = {
            "batch": batch.id,
            "sha256": sha256,
            "number": file.number,
            "name": file.name,
            "size": file.size,
            "sop_instance_uid": file.sop_instance_uid,
            "smear_id": file.smear_id,
            "code": file.code,
            "message": file.message,
        }
        with self._database.writing() as connection:
            self._database.upsert(connection, UPLOADED_FILE, row)


def _bytes_for(limits: ImageLimits) -> int:
    """What the largest photograph within the limits takes while it is decoded and written."""
    return int(limits.max_megapixels * 1e6) * RGB_BYTES * BYTES_PER_PIXEL_BYTE


def _kept(reception: Reception, file: BinaryIO) -> StoredInstance:
    """A whole Part 10 file into the inbox; durable on return."""
    head = file.read(2 * MAX_HEADER_BYTES)
    split = split_header(head, source=SOURCE, is_all=True)
    if split is None:
        raise Rejected("Not a DICOM file", code="not_dicom")
    request, rest = split
    with reception.incoming(request) as incoming:
        incoming.write(rest)
        while piece := file.read(PIECE_BYTES):
            incoming.write(piece)
        return incoming.commit()


def _refused(told: Mapping[str, Any], err: Exception) -> UploadedFile:
    """With the reason in words; a message may name the temporary file, people know theirs."""
    if not isinstance(err, SmearlinkError):
        return UploadedFile(**told, code="defect", message="A fault of our own; it is recorded.")
    message = re.sub(r"\S*upload\.[a-z]+ ", "", err.message)
    return UploadedFile(**told, code=err.code, message=message)


def _copied(content: BinaryIO, path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        while piece := content.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
    return digest.hexdigest(), size


def _ending(name: str) -> str:
    found = Path(name).suffix.lower()
    return found if found in ENDINGS else ".bin"


def _checked(words: str, what: str, most: int, *, is_text: bool = False) -> str:
    """PS3.5 6.2: no backslash and no control characters; LT may hold line breaks."""
    words = words.replace("\r\n", "\n").strip()
    plain = words.replace("\n", "") if is_text else words
    if len(words) > most or "\\" in plain or not plain.isprintable():
        raise Rejected(
            f"The {what} has at most {most} characters, no backslash and no control characters",
            code="bad_order",
        )
    return words


def _spacing(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        spacing = float(text.replace(",", "."))
    except ValueError:
        spacing = 0.0
    if not 0.01 <= spacing <= 10:
        raise Rejected("µm per pixel: a number from 0.01 to 10, or nothing", code="bad_order")
    return spacing


def _batch(row: sa.Row[Any]) -> Batch:
    return Batch(
        id=row.batch,
        account=row.account,
        accession=row.accession,
        patient_id=row.patient_id,
        notes=row.notes,
        spacing_um=row.spacing_um,
        expected=row.expected,
        began_at=datetime.fromtimestamp(row.began_at, UTC),
    )


def _file(row: sa.Row[Any]) -> UploadedFile:
    return UploadedFile(
        name=row.name,
        number=row.number,
        size=row.size,
        sop_instance_uid=row.sop_instance_uid,
        smear_id=row.smear_id,
        code=row.code,
        message=row.message,
    )


def in_words(files: Sequence[UploadedFile]) -> tuple[int, int]:
    """How many were taken, and how many refused."""
    taken = sum(file.is_taken for file in files)
    return taken, len(files) - taken
