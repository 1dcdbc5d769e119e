"""Tiny generated DICOM images for every room's tests: each kind that we accept, and bad ones.

    image = build_image()                                     # 96 × 80 RGB Secondary Capture
    image = build_image(sop_class=VLMicroscopicImageStorage, photometric="YBR_FULL_422")
    image = build_image(transfer_syntax=JPEG2000Lossless)
    image = with_patient(build_image())                       # full of what must never leak

Nothing is random: the same arguments give the same dataset, `number` tells images apart.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from reporting.derived_uids import derived_uid

SOP_CLASSES: tuple[UID, ...] = (
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    VLPhotographicImageStorage,
)
PHOTOMETRICS = (
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "PALETTE COLOR",
    "MONOCHROME1",
    "MONOCHROME2",
)
NATIVE_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
)
HTJ2K_FRAMES: dict[UID, Path] = {
    HTJ2KLossless: Path("lossless.j2c"),
    HTJ2KLosslessRPCL: Path("lossless_rpcl.j2c"),
    HTJ2K: Path("lossy.j2c"),
}
"""`picture()` as OpenJPH's ojph_compress wrote it: none of our packages can encode HTJ2K.

-reversible true -prog_order LRCP; -reversible true -prog_order RPCL -num_decomps 2;
-reversible false -qstep 0.01 -prog_order LRCP.
"""
LOSSLESS_SYNTAXES: tuple[UID, ...] = (
    *NATIVE_SYNTAXES,
    RLELossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGLSLossless,
)
LOSSY_SYNTAXES: tuple[UID, ...] = (JPEGBaseline8Bit, JPEG2000, HTJ2K, JPEGLSNearLossless)

PATIENT_NAME = "Leakov^Patrizia^Maria"
PATIENT_ID = "PID-778899-LEAK"
BIRTH_DATE = "19731224"
ACCESSION = "ACC-LEAK-4711"
REFERRING = "Doctorovna^Leaky"
FREE_TEXT = "Leak: patient of Station 5B, phone 0170-5551234"
PHI_TEXTS = (
    "Leakov",
    "Patrizia",
    PATIENT_ID,
    BIRTH_DATE,
    ACCESSION,
    "Doctorovna",
    "0170-5551234",
    "Station 5B",
)
"""None of these may be found in a log, metric, queue row, path or error message."""

_MODALITIES = {
    SecondaryCaptureImageStorage: "OT",
    MultiFrameTrueColorSecondaryCaptureImageStorage: "OT",
    VLMicroscopicImageStorage: "GM",
    VLSlideCoordinatesMicroscopicImageStorage: "SM",
    VLPhotographicImageStorage: "XC",
    VLWholeSlideMicroscopyImageStorage: "SM",
}


def picture(width: int = 96, height: int = 80, *, number: int = 1) -> NDArray[np.uint8]:
    """An RGB field with one purple cell on a pale ground; every number is another picture."""
    rows, columns = np.mgrid[0:height, 0:width]
    field = np.empty((height, width, 3), dtype=np.uint8)
    field[..., 0] = 225 + (columns * 17 + number) % 20
    field[..., 1] = 205 + (rows * 13 + number) % 20
    field[..., 2] = 215
    cell = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(width, height) / 4) ** 2
    field[cell] = (110, 60, 140)
    return cv2.GaussianBlur(field, (5, 5), 0).astype(np.uint8)


def build_image(
    *,
    number: int = 1,
    series: int = 1,
    study: int = 1,
    sop_class: UID = SecondaryCaptureImageStorage,
    transfer_syntax: UID = ExplicitVRLittleEndian,
    photometric: str = "RGB",
    pixels: NDArray[np.uint8] | None = None,
    frames: int = 1,
    planar: int = 0,
    bits: int = 8,
    spacing_um: float | None = None,
) -> FileDataset:
    """A complete image whose pixels are `pixels` (H × W × 3 RGB) in the way that is asked for.

    With `frames` above 1 the picture is repeated. Gray and palette images show its green.
    HTJ2K always shows `picture()`.
    """
    shown = picture(number=number) if pixels is None else pixels
    is_implicit = transfer_syntax == ImplicitVRLittleEndian
    image = _empty(sop_class, number=number, series=series, study=study, is_implicit=is_implicit)
    image.file_meta.TransferSyntaxUID = transfer_syntax
    if frames > 1 or sop_class == MultiFrameTrueColorSecondaryCaptureImageStorage:
        _add_frames(image, frames)
    if spacing_um is not None:
        image.PixelSpacing = [spacing_um / 1000, spacing_um / 1000]
    if transfer_syntax in NATIVE_SYNTAXES:
        _set_native(image, shown, photometric, frames=frames, planar=planar, bits=bits)
    else:
        _set_compressed(image, shown, transfer_syntax, photometric, frames=frames, bits=bits)
    return image


def every_kind() -> Iterator[tuple[str, FileDataset]]:
    """Each accepted SOP class, photometric interpretation and transfer syntax once, named."""
    for number, sop_class in enumerate(SOP_CLASSES, start=100):
        yield sop_class.name, build_image(number=number, sop_class=sop_class)
    for number, photometric in enumerate(PHOTOMETRICS, start=200):
        yield photometric, build_image(number=number, photometric=photometric)
    for number, syntax in enumerate((*LOSSLESS_SYNTAXES, *LOSSY_SYNTAXES), start=300):
        yield syntax.name, build_image(number=number, transfer_syntax=syntax)


def with_patient(image: FileDataset, *, charset: str = "ISO_IR 192") -> FileDataset:
    """The same image, full of what must never leave: names, dates, numbers, free text."""
    image.SpecificCharacterSet = charset
    image.PatientName = PATIENT_NAME
    image.PatientID = PATIENT_ID
    image.PatientBirthDate = BIRTH_DATE
    image.PatientSex = "F"
    image.PatientComments = FREE_TEXT
    image.AccessionNumber = ACCESSION
    image.ReferringPhysicianName = REFERRING
    image.StudyDescription = FREE_TEXT
    image.InstitutionName = FREE_TEXT
    return image


def with_specimen(
    image: FileDataset, container: str = "S26-1234-A1", *, specimen: str = "S26-1234-A"
) -> FileDataset:
    """The same image, of a specimen on a slide (PS3.3 C.7.6.22)."""
    image.ContainerIdentifier = container
    item = Dataset()
    item.SpecimenIdentifier = specimen
    item.SpecimenUID = derived_uid("test specimen", specimen)
    item.SpecimenPreparationSequence = DicomSequence()
    item.IssuerOfTheSpecimenIdentifierSequence = DicomSequence()
    image.SpecimenDescriptionSequence = DicomSequence([item])
    image.IssuerOfTheContainerIdentifierSequence = DicomSequence()
    image.ContainerTypeCodeSequence = DicomSequence()
    return image


def dataset_bytes(image: Dataset) -> bytes:
    """The dataset as it crosses the network, without preamble and header (not for deflated)."""
    target = DicomBytesIO()
    syntax = image.file_meta.TransferSyntaxUID
    target.is_implicit_VR = syntax == ImplicitVRLittleEndian
    target.is_little_endian = True
    write_dataset(target, image)
    return target.getvalue()


def file_bytes(image: FileDataset) -> bytes:
    """The image as a Part 10 file."""
    target = io.BytesIO()
    image.save_as(target, enforce_file_format=True)
    return target.getvalue()


def _empty(
    sop_class: UID, *, number: int, series: int, study: int, is_implicit: bool
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(derived_uid("test image", str(number)))
    image = FileDataset("", {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=is_implicit)
    for keyword, value in _identity(sop_class, number=number, series=series, study=study):
        setattr(image, keyword, value)
    if sop_class in (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage):
        image.ConversionType = "DI"
    else:
        _add_visible_light(image)
    return image


def _add_visible_light(image: FileDataset) -> None:
    """What the VL image objects want besides (PS3.3 C.8.12.1 and C.8.12.2)."""
    image.AcquisitionContextSequence = DicomSequence()
    image.LossyImageCompression = "00"
    if image.SOPClassUID == VLSlideCoordinatesMicroscopicImageStorage:
        image.FrameOfReferenceUID = UID(derived_uid("test slide", str(image.SeriesInstanceUID)))
        image.PositionReferenceIndicator = "SLIDE_CORNER"
        image.ImageCenterPointCoordinatesSequence = DicomSequence()


def _identity(sop_class: UID, *, number: int, series: int, study: int) -> Iterable[tuple[str, Any]]:
    """The modules that every image has, as PS3.3 orders them."""
    return [
        ("SOPClassUID", sop_class),
        ("SOPInstanceUID", UID(derived_uid("test image", str(number)))),
        ("StudyDate", "20260102"),
        ("ContentDate", "20260102"),
        ("AcquisitionDateTime", "20260102030405"),
        ("StudyTime", "030405"),
        ("ContentTime", "030405"),
        ("AccessionNumber", ""),
        ("Modality", _MODALITIES[sop_class]),
        ("Manufacturer", "Test"),
        ("ReferringPhysicianName", ""),
        ("PatientName", "Test^Phantom"),
        ("PatientID", "PHANTOM"),
        ("PatientBirthDate", ""),
        ("PatientSex", ""),
        ("StudyInstanceUID", UID(derived_uid("test study", str(study)))),
        ("SeriesInstanceUID", UID(derived_uid("test series", str(study), str(series)))),
        ("StudyID", str(study)),
        ("SeriesNumber", str(series)),
        ("InstanceNumber", str(number)),
        ("PatientOrientation", ""),
        ("ImageType", ["ORIGINAL", "PRIMARY"]),
    ]


def _add_frames(image: FileDataset, frames: int) -> None:
    image.NumberOfFrames = frames
    image.BurnedInAnnotation = "NO"
    if frames > 1:
        image.FrameTime = 1.0
        image.FrameIncrementPointer = 0x00181063


def _describe(
    image: FileDataset, shape: Sequence[int], photometric: str, *, samples: int, bits: int
) -> None:
    image.SamplesPerPixel = samples
    image.PhotometricInterpretation = photometric
    image.Rows, image.Columns = shape[:2]
    image.BitsAllocated = 8 if bits == 8 else 16
    image.BitsStored = bits
    image.HighBit = bits - 1
    image.PixelRepresentation = 0


def _set_native(
    image: FileDataset,
    pixels: NDArray[np.uint8],
    photometric: str,
    *,
    frames: int,
    planar: int,
    bits: int,
) -> None:
    samples = 1 if photometric.startswith(("MONO", "PAL")) else 3
    _describe(image, pixels.shape, photometric, samples=samples, bits=bits)
    stored = _stored(pixels, photometric)
    if bits > 8:
        stored = (stored.astype(np.uint32) * ((1 << bits) - 1) // 255).astype("<u2")
    if samples == 3:
        image.PlanarConfiguration = planar
        if planar and photometric != "YBR_FULL_422":
            stored = np.ascontiguousarray(stored.transpose(2, 0, 1))
    if photometric == "PALETTE COLOR":
        _add_palette(image)
    data = stored.tobytes() * frames
    image.PixelData = data + b"\0" * (len(data) % 2)
    is_implicit = image.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    image["PixelData"].VR = "OB" if bits == 8 and not is_implicit else "OW"


def _stored(pixels: NDArray[np.uint8], photometric: str) -> NDArray[Any]:
    """`pixels` in the color space of the dataset."""
    if photometric in ("MONOCHROME2", "PALETTE COLOR"):
        return pixels[:, :, 1]
    if photometric == "MONOCHROME1":
        return 255 - pixels[:, :, 1]
    if photometric == "RGB":
        return pixels
    ybr = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]
    if photometric == "YBR_FULL":
        return ybr
    return np.stack([ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], axis=2)


def _add_palette(image: FileDataset) -> None:
    """A palette that shows each index as a shade between purple and white."""
    ramp = np.arange(256, dtype=np.uint16)
    for color, floor in (("Red", 80), ("Green", 0), ("Blue", 120)):
        entries = (floor + ramp * (255 - floor) // 255) * 257
        setattr(image, f"{color}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(image, f"{color}PaletteColorLookupTableData", entries.astype("<u2").tobytes())


def _set_compressed(
    image: FileDataset,
    pixels: NDArray[np.uint8],
    transfer_syntax: UID,
    photometric: str,
    *,
    frames: int,
    bits: int,
) -> None:
    if transfer_syntax == JPEGBaseline8Bit:
        _set_jpeg(image, pixels, photometric, frames=frames)
        return
    if transfer_syntax in HTJ2K_FRAMES:
        _set_htj2k(image, transfer_syntax, frames=frames)
        return
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # RCT and ICT are made by the encoder, out of RGB
    given = "RGB" if photometric in ("YBR_RCT", "YBR_ICT") else photometric
    _set_native(image, pixels, given, frames=frames, planar=0, bits=bits)
    image.PhotometricInterpretation = photometric
    if transfer_syntax == JPEG2000:
        image.compress(transfer_syntax, j2k_cr=[8], generate_instance_uid=False)
    elif transfer_syntax == JPEGLSNearLossless:
        image.compress(transfer_syntax, jls_error=2, generate_instance_uid=False)
    else:
        image.compress(transfer_syntax, generate_instance_uid=False)


def _set_htj2k(image: FileDataset, transfer_syntax: UID, *, frames: int) -> None:
    frame = (
        Path(__file__).parent / "pipeline" / "htj2k" / HTJ2K_FRAMES[transfer_syntax]
    ).read_bytes()
    color = "YBR_ICT" if transfer_syntax == HTJ2K else "YBR_RCT"
    _describe(image, picture().shape, color, samples=3, bits=8)
    image.PlanarConfiguration = 0
    if transfer_syntax == HTJ2K:
        image.LossyImageCompression = "01"
        image.LossyImageCompressionRatio = 13
        image.LossyImageCompressionMethod = "ISO_15444_15"
    _set_frames(image, frame, frames=frames)


def _set_frames(image: FileDataset, frame: bytes, *, frames: int) -> None:
    image.PixelData = encapsulate([frame] * frames)
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True


def _set_jpeg(
    image: FileDataset, pixels: NDArray[np.uint8], photometric: str, *, frames: int
) -> None:
    """JPEG baseline with 4:2:2 chroma, or gray."""
    is_gray = photometric.startswith("MONO")
    stated = photometric if is_gray else "YBR_FULL_422"
    _describe(image, pixels.shape, stated, samples=1 if is_gray else 3, bits=8)
    source = pixels[:, :, 1] if is_gray else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]
    _, coded = cv2.imencode(".jpg", source, options)
    if not is_gray:
        image.PlanarConfiguration = 0
    image.LossyImageCompression = "01"
    image.LossyImageCompressionRatio = 8
    image.LossyImageCompressionMethod = "ISO_10918_1"
    _set_frames(image, coded.tobytes(), frames=frames)
