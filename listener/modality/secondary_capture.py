"""Photographs become DICOM: Secondary Capture, the class for what was not born in DICOM.

    for dataset in to_dicom(paths, accession="A-1"):   # a folder becomes one study, one series
        ...

UIDs derive from the files' content: the same folder sent again is the same images again. A
baseline JPEG keeps its compressed pixels, without the notes that cameras leave in it; all else
becomes plain RGB. DICOM files pass as they are.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from struct import Struct

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from pipeline.decoding.codestream import Segment, segments
from pipeline.domain import RGB
from pipeline.errors import Rejected
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID, derived_uid

_NAMES_OF_IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SOF0, _APP0, _APP1, _APP14, _APP15, _COMMENT = 0xC0, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
_FRAME = Struct(">BHHB")
"""Precision, rows, columns, components (ITU-T T.81 B.2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the sender says of all photographs; everything may be empty (type 2 in DICOM)."""

    accession: str = ""
    patient_id: str = ""
    specimen: str = ""
    """Container Identifier of the slide."""
    spacing_um: float | None = None
    """µm a pixel, when the camera was calibrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pixels:
    """The pixel module of one photograph, ready to be written."""

    rows: int
    columns: int
    transfer_syntax: UID
    photometric: str
    data: bytes
    compression_ratio: float | None = None


def to_dicom(paths: Sequence[Path], order: Order | None = None) -> Iterator[FileDataset]:
    """Every file as a DICOM image: wrapped, or read when it is DICOM; DICOM first, by name.

    Raises Rejected `not_an_image` for a file that is neither.
    """
    return (image for _, image in named_dicom(paths, order))


def named_dicom(
    paths: Sequence[Path], order: Order | None = None
) -> Iterator[tuple[Path, FileDataset]]:
    """The same, each image with the file that it was; one in memory at a time."""
    photographs = []
    for path in sorted(paths):
        if is_dicom(path):
            yield path, _read_dicom(path)
        else:
            photographs.append(path)
    for _, folder in groupby(photographs, key=attrgetter("parent")):
        files = list(folder)
        yield from zip(files, _wrap_folder(files, order or Order()), strict=True)


def check_image(path: Path) -> None:
    """Raise Rejected `not_an_image`, with the reason, for a file that cannot be sent."""
    if is_dicom(path):
        _read_dicom(path)
    else:
        _pixels(path)


def is_dicom(path: Path) -> bool:
    """Whether the file begins as Part 10 says (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_dicom(path: Path) -> FileDataset:
    try:
        dataset = dcmread(path)
        named = {word: dataset.get(word) for word in _NAMES_OF_IMAGE}
        has_pixels = any(word in dataset for word in _PIXELS)
        named["TransferSyntaxUID"] = dataset.file_meta.get("TransferSyntaxUID")
    # pydicom raises what it likes on damaged bytes: KeyError, TypeError, struct.error, …
    except Exception as err:
        raise Rejected(f"{path.name} is no whole DICOM file", code="not_an_image") from err
    lacking = [word for word, name in named.items() if not name]
    if lacking:
        raise Rejected(
            f"{path.name} lacks {', '.join(lacking)}: it cannot be sent (PS3.3 C.12.1, C.7)",
            code="not_an_image",
        )
    if not has_pixels:
        raise Rejected(f"{path.name} is DICOM, but no image", code="not_an_image")
    return dataset


def _wrap_folder(paths: Sequence[Path], order: Order) -> Iterator[FileDataset]:
    """One study and one series, named by the content of all its photographs."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    series = [*sorted(digests), order.accession, order.patient_id, order.specimen]
    for number, (path, digest) in enumerate(zip(paths, digests, strict=True), start=1):
        image = _describe(series, digest, number, order)
        _add_pixels(image, _pixels(path))
        yield image


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
    image.StudyDate = ""
    image.StudyTime = ""
    image.AccessionNumber = order.accession
    image.Modality = "GM"
    image.ConversionType = "DI"
    image.ReferringPhysicianName = ""
    image.PatientName = ""
    image.PatientID = order.patient_id
    image.PatientBirthDate = ""
    image.PatientSex = ""
    image.StudyInstanceUID = study_uid
    image.SeriesInstanceUID = series_uid
    image.StudyID = ""
    image.SeriesNumber = "1"
    image.InstanceNumber = str(number)
    image.PatientOrientation = ""
    if order.spacing_um is not None:
        image.NominalScannedPixelSpacing = [order.spacing_um / 1000] * 2
    if order.specimen:
        _add_specimen(image, order.specimen)
    return image


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


def _add_pixels(image: FileDataset, pixels: _Pixels) -> None:
    """Image Pixel module, PS3.3 C.7.6.3."""
    image.file_meta.TransferSyntaxUID = pixels.transfer_syntax
    image.SamplesPerPixel = 1 if pixels.photometric == "MONOCHROME2" else 3
    image.PhotometricInterpretation = pixels.photometric
    if image.SamplesPerPixel == 3:
        image.PlanarConfiguration = 0
    image.Rows, image.Columns = pixels.rows, pixels.columns
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    if pixels.compression_ratio is not None:
        image.LossyImageCompression = "01"
        image.LossyImageCompressionRatio = round(pixels.compression_ratio, 2)
        image.LossyImageCompressionMethod = "ISO_10918_1"
    image.PixelData = pixels.data
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = pixels.transfer_syntax == JPEGBaseline8Bit


def _pixels(path: Path) -> _Pixels:
    kept = _kept_jpeg(path.read_bytes())
    return kept if kept is not None else _plain(_decoded(path))


def _plain(pixels: RGB) -> _Pixels:
    rows, columns, _ = pixels.shape
    data = pixels.tobytes()
    return _Pixels(
        rows=rows,
        columns=columns,
        transfer_syntax=ExplicitVRLittleEndian,
        photometric="RGB",
        data=data + b"\0" * (len(data) % 2),
    )


def _kept_jpeg(content: bytes) -> _Pixels | None:
    """An upright baseline JPEG as it is, less the camera's notes; None for anything else."""
    found = list(segments(content)) if content[:2] == b"\xff\xd8" else []
    header = next((one for one in found if one.marker == _SOF0), None)
    if header is None or _orientation(found) != _UPRIGHT or b"\xff\xd9" not in content[-64:]:
        return None
    photometric = _photometric(header, found)
    if photometric is None:
        return None
    _, rows, columns, components = _FRAME.unpack_from(header.body)
    frame = _strip_metadata(content, found)
    return _Pixels(
        rows=rows,
        columns=columns,
        transfer_syntax=JPEGBaseline8Bit,
        photometric=photometric,
        data=encapsulate([frame]),
        compression_ratio=rows * columns * components / len(frame),
    )


def _photometric(header: Segment, found: Sequence[Segment]) -> str | None:
    """MONOCHROME2, YBR_FULL_422 whatever the sampling is (PS3.5 8.2.1), None when not sure."""
    components = header.body[5]
    if components == 1:
        return "MONOCHROME2"
    # JFIF and EXIF files are YCbCr by definition; an Adobe segment may say otherwise
    is_ybr = any(one.marker in (_APP0, _APP1) for one in found)
    is_adobe = any(one.marker == _APP14 for one in found)
    return "YBR_FULL_422" if components == 3 and is_ybr and not is_adobe else None


def _strip_metadata(content: bytes, found: Sequence[Segment]) -> bytes:
    """The stream without APP1 to APP13, APP15 and comments: places, owners, serial numbers."""
    kept = [content[:2]]
    position = 2
    for one in found:
        end = position + 4 + len(one.body)
        is_note = _APP1 <= one.marker <= _APP15 and one.marker != _APP14
        if not is_note and one.marker != _COMMENT:
            kept.append(content[position:end])
        position = end
    return b"".join([*kept, content[position:]])


def _orientation(found: Sequence[Segment]) -> int:
    """EXIF orientation, 1 (upright) when there is none (EXIF 2.32 section 4.6.4)."""
    for one in found:
        body = bytes(one.body)
        if one.marker == _APP1 and body.startswith(b"Exif\0\0"):
            return _tiff_orientation(body[6:])
    return _UPRIGHT


def _tiff_orientation(tiff: bytes) -> int:
    order = ">" if tiff[:2] == b"MM" else "<"
    head, count, entry = Struct(order + "HL"), Struct(order + "H"), Struct(order + "HHLH2x")
    try:
        _, start = head.unpack_from(tiff, 2)
        (entries,) = count.unpack_from(tiff, start)
        for index in range(entries):
            tag, _, _, value = entry.unpack_from(tiff, start + count.size + index * entry.size)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:
        return _UPRIGHT
    return _UPRIGHT


def _decoded(path: Path) -> RGB:
    """H × W × 3 RGB, upright; transparent parts become white, 16 bits become 8."""
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    # In colour OpenCV turns a photograph upright; unchanged it keeps alpha and 16 bits.
    flags = cv2.IMREAD_COLOR if is_jpeg else cv2.IMREAD_UNCHANGED
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise Rejected(f"{path.name} is neither DICOM nor a photograph", code="not_an_image")
    if cv2.imcount(str(path)) > 1:
        raise Rejected(
            f"{path.name} has several pages; export one field a file", code="not_an_image"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise Rejected(f"{path.name} has neither 8 nor 16 bits", code="not_an_image")
    deepest = 257 if pixels.dtype == np.uint16 else 1
    return _as_rgb((pixels // deepest).astype(np.uint8))


def _as_rgb(pixels: NDArray[np.uint8]) -> RGB:
    """From gray, BGR or BGRA."""
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    if pixels.shape[2] == 4:
        return _on_white(pixels)
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _on_white(pixels: NDArray[np.uint8]) -> RGB:
    alpha = pixels[:, :, 3:].astype(np.uint16)
    colour = pixels[:, :, 2::-1].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
