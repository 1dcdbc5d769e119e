"""Wraps photographs into DICOM as Secondary Capture images (PS3.3 A.8.1).

    for read in read_files(paths, Order(accession="A-1")):   # a folder is one study, one series
        ...

UIDs derive from the files' content and the order: the same folder sent again is the same images
again. A baseline JPEG keeps its compressed pixels, without the notes that cameras leave in it; all
else becomes plain RGB. DICOM files pass as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from listener.modality.dicom_file import is_dicom, read_dicom
from listener.modality.find_files import shown
from pipeline.decoding.frames import ImageLimits
from pipeline.decoding.photographs.photograph import Photograph
from pipeline.decoding.photographs.reader import date_taken, read_photograph
from pipeline.errors import Rejected
from reporting.content.identifiers import FILE_NAME_PREFIX
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID, derived_uid

_UID_VERSION = "2"
"""Raised when photographs are described differently: other content needs other UIDs."""
_BYTES_PER_PIXEL = 8
"""Of RGBA with 16 bits: larger files hold more pixels than are allowed."""
_OTHER_BYTES = 64 * 1024 * 1024
_LONGEST_TEXT, _LONGEST_SHORT_TEXT = 64, 16
"""Characters of VR LO and SH (PS3.5 6.2)."""
_DECIMAL_DIGITS = 10
"""Significant ones, so that a DS value stays within its 16 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the sender says of all photographs; everything may be empty (type 2 in DICOM)."""

    accession: str = ""
    patient_id: str = ""
    specimen: str = ""
    """Container Identifier of the slide."""
    spacing_um: float | None = None
    """µm per pixel, when the camera was calibrated."""
    is_phantom: bool = False
    """Drawn by a program, of no patient."""

    def __post_init__(self) -> None:
        """Raises Rejected `bad_order` for what no attribute of DICOM may hold (PS3.5 6.2)."""
        for what, words, most in (
            ("accession number", self.accession, _LONGEST_SHORT_TEXT),
            ("Patient ID", self.patient_id, _LONGEST_TEXT),
            ("identifier of the slide", self.specimen, _LONGEST_TEXT),
        ):
            if len(words.strip()) > most or "\\" in words or not words.strip().isprintable():
                raise Rejected(
                    f"The {what} has at most {most} characters, no backslash and no control "
                    "characters: write it as the order has it",
                    code="bad_order",
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadFile:
    """One file as a DICOM image, or why it cannot be one."""

    path: Path
    image: FileDataset | None = None
    problem: Rejected | None = None
    """Its message begins with the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A photograph's file before it is decoded."""

    path: Path
    digest: str
    taken_at: datetime


def to_dicom(
    paths: Sequence[Path], order: Order | None = None, limits: ImageLimits | None = None
) -> Iterator[FileDataset]:
    """Every file as a DICOM image: wrapped, or read when it is DICOM; DICOM first, by name.

    Raises Rejected for the first file that cannot be read.
    """
    for read in read_files(paths, order, limits):
        if read.image is None:
            name = shown(read.path.name)
            raise read.problem or Rejected(f"{name} is not an image", code="not_an_image")
        yield read.image


def read_files(
    paths: Sequence[Path], order: Order | None = None, limits: ImageLimits | None = None
) -> Iterator[ReadFile]:
    """Each file with its image, or with its problem; one image in memory at a time."""
    order, limits = order or Order(), limits or ImageLimits()
    photographs: list[_File] = []
    for path in sorted(paths, key=lambda path: (path.parent, path.name)):
        try:
            if is_dicom(path):
                yield ReadFile(path=path, image=read_dicom(path, limits))
            else:
                photographs.append(_look_at(path, limits))
        except (Rejected, OSError) as err:
            yield ReadFile(path=path, problem=_problem(path, err))
    for _, folder in groupby(photographs, key=attrgetter("path.parent")):
        yield from _wrap_folder(list(folder), order, limits)


def photograph_of_batch(
    content: bytes,
    *,
    batch: str,
    started_at: datetime,
    number: int,
    order: Order,
    limits: ImageLimits,
    notes: str = "",
) -> FileDataset:
    """One photograph of a batch whose files come one by one.

    Its UIDs follow from the batch and the file's content alone: sent twice, under another name or
    number too, it is the same image. Raises Rejected for what is no photograph.
    """
    digest = hashlib.sha256(content).hexdigest()
    image = _describe([batch], digest, number, order)
    uid = UID(derived_uid("photograph of batch", batch, digest))
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
    _add_dates(image, started_at, date_taken(content) or started_at)
    if notes:
        image.ImageComments = notes
    _add_pixels(image, read_photograph(content, limits))
    return image


def check_image(path: Path) -> None:
    """Raise Rejected, with the file's name and the reason, for a file that cannot be sent."""
    for read in read_files([path]):
        if read.problem is not None:
            raise read.problem


def _look_at(path: Path, limits: ImageLimits) -> _File:
    """Read, hash and date a file without decoding it."""
    facts = path.stat()
    if facts.st_size > limits.max_megapixels * 1e6 * _BYTES_PER_PIXEL + _OTHER_BYTES:
        raise Rejected(
            f"has {facts.st_size / 1e6:.0f} MB, more than {limits.max_megapixels:g} megapixels "
            "need (image.max_megapixels)",
            code="too_large",
        )
    content = path.read_bytes()
    written_at = datetime.fromtimestamp(facts.st_mtime)  # noqa: DTZ006 - local, as cameras date
    return _File(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        taken_at=date_taken(content) or written_at,
    )


def _problem(path: Path, err: Rejected | OSError) -> Rejected:
    if isinstance(err, Rejected):
        return Rejected(f"{shown(path)} {err.message}", code=err.code)
    return Rejected(
        f"{shown(path)} cannot be read ({err.strerror}): check its permissions and its disk",
        code="unreadable_file",
    )


def _wrap_folder(files: Sequence[_File], order: Order, limits: ImageLimits) -> Iterator[ReadFile]:
    """One study and one series, named by the content of all its photographs."""
    started_at = min(one.taken_at for one in files)
    series = [
        _UID_VERSION,
        *sorted(one.digest for one in files),
        *(order.accession, order.patient_id, order.specimen, str(order.spacing_um)),
        f"{started_at:%Y%m%d%H%M%S}",
    ]
    for number, file in enumerate(files, start=1):
        try:
            photograph = read_photograph(file.path.read_bytes(), limits)
        except (Rejected, OSError) as err:
            yield ReadFile(path=file.path, problem=_problem(file.path, err))
            continue
        image = _describe(series, file.digest, number, order)
        image.ImageComments = f"{FILE_NAME_PREFIX}{shown(file.path.name)}"
        _add_dates(image, started_at, file.taken_at)
        _add_pixels(image, photograph)
        yield ReadFile(path=file.path, image=image)


def _describe(series: Sequence[str], digest: str, number: int, order: Order) -> FileDataset:
    """Every module but the pixels: Secondary Capture Image IOD, PS3.3 A.8.1."""
    study_uid = UID(derived_uid("photograph study", *series))
    series_uid = UID(derived_uid("photograph series", *series))
    instance_uid = UID(derived_uid("photograph", series_uid, digest, str(number)))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = instance_uid
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    image = FileDataset(
        "", {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=False, is_little_endian=True
    )
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = instance_uid
    image.AccessionNumber = order.accession
    image.Modality = "GM"
    image.ConversionType = "DI"
    image.ReferringPhysicianName = ""
    image.StudyDescription = "Blood smear"
    image.SeriesDescription = _series_description(order)
    image.PatientName = ""
    image.PatientID = order.patient_id
    image.PatientBirthDate = ""
    image.PatientSex = ""
    if order.is_phantom:
        image.QualityControlSubject = "YES"
    image.StudyInstanceUID = study_uid
    image.SeriesInstanceUID = series_uid
    image.StudyID = "1"
    image.SeriesNumber = "1"
    image.InstanceNumber = str(number)
    image.PatientOrientation = ""
    if order.spacing_um is not None:
        spacing_mm = f"{order.spacing_um / 1000:.{_DECIMAL_DIGITS}g}"
        image.NominalScannedPixelSpacing = [spacing_mm] * 2
    if order.specimen:
        _add_specimen(image, order.specimen)
    else:  # type 2C: absent where a specimen takes the place of a body part (C.7.3.1)
        image.Laterality = ""
    return image


def _series_description(order: Order) -> str:
    slide = f", slide {order.specimen}" if order.specimen else ""
    return f"Photographs{slide}"[:_LONGEST_TEXT]


def _add_dates(image: FileDataset, started_at: datetime, taken_at: datetime) -> None:
    """General Study (C.7.2.1) and General Image (C.7.6.1): by the camera, else by the file."""
    image.StudyDate = f"{started_at:%Y%m%d}"
    image.StudyTime = f"{started_at:%H%M%S}"
    image.AcquisitionDateTime = f"{taken_at:%Y%m%d%H%M%S}"


def _add_specimen(image: FileDataset, name: str) -> None:
    """Specimen module, PS3.3 C.7.6.22: one specimen, called as its slide is."""
    image.ContainerIdentifier = name
    image.IssuerOfTheContainerIdentifierSequence = []
    image.ContainerTypeCodeSequence = []
    specimen = Dataset()
    specimen.SpecimenIdentifier = name
    specimen.SpecimenUID = derived_uid("specimen", image.PatientID, name)
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    image.SpecimenDescriptionSequence = [specimen]


def _add_pixels(image: FileDataset, photograph: Photograph) -> None:
    """Image Pixel and ICC Profile modules, PS3.3 C.7.6.3 and C.11.15."""
    rows, columns, _ = photograph.pixels.shape
    kept = photograph.baseline_jpeg
    is_gray = photograph.is_gray and kept is not None
    image.SamplesPerPixel = 1 if is_gray else 3
    image.Rows, image.Columns = rows, columns
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    if not is_gray:
        image.PlanarConfiguration = 0
    if photograph.icc_profile is not None:
        image.ICCProfile = photograph.icc_profile + b"\0" * (len(photograph.icc_profile) % 2)
    if kept is None:
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.PhotometricInterpretation = "RGB"
        data = photograph.pixels.tobytes()
        image.PixelData = data + b"\0" * (len(data) % 2)
    else:
        image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        # Whatever the sampling is (PS3.5 8.2.1)
        image.PhotometricInterpretation = "MONOCHROME2" if is_gray else "YBR_FULL_422"
        image.LossyImageCompression = "01"
        ratio = rows * columns * image.SamplesPerPixel / len(kept)
        image.LossyImageCompressionRatio = round(ratio, 2)
        image.LossyImageCompressionMethod = "ISO_10918_1"
        image.PixelData = encapsulate([kept])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = kept is not None
